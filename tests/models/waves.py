"""A generator that can be seen through, in the place of the light one."""

import torch
from torch import Tensor, nn

from models.evaluation.ceiling import Painter
from models.perceptual import StLpips

CODE_ROWS, WIDTH, SIDE = 4, 16, 32


class Waves(nn.Module):
    """Every number of the code [B, CODE_ROWS, WIDTH] is a wave over the picture, the map [B, C, SIDE, SIDE] a shade."""

    waves: Tensor

    def __init__(self) -> None:
        super().__init__()
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        pace = torch.rand(CODE_ROWS * WIDTH, 3, 3, 1, 1, generator=torch.Generator().manual_seed(3))
        self.register_buffer("waves", 0.3 * torch.sin(pace[:, 0] * x + pace[:, 1] * y + 6.3 * pace[:, 2]))

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        image = torch.einsum("bk,kchw->bchw", ws.flatten(1), self.waves.to(ws.dtype))
        return image if noise is None else image + noise.mean(dim=1, keepdim=True)


def random_trunk() -> StLpips:
    """ST-LPIPS with random weights; like the published heads', those of the heads are not negative."""
    torch.manual_seed(3)
    trunk = StLpips()
    for head in trunk.heads:
        head.weight.abs_()
    return trunk


def wave_painter() -> Painter:
    """In float32."""
    return Painter(Waves(), random_trunk(), torch.float32)
