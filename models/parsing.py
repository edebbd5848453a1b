"""The face parser: which pixels of a crop are face, hair, clothes or none of them.

A small encoder-decoder in the manner of BiSeNet and U-Net. It answers at 128 px: the masks made from it are eroded and
feathered by tens of pixels before they blend, so finer borders would be thrown away. All context comes from three
stages at 1/8, 1/16 and 1/32 of the crop with few, wide convolutions, which is what matrix units are good at.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

CLASSES = ("background", "skin", "hair", "glasses", "hat", "neck", "cloth", "occluder")
# RIGID's mask: every class of CelebAMask-HQ except background, necklace, neck and cloth.
FACE_CLASSES = ("skin", "hair", "glasses", "hat")
# What is before the face, such as a hand or a cup: no class of CelebAMask-HQ, whose pixels of it are background.
OCCLUDER_CLASSES = ("occluder",)

_CELEBAMASK_HQ: Mapping[str, tuple[int, ...]] = {
    "background": (0,),
    # face skin, nose, eyes, brows, ears, mouth, lips, earrings
    "skin": (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15),
    "hair": (13,),
    "glasses": (3,),
    "hat": (14,),
    # necklace, neck
    "neck": (16, 17),
    "cloth": (18,),
}


def class_table() -> NDArray[np.uint8]:
    """Table [256] from a CelebAMask-HQ label (0..18) to an index into CLASSES; any other label is background."""
    table = np.zeros(256, np.uint8)
    for name, labels in _CELEBAMASK_HQ.items():
        table[list(labels)] = CLASSES.index(name)
    return table


@dataclass(frozen=True)
class ParserConfig:
    """Widths of the parser, in channels; the defaults are those of the default bundle."""

    classes: int = len(CLASSES)
    stem: int = 32
    quarter: int = 64
    eighth: int = 96
    sixteenth: int = 160


class ConvUnit(nn.Sequential):
    """Convolution, batch norm, ReLU; the norm folds into the convolution on export."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
        )


class Residual(nn.Module):
    """x + ConvUnit(x): one convolution deep, because the budget is in milliseconds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit = ConvUnit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.unit(x)


class FaceParser(nn.Module):
    """Crop -> class logits.

    Input [B, 3, 256, 256], RGB in [-1, 1], aligned as FFHQ. Output [B, K, 128, 128] float32, K = len(CLASSES) in
    that order; pixel (i, j) covers the crop's pixels (2i..2i+1, 2j..2j+1).
    """

    def __init__(self, config: ParserConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ParserConfig()
        # 6x6 with stride 4 is a 2x average pool and a 3x3 convolution with stride 2 in one: the pool alone would cost
        # more time on a CPU than all other layers together.
        self.stem = ConvUnit(3, config.stem, kernel=6, stride=4)
        self.quarter = nn.Sequential(ConvUnit(config.stem, config.quarter, stride=2), Residual(config.quarter))
        self.eighth = nn.Sequential(ConvUnit(config.quarter, config.eighth, stride=2), Residual(config.eighth))
        self.sixteenth = nn.Sequential(
            ConvUnit(config.eighth, config.sixteenth, stride=2), Residual(config.sixteenth), Residual(config.sixteenth)
        )
        # The mean of the whole crop says what the light and the framing are (BiSeNet's attention over the context).
        self.context = nn.Conv2d(config.sixteenth, config.sixteenth, 1)
        self.to_eighth = nn.Conv2d(config.sixteenth, config.eighth, 1)
        self.from_eighth = ConvUnit(config.eighth, config.quarter)
        self.from_quarter = ConvUnit(config.quarter, config.stem)
        self.from_stem = ConvUnit(config.stem, config.stem)
        self.head = nn.Conv2d(config.stem, config.classes * 4, 1)

    def forward(self, crop: Tensor) -> Tensor:
        stem = self.stem(crop)
        quarter = self.quarter(stem)
        eighth = self.eighth(quarter)
        deep = self.sixteenth(eighth)
        deep = deep * torch.sigmoid(self.context(deep.mean((2, 3), keepdim=True)))
        x = self.from_eighth(eighth + _doubled(self.to_eighth(deep)))
        x = self.from_quarter(quarter + _doubled(x))
        x = self.from_stem(stem + _doubled(x))
        return F.pixel_shuffle(self.head(x), 2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
