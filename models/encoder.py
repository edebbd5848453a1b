"""The light base encoder: an aligned crop to its W+ code, frame by frame (w_t of rigid.md).

A perceptual trunk sees the face at 128 px; two of its stages, pooled to 6x6, and a 16x16 thumbnail go through two
linear maps. The linear maps have a closed-form solution (`models/training/closed_form.py`), from which training starts.
What they miss comes from a few convolutions on the same two stages, not pooled, which start at nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.geometry import CROP_SIZE
from models.layers import LEAKY_SLOPE, activate, shrink_kernel
from models.perceptual import IMAGE_SCALE, IMAGE_SHIFT, STAGE_WIDTHS, StLpips, folded_stage, trunk_stages

TRUNK_STAGES = (2, 4)
POOLED = 6
THUMBNAIL = 16
TRUNK_RESOLUTION = 128
DETAIL_SIDE = 8
DETAIL_BLOCKS = 2


@dataclass(frozen=True)
class BaseEncoderConfig:
    """latent_rows: W+ rows of the generator. rank: width between the two linear maps. widths: channels of the trunk's
    stages; AlexNet has 64, 192, 384, 256 and 256, of which the ones left out never light on a face. detail_width,
    detail_rank: channels of the convolutions, and how many numbers they come to."""

    latent_rows: int = 12
    latent_dim: int = 512
    rank: int = 160
    widths: tuple[int, int, int, int, int] = (64, 96, 176, 176, 112)
    detail_width: int = 128
    detail_rank: int = 320

    @property
    def features(self) -> int:
        """How many numbers the linear maps see."""
        return sum(self.widths[stage] for stage in TRUNK_STAGES) * POOLED**2 + 3 * THUMBNAIL**2


class FaceFeatures(nn.Module):
    """crop [B, 3, 256, 256] RGB [-1, 1] -> features [B, `BaseEncoderConfig.features`].

    AlexNet, whose first convolution and the blur after it are one convolution on pixels unshuffled by 2: less than half
    as much to compute, and twelve channels instead of three, which a CPU's vectors hold better.
    """

    shift: Tensor
    scale: Tensor
    shrink: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        """Random weights; `of` takes a trunk's."""
        super().__init__()
        first, *others = trunk_stages("alex", widths)
        self.stages = nn.ModuleList((folded_stage(first), *others)).to(memory_format=torch.channels_last)
        self.stages.requires_grad_(True)
        self.register_buffer("shift", torch.tensor(IMAGE_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(IMAGE_SCALE).view(1, 3, 1, 1))
        shrink = shrink_kernel(3, CROP_SIZE // TRUNK_RESOLUTION, 2)
        self.register_buffer("shrink", shrink, persistent=False)

    @classmethod
    def of(cls, trunk: StLpips) -> Self:
        """With the weights of an AlexNet trunk, at its full widths."""
        stages = nn.ModuleList((folded_stage(trunk.stages[0]), *trunk.stages[1:]))
        features = cls(STAGE_WIDTHS["alex"])
        features.stages.load_state_dict(stages.state_dict())
        return features

    def forward(self, crop: Tensor) -> Tensor:
        return self.pooled(crop, self.seen(crop))

    def pooled(self, crop: Tensor, found: Sequence[Tensor]) -> Tensor:
        """The features of what `seen` found."""
        parts = [pool(found[stage], POOLED).flatten(1) for stage in TRUNK_STAGES]
        thumbnail = F.avg_pool2d(crop, CROP_SIZE // THUMBNAIL)
        return torch.cat((*parts, thumbnail.flatten(1)), dim=1)

    def seen(self, crop: Tensor) -> list[Tensor]:
        """What each stage of the trunk gives, [B, C, H, W]."""
        x = F.conv2d((crop - self.shift) / self.scale, self.shrink, stride=self.shrink.shape[-1])
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def pool(x: Tensor, size: int) -> Tensor:
    """Average to size x size by overlapping windows, which exports where adaptive pooling does not."""
    side = x.shape[-1]
    stride = side // size
    return F.avg_pool2d(x, side - stride * (size - 1), stride)


class Detail(nn.Module):
    """Two stages of the trunk [B, C, 16, 16] -> numbers [B, `BaseEncoderConfig.detail_rank`]."""

    def __init__(self, config: BaseEncoderConfig) -> None:
        super().__init__()
        seen, width = sum(config.widths[stage] for stage in TRUNK_STAGES), config.detail_width
        self.first = nn.Conv2d(seen, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_block(width) for _ in range(DETAIL_BLOCKS))
        self.last = nn.Linear(width * DETAIL_SIDE**2, config.detail_rank)

    def forward(self, found: Sequence[Tensor]) -> Tensor:
        x = activate(self.first(torch.cat([found[stage] for stage in TRUNK_STAGES], dim=1)))
        for block in self.blocks:
            x = activate(x + block(x))
        numbers: Tensor = activate(self.last(x.flatten(1)))
        return numbers


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(LEAKY_SLOPE), nn.Conv2d(width, width, 3, padding=1)
    )


class BaseEncoder(nn.Module):
    """crop [B, 3, 256, 256] -> ws [B, L, 512]."""

    def __init__(self, config: BaseEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BaseEncoderConfig()
        self.features = FaceFeatures(config.widths)
        self.reduce = nn.Linear(config.features, config.rank)
        self.expand = nn.Linear(config.rank, config.latent_rows * config.latent_dim)
        self.detail = Detail(config)
        self.correct = nn.Linear(config.detail_rank, config.latent_rows * config.latent_dim, bias=False)
        nn.init.zeros_(self.correct.weight)

    def codes(self, features: Tensor, detail: Tensor | None = None) -> Tensor:
        """features [B, F] and detail [B, R] -> ws [B, L, 512]; without detail by the linear maps alone."""
        ws: Tensor = self.expand(self.reduce(features))
        if detail is not None:
            ws = ws + self.correct(detail)
        return ws.unflatten(1, (self.config.latent_rows, self.config.latent_dim))

    def described(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """What `codes` takes, of a crop."""
        found = self.features.seen(crop)
        return self.features.pooled(crop, found), self.detail(found)

    def forward(self, crop: Tensor) -> Tensor:
        return self.codes(*self.described(crop))
