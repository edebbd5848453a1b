"""The visible net (rigid.md, Eq. 8): which of a frame's two neighbours, warped onto it, shows each pixel better.

A U-Net of five convolutions and five transposed ones with batch norm and leaky ReLU. The paper gives no widths; these
are chosen to have its authors' 19.8 M parameters and 41.9 GFLOP at 256 px.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LEAKY_SLOPE = 0.2


@dataclass(frozen=True)
class VisibleNetConfig:
    """Widths of the five convolutions, the first at full resolution, each further one at half the one before.

    kernel: of the convolutions, odd.
    """

    widths: tuple[int, int, int, int, int] = (48, 96, 256, 512, 512)
    kernel: int = 5


PAPER = VisibleNetConfig()
LIGHT = VisibleNetConfig(widths=(12, 24, 48, 80, 128), kernel=3)


class VisibleNet(nn.Module):
    """The two warped neighbours [B, 6, H, W], RGB [-1, 1] -> visibility of the first, [B, 1, H, W], in [0, 1].

    Height and width are multiples of 16. The composite is V * first + (1 - V) * second.
    """

    def __init__(self, config: VisibleNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PAPER
        self.down, c_in = nn.ModuleList(), 6
        for level, width in enumerate(config.widths):
            conv = nn.Conv2d(c_in, width, config.kernel, 2 if level else 1, config.kernel // 2, bias=False)
            self.down.append(_normalised(conv, width))
            c_in = width
        self.up = nn.ModuleList()
        for width in reversed(config.widths[:-1]):
            self.up.append(_normalised(nn.ConvTranspose2d(c_in, width, 4, 2, 1, bias=False), width))
            c_in = 2 * width
        self.last = nn.ConvTranspose2d(c_in, 1, 3, padding=1)

    def forward(self, neighbours: Tensor) -> Tensor:
        found, x = [], neighbours
        for down in self.down:
            x = down(x)
            found.append(x)
        for up, skipped in zip(self.up, reversed(found[:-1]), strict=True):
            x = torch.cat((up(x), skipped), dim=1)
        return torch.sigmoid(self.last(x))


def _normalised(conv: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(LEAKY_SLOPE, inplace=True))
