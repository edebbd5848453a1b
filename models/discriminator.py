"""StyleGAN2's residual discriminator (Karras et al. 2020) on wavelet bands, as narrow as a CPU needs it.

It sees an image's Haar bands (as in SWAGAN, Gal et al. 2021), the details enlarged to about the size of the low band:
what a distilled generator lacks is fine detail, and a network that has to find it among large smooth areas first learns
nothing within hundreds of steps.

It has no minibatch statistics: it judges images that a teacher's are given for one by one, so that variety cannot be
lost, and each image by itself, so that R1 is that image's gradient.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Blur, EqualLinear, activate
from models.mobile_stylegan import haar

LEAST_SIDE = 4
DETAIL_GAIN = 8.0


def doubling_widths(resolution: int, first: int, widest: int = 8) -> tuple[int, ...]:
    """Channels at each halving of `resolution` down to 4 px or an odd side: twice the last, at most widest * first."""
    widths, resolution = [first], resolution // 2
    while resolution % 2 == 0 and resolution > LEAST_SIDE:
        resolution //= 2
        widths.append(min(2 * widths[-1], widest * first))
    return tuple(widths)


class EqualConv(nn.Module):
    """Convolution with equalised learning rate, halving the resolution after a blur when `down`.

    [B, C, H, W] -> [B, C', H, W], or [B, C', H / 2, W / 2]; H and W are even for `down`.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.blur = Blur(c_in, pad=kernel // 2 + 1) if down else None
        self.gain = 1.0 / (c_in * kernel**2) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if self.blur is not None:
            return F.conv2d(self.blur(x), weight, self.bias, stride=2)
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class ResidualBlock(nn.Module):
    """Half the resolution: two convolutions, and a shortcut of one; the sum keeps the variance."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = EqualConv(c_in, c_in, 3)
        self.conv2 = EqualConv(c_in, c_out, 3, down=True)
        self.shortcut = EqualConv(c_in, c_out, 1, down=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (activate(self.conv2(activate(self.conv1(x)))) + self.shortcut(x)) * 0.5**0.5


class Discriminator(nn.Module):
    """Image [B, 3, R, R] in [-1, 1] -> logit [B, 1], high for an image that looks real.

    resolution: R, divisible by 2 as often as there are widths. widths: channels at R / 2, R / 4, ...
    """

    def __init__(self, resolution: int, widths: Sequence[int]) -> None:
        super().__init__()
        assert resolution % (1 << len(widths)) == 0, f"{resolution} px cannot be halved {len(widths)} times"
        side, last = resolution >> len(widths), widths[-1]
        self.from_bands = EqualConv(12, widths[0], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(c_in, c_out) for c_in, c_out in itertools.pairwise(widths)))
        self.conv = EqualConv(last, last, 3)
        self.hidden = EqualLinear(last * side**2, last)
        self.logit = EqualLinear(last, 1)

    def forward(self, image: Tensor) -> Tensor:
        low, details = haar(image).split((3, 9), dim=1)
        x = activate(self.from_bands(torch.cat((low, DETAIL_GAIN * details), dim=1)))
        x = activate(self.conv(self.blocks(x)))
        logit: Tensor = self.logit(activate(self.hidden(x.flatten(1))))
        return logit


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018, Eq. 9): |gradient of the logit in the image|^2, mean over images [B, 3, R, R].

    In float32 also under autocast, because the penalty's gradient is a second derivative.
    """
    with torch.autocast(real.device.type, enabled=False):
        real = real.detach().float().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return slope.square().sum(dim=(1, 2, 3)).mean()
