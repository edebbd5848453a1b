"""StyleGAN2 (Karras et al. 2020) in torch: the face generator of the paper's size.

Every convolution has constant weights: the style scales the activations before it and the demodulation scales them
after it, which is the same function as modulating the weights and what inference engines run at full speed.

Parameters are named as in the public PyTorch checkpoints. Their convolution weights have one more axis, of size 1, in
front; their blur kernels are constants here.

W+ rows: row 0 styles conv1, row j + 1 convs.j; each RGB head shares the row of the convolution that comes next, and
the last row is the last head's own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Blur, EqualLinear, activate, blur_kernel

NOISE_RESOLUTION = 32  # where RIGID's noise map enters
DEMODULATION_EPSILON = 1e-8
MAPPING_LAYERS = 8
MAPPING_RATE = 0.01


@dataclass(frozen=True)
class StyleGan2Config:
    """Size of the generator.

    channel_multiplier: 2 doubles the channels from 64 px on. widest: channels at low resolutions. budget: channels x
    resolution beyond them.
    """

    resolution: int = 256
    channel_multiplier: int = 2
    latent_dim: int = 512
    widest: int = 512
    budget: int = 16384

    @property
    def latent_rows(self) -> int:
        return 2 * int(math.log2(self.resolution)) - 2

    @property
    def former_rows(self) -> int:
        """Rows up to the first convolution at 128 px (rigid.md, Eq. 3); all but two when there is no such layer."""
        return min(10, self.latent_rows - 2)

    def width(self, resolution: int) -> int:
        """Channels at a resolution."""
        return min(self.widest, self.budget * self.channel_multiplier // resolution)

    def row_names(self) -> list[tuple[str, int]]:
        """Name and resolution of each W+ row."""
        convs = [(f"convs.{j}", 8 << j // 2) for j in range(self.latent_rows - 2)]
        return [("conv1", 4), *convs, (f"to_rgbs.{self.latent_rows // 2 - 2}", self.resolution)]


class ModulatedConv(nn.Module):
    """Convolution of activations scaled by a style: [B, C, H, W], w [B, 512] -> [B, C', H', W'].

    up: twice the resolution, by a transposed convolution and a blur. demodulate: scale the result back to the variance
    that activations of variance 1 would have had.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, latent_dim: int, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.modulation = EqualLinear(latent_dim, c_in, bias=1.0)
        self.blur = Blur(c_out, pad=1, gain=4.0) if up else None
        self.demodulate = demodulate
        self.gain = 1.0 / (c_in * kernel**2) ** 0.5

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.modulation(w) * self.gain
        x = x * style[:, :, None, None]
        if self.blur is not None:
            x = self.blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulate:
            x = x * self._demodulation(style)[:, :, None, None]
        return x

    def _demodulation(self, style: Tensor) -> Tensor:
        """One over the norm of each filter, were it scaled by the style: [B, C] -> [B, C']."""
        energy = self.weight.square().sum(dim=(2, 3))
        return torch.rsqrt(F.linear(style.square(), energy) + DEMODULATION_EPSILON)


class NoiseStrength(nn.Module):
    """The learned scalar on a layer's noise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, noise: Tensor) -> Tensor:
        return noise * self.weight


class BiasedActivation(nn.Module):
    """Bias and leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return activate(x + self.bias[:, None, None])


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    def __init__(self, c_in: int, c_out: int, latent_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, c_out, 3, latent_dim, up)
        self.noise = NoiseStrength()
        self.activate = BiasedActivation(c_out)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """noise: [1, 1, H, W], or with RIGID's noise map [B, C', H, W]."""
        return self.activate(self.conv(x, w) + self.noise(noise))


class RgbHead(nn.Module):
    """Modulated 1x1 convolution to RGB, plus the image so far at twice its resolution."""

    kernel: Tensor

    def __init__(self, c_in: int, latent_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(c_in, 3, 1, latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.register_buffer("kernel", blur_kernel(3, gain=4.0), persistent=False)

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None = None) -> Tensor:
        rgb = self.conv(x, w) + self.bias
        if image is None:
            return rgb
        return rgb + F.conv_transpose2d(image, self.kernel, stride=2, padding=1, groups=3)


class ConstantInput(nn.Module):
    """What every image starts from: [1, C, 4, 4]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return self.input.expand(batch, -1, -1, -1)


class PixelNorm(nn.Module):
    """Scale each vector to a mean square of 1: [B, N] -> [B, N]."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)


class MappingLayer(EqualLinear):
    """Linear layer with a hundredth of the learning rate, leaky ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, rate=MAPPING_RATE)

    def forward(self, x: Tensor) -> Tensor:
        return activate(super().forward(x))


class StyleGan2(nn.Module):
    """ws [B, L, 512], noise map [B, C, 32, 32] -> RGB image [B, 3, R, R], about [-1, 1].

    The noise map joins the constant noise of both 32 px convolutions and is scaled with it by their learned scalars
    (rigid.md, Eq. 4).
    """

    def __init__(self, config: StyleGan2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or StyleGan2Config()
        dim, width = config.latent_dim, config.width(4)
        self.style = nn.Sequential(PixelNorm(), *(MappingLayer(dim) for _ in range(MAPPING_LAYERS)))
        self.input = ConstantInput(width)
        self.conv1 = StyledConv(width, width, dim)
        self.to_rgb1 = RgbHead(width, dim)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, 4, 4))
        for j, (_, resolution) in enumerate(config.row_names()[1:-1]):
            c_in, width = width, config.width(resolution)
            self.convs.append(StyledConv(c_in, width, dim, up=j % 2 == 0))
            self.noises.register_buffer(f"noise_{j + 1}", torch.randn(1, 1, resolution, resolution))
            if j % 2:
                self.to_rgbs.append(RgbHead(width, dim))

    def map(self, z: Tensor) -> Tensor:
        """The mapping network: z [B, 512], normal -> w [B, 512]."""
        w: Tensor = self.style(z)
        return w

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.conv1(self.input(ws.shape[0]), ws[:, 0], self._noise(0, None))
        image = self.to_rgb1(x, ws[:, 1])
        for i, to_rgb in enumerate(self.to_rgbs):
            for j in (2 * i, 2 * i + 1):
                x = self.convs[j](x, ws[:, j + 1], self._noise(j + 1, noise))
            image = to_rgb(x, ws[:, 2 * i + 3], image)
        return image

    def _noise(self, row: int, added: Tensor | None) -> Tensor:
        """The constant noise of the layer that this row styles, with the noise map where it belongs."""
        constant = self.noises.get_buffer(f"noise_{row}")
        return constant if added is None or constant.shape[-1] != NOISE_RESOLUTION else constant + added
