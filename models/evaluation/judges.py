"""The networks that score pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.evaluation.fvd import WindowReader
from models.evaluation.identity import FaceEmbedder
from models.evaluation.lpips import Lpips
from models.flow import SpyNet
from models.perceptual import StLpips
from models.pictures import Pictures, images_from
from models.scorers import FaceScorers

_PAIRS = 4
"""Pairs of frames that go through the flow network together; bounds the memory."""


@dataclass(frozen=True)
class Judges:
    """All of them; `load` reads them.

    fast: perceptual distance and flow in bfloat16, about four times as fast on a processor that has it; the scores move
    in their third digit.
    """

    distance: StLpips | Lpips
    flow: SpyNet
    embedder: FaceEmbedder
    scorers: FaceScorers
    windows: WindowReader
    fast: bool = False

    @classmethod
    def load(cls, windows: int, lpips: Sequence[Path] = (), fast: bool = False) -> "Judges":
        """From the asset cache, LPIPS from the user's files where they are given, else ST-LPIPS in its place.

        windows: of a clip at most, for FVD. Raises AssetMissing when a network is not cached, CheckpointError for files
        that are not LPIPS.
        """
        distance = Lpips.load(lpips) if lpips else StLpips.load()
        reader = WindowReader.load(windows, fast)
        return cls(distance, SpyNet.load(), FaceEmbedder.load(), FaceScorers.open(), reader, fast)

    @property
    def distance_name(self) -> str:
        """Under which name the perceptual distance is reported: the two are different numbers."""
        return "lpips" if isinstance(self.distance, Lpips) else "st_lpips"

    def perceptual_distances(self, a: Pictures, b: Pictures) -> NDArray[np.float32]:
        """The distance of each pair of pictures at their own size, [N]."""
        with self._arithmetic():
            return perceptual_distances(self.distance, a, b)

    def flows(self, frames: Pictures) -> tuple[Tensor, Tensor]:
        """flow(t -> t+1) and flow(t+1 -> t) of neighbouring RGB frames, float32 [T - 1, 2, H, W] each."""
        forward, backward = [], []
        for start in range(0, len(frames) - 1, _PAIRS):
            images = torch.from_numpy(images_from(frames[start : start + _PAIRS + 1])) / 2 + 0.5
            with self._arithmetic():
                forward.append(self.flow(images[:-1], images[1:]).float())
                backward.append(self.flow(images[1:], images[:-1]).float())
        return torch.cat(forward), torch.cat(backward)

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.fast)


@torch.no_grad()
def perceptual_distances(distance: StLpips | Lpips, a: Pictures, b: Pictures) -> NDArray[np.float32]:
    """The distance of each pair of pictures at their own size, [N]."""
    pairs = zip(a, b, strict=True)
    images = ((torch.from_numpy(images_from(x[None])), torch.from_numpy(images_from(y[None]))) for x, y in pairs)
    return np.array([distance(x, y).item() for x, y in images], dtype=np.float32)
