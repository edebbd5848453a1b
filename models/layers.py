"""Layers that StyleGAN2 and the networks around it share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAKY_SLOPE = 0.2
BLUR_TAPS = (1.0, 3.0, 3.0, 1.0)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU with the gain sqrt(2) that keeps the variance, as StyleGAN2's fused one."""
    return F.leaky_relu(x, LEAKY_SLOPE) * 2**0.5


class EqualLinear(nn.Module):
    """A linear layer with equalised learning rate: its weight is stored with variance 1 / rate^2 and scaled in use.

    x [B, N] -> [B, M]. bias: what the bias starts at. rate: learning rate multiplier. The scale meets the input, not
    the weight, so that the exported weight is a constant.
    """

    def __init__(self, n_in: int, n_out: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate)
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.gain = rate / n_in**0.5
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.rate == 1.0 else self.bias * self.rate
        return F.linear(x * self.gain, self.weight, bias)


def blur_kernel(channels: int, gain: float = 1.0) -> Tensor:
    """The binomial 4x4 low-pass of StyleGAN2 for a depthwise convolution, [channels, 1, 4, 4]; its sum is `gain`."""
    taps = torch.tensor(BLUR_TAPS)
    kernel = taps[:, None] * taps[None, :]
    return (kernel * (gain / kernel.sum())).repeat(channels, 1, 1, 1)


def shrink_kernel(channels: int, pool: int, unshuffle: int) -> Tensor:
    """`avg_pool2d` by `pool`, then `pixel_unshuffle` by `unshuffle`, as one convolution of stride `pool * unshuffle`.

    [channels * unshuffle^2, channels, S, S], S the stride. Most of it is 0, and still a CPU's matrix unit is through
    with it long before the pixels would have been moved around.
    """
    cell = torch.full((pool, pool), 1.0 / pool**2)
    one = torch.kron(torch.eye(unshuffle**2).view(-1, unshuffle, unshuffle), cell)
    kernel = torch.zeros(channels, unshuffle**2, channels, *one.shape[1:])
    kernel[torch.arange(channels), :, torch.arange(channels)] = one
    return kernel.flatten(0, 1)


class Blur(nn.Module):
    """Low-pass each channel: [B, C, H, W] -> [B, C, H + 2 pad - 3, W + 2 pad - 3]."""

    kernel: Tensor

    def __init__(self, channels: int, pad: int, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", blur_kernel(channels, gain), persistent=False)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=self.pad, groups=len(self.kernel))
