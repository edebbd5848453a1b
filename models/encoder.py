"""The light base encoder: an aligned crop to its W+ code, frame by frame (w_t of rigid.md).

A perceptual trunk sees the face at 128 px; two of its stages, pooled to 6x6, and a 16x16 thumbnail go through two
linear maps. The linear maps have a closed-form solution (`models/training/closed_form.py`), from which training starts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.geometry import CROP_SIZE
from models.layers import shrink_kernel
from models.perceptual import STAGE_WIDTHS, StLpips, folded_stage

TRUNK_STAGES = (2, 4)
POOLED = 6
THUMBNAIL = 16
TRUNK_RESOLUTION = 128
FEATURES = sum(STAGE_WIDTHS["alex"][s] for s in TRUNK_STAGES) * POOLED**2 + 3 * THUMBNAIL**2


@dataclass(frozen=True)
class BaseEncoderConfig:
    """latent_rows: W+ rows of the generator. rank: width between the two linear maps."""

    latent_rows: int = 12
    latent_dim: int = 512
    rank: int = 160


class FaceFeatures(nn.Module):
    """crop [B, 3, 256, 256] RGB [-1, 1] -> features [B, FEATURES].

    The trunk's first convolution and the blur after it are one convolution on pixels unshuffled by 2: less than half as
    much to compute, and twelve channels instead of three, which a CPU's vectors hold better.
    """

    shift: Tensor
    scale: Tensor
    shrink: Tensor

    def __init__(self, trunk: StLpips | None = None) -> None:
        """trunk: AlexNet's; random weights when None."""
        super().__init__()
        trunk = trunk or StLpips("alex")
        self.stages = nn.ModuleList((folded_stage(trunk.stages[0]), *trunk.stages[1:]))
        self.register_buffer("shift", trunk.shift)
        self.register_buffer("scale", trunk.scale)
        shrink = shrink_kernel(3, CROP_SIZE // TRUNK_RESOLUTION, 2)
        self.register_buffer("shrink", shrink, persistent=False)

    def forward(self, crop: Tensor) -> Tensor:
        x = F.conv2d((crop - self.shift) / self.scale, self.shrink, stride=self.shrink.shape[-1])
        parts = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in TRUNK_STAGES:
                parts.append(pool(x, POOLED).flatten(1))
        thumbnail = F.avg_pool2d(crop, CROP_SIZE // THUMBNAIL)
        return torch.cat((*parts, thumbnail.flatten(1)), dim=1)


def pool(x: Tensor, size: int) -> Tensor:
    """Average to size x size by overlapping windows, which exports where adaptive pooling does not."""
    side = x.shape[-1]
    stride = side // size
    return F.avg_pool2d(x, side - stride * (size - 1), stride)


class BaseEncoder(nn.Module):
    """crop [B, 3, 256, 256] -> ws [B, L, 512]."""

    def __init__(self, config: BaseEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BaseEncoderConfig()
        self.features = FaceFeatures()
        self.reduce = nn.Linear(FEATURES, config.rank)
        self.expand = nn.Linear(config.rank, config.latent_rows * config.latent_dim)

    def codes(self, features: Tensor) -> Tensor:
        """The linear part alone: features [B, FEATURES] -> ws [B, L, 512]."""
        ws: Tensor = self.expand(self.reduce(features))
        return ws.unflatten(1, (self.config.latent_rows, self.config.latent_dim))

    def forward(self, crop: Tensor) -> Tensor:
        return self.codes(self.features(crop))
