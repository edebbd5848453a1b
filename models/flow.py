"""Optical flow (SPyNet) and the one warp that training losses and metrics share.

Conventions: a flow is [B, 2, H, W], (dx, dy) in pixels, x to the right and y down, pixel centres at integers.
`flow(a -> b)` at pixel p says that what `a` shows at p, `b` shows at p + flow[p]. Hence `warp(b, flow(a -> b))` looks
like `a`, and a zero flow changes nothing.
"""

from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.assets import asset_path
from engine.errors import CheckpointError

_PREFIX = "spynet."
_LEVELS = 6
_MULTIPLE = 2 ** (_LEVELS - 1)
_IMAGE_MEAN = (0.485, 0.456, 0.406)
_IMAGE_STD = (0.229, 0.224, 0.225)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """The image read at p + flow[p] for every pixel p, bilinear; beyond the border its edge pixels.

    image: [B, C, H, W], any range. flow: [B, 2, H, W] in pixels. Returns [B, C, H, W] in the image's dtype.
    Differentiable in both. The sampling grid is kept in float64: normalised to [-1, 1] in float32 it would be off by
    1e-5 pixels at 256 px, and a zero flow would no longer be the identity.
    """
    height, width = image.shape[-2:]
    options = {"dtype": torch.float64, "device": image.device}
    y, x = torch.meshgrid(torch.arange(height, **options), torch.arange(width, **options), indexing="ij")
    at_x, at_y = x + flow[:, 0], y + flow[:, 1]
    # With align_corners=True, -1 and 1 are the centres of the first and the last pixel.
    grid = torch.stack((2 * at_x / max(width - 1, 1) - 1, 2 * at_y / max(height - 1, 1) - 1), dim=-1)
    read = F.grid_sample(image.double(), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return read.to(image.dtype)


class SpyNet(nn.Module):
    """Coarse-to-fine flow over six octaves (Ranjan and Black, CVPR 2017), weights as fine-tuned in BasicVSR on REDS.

    Frozen. Built with random weights; `load` gives the published ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_IMAGE_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_IMAGE_STD).view(1, 3, 1, 1))
        self.levels = nn.ModuleList(_residual_net() for _ in range(_LEVELS))
        # The layout in which a CPU runs 7x7 convolutions fastest.
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The published weights, read from `path` or else from the asset cache.

        Raises CheckpointError when the file does not hold them, AssetMissing when nothing is cached.
        """
        path = asset_path("spynet") if path is None else path
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = {
            key.removeprefix(_PREFIX).replace("basic_module.", "levels.", 1).replace("basic_module.", ""): value
            for key, value in checkpoint.get("params", {}).items()
            if key.startswith(_PREFIX)
        }
        net = cls()
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: no SPyNet under params/{_PREFIX}*: {error}".replace("\n", " ")) from error
        return net

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """flow(a -> b), [B, 2, H, W] in pixels. a, b: [B, 3, H, W], RGB in [0, 1], any size; no gradient passes."""
        height, width = a.shape[-2:]
        size = (-(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE)
        flow = self._coarse_to_fine(self._pyramid(a, size), self._pyramid(b, size))
        flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((width / size[1], height / size[0])).view(1, 2, 1, 1)

    def _pyramid(self, image: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """The normalised image at six octaves, coarsest first; `size` is divisible by 32."""
        image = F.interpolate((image - self.mean) / self.std, size=size, mode="bilinear", align_corners=False)
        octaves = [image]
        for _ in range(_LEVELS - 1):
            octaves.append(F.avg_pool2d(octaves[-1], 2))
        return octaves[::-1]

    def _coarse_to_fine(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Each octave's network sees `a`, `b` brought onto `a` by the flow so far, and that flow; it adds what is left.

        The doubling aligns corners, which is half a pixel off in principle, because the weights were trained so.
        """
        batch, _, height, width = a[0].shape
        flow = a[0].new_zeros(batch, 2, height, width)
        for level, (octave_a, octave_b) in enumerate(zip(a, b, strict=True)):
            if level > 0:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            flow = flow + self.levels[level](torch.cat((octave_a, warp(octave_b, flow), flow), dim=1))
        return flow


def _residual_net() -> nn.Sequential:
    """Five 7x7 convolutions: 3 + 3 image channels and 2 of flow in, 2 of flow out."""
    widths = (8, 32, 64, 32, 16, 2)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Conv2d(n_in, n_out, kernel_size=7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
