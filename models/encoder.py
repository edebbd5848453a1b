"""The light base encoder: an aligned crop to its W+ code, frame by frame (w_t of rigid.md).

A perceptual trunk sees the face at 128 px; two of its stages, pooled to 6x6, a 16x16 thumbnail and the face mesh's
principal components go through two linear maps, and between them past a small network that bends what is linear. The
linear maps have a closed-form solution (`models/training/closed_form.py`), from which training starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.geometry import CROP_SIZE
from models.layers import LEAKY_SLOPE, shrink_kernel
from models.perceptual import IMAGE_SCALE, IMAGE_SHIFT, STAGE_WIDTHS, StLpips, folded_stage, trunk_stages
from models.tracking import MeshComponents

TRUNK_STAGES = (2, 4)
POOLED = 6
THUMBNAIL = 16
MESH = 16
"""Numbers that the face mesh gives."""

TRUNK_RESOLUTION = 128


@dataclass(frozen=True)
class BaseEncoderConfig:
    """latent_rows: W+ rows of the generator. rank: width between the two linear maps. bent: width of the layer that is
    hidden beside them. widths: channels of the trunk's stages; AlexNet has 64, 192, 384, 256 and 256, of which the ones
    left out never light on a face."""

    latent_rows: int = 12
    latent_dim: int = 512
    rank: int = 256
    bent: int = 512
    widths: tuple[int, int, int, int, int] = (64, 96, 176, 176, 112)

    @property
    def parts(self) -> tuple[int, ...]:
        """How many numbers the linear maps see of each stage, of the thumbnail and of the face mesh."""
        return (*(self.widths[stage] * POOLED**2 for stage in TRUNK_STAGES), 3 * THUMBNAIL**2, MESH)


class FaceFeatures(nn.Module):
    """crop [B, 3, 256, 256] RGB [-1, 1] -> features [B, F], F the sum of `BaseEncoderConfig.parts`.

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
        self.mesh = MeshComponents(MESH)
        self.register_buffer("shift", torch.tensor(IMAGE_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(IMAGE_SCALE).view(1, 3, 1, 1))
        shrink = shrink_kernel(3, CROP_SIZE // TRUNK_RESOLUTION, 2)
        self.register_buffer("shrink", shrink, persistent=False)

    @classmethod
    def of(cls, trunk: StLpips, mesh: MeshComponents) -> Self:
        """With the weights of an AlexNet trunk, at its full widths, and of a face mesh."""
        stages = nn.ModuleList((folded_stage(trunk.stages[0]), *trunk.stages[1:]))
        features = cls(STAGE_WIDTHS["alex"])
        features.stages.load_state_dict(stages.state_dict())
        features.mesh.load_state_dict(mesh.state_dict())
        return features

    def forward(self, crop: Tensor) -> Tensor:
        shrunk = self.shrunk(crop)
        found = self.seen(shrunk)
        parts = [pool(found[stage], POOLED).flatten(1) for stage in TRUNK_STAGES]
        cells = F.avg_pool2d(shrunk, shrunk.shape[-1] // THUMBNAIL)
        thumbnail = cells.unflatten(1, (3, -1)).mean(dim=2) * self.scale + self.shift
        return torch.cat((*parts, thumbnail.flatten(1), self.mesh(crop)), dim=1)

    def shrunk(self, crop: Tensor) -> Tensor:
        """The crop as the trunk takes it: at 128 px, every 2 x 2 pixels beside each other, [B, 12, 64, 64]."""
        return F.conv2d((crop - self.shift) / self.scale, self.shrink, stride=self.shrink.shape[-1])

    def seen(self, shrunk: Tensor) -> list[Tensor]:
        """What each stage of the trunk gives, [B, C, H, W]."""
        x, found = shrunk, []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def pool(x: Tensor, size: int) -> Tensor:
    """Average to size x size by overlapping windows, which exports where adaptive pooling does not."""
    side = x.shape[-1]
    stride = side // size
    return F.avg_pool2d(x, side - stride * (size - 1), stride)


class BaseEncoder(nn.Module):
    """crop [B, 3, 256, 256] -> ws [B, L, 512].

    level [F]: what each feature is multiplied by. Stages of the trunk differ in strength by two orders of magnitude,
    and Adam moves all weights alike: without it those of the weak ones would hardly learn.
    """

    level: Tensor

    def __init__(self, config: BaseEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BaseEncoderConfig()
        self.features = FaceFeatures(config.widths)
        self.register_buffer("level", torch.ones(sum(config.parts)))
        self.reduce = nn.Linear(sum(config.parts), config.rank)
        last = nn.Linear(config.bent, config.rank)
        self.bend = nn.Sequential(nn.Linear(config.rank, config.bent), nn.LeakyReLU(LEAKY_SLOPE), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.expand = nn.Linear(config.rank, config.latent_rows * config.latent_dim)

    def codes(self, features: Tensor) -> Tensor:
        """features [B, F] -> ws [B, L, 512]."""
        found = self.reduce(features * self.level)
        ws: Tensor = self.expand(found + self.bend(found))
        return ws.unflatten(1, (self.config.latent_rows, self.config.latent_dim))

    def forward(self, crop: Tensor) -> Tensor:
        return self.codes(self.features(crop))
