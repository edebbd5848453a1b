"""FVD, the Fréchet video distance (Unterthiner et al., "Towards Accurate Generative Models of Video", 2018).

    FVD = |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))

mu and S are mean and covariance of I3D's 400 Kinetics logits over windows of 16 frames. Here on aligned crops, scaled
to 224 px; the paper does not say what it took. The number depends strongly on how many windows there are, N: two
samples of one and the same 400-d Gaussian are about 680 apart at N = 23 and 39 at N = 2048. So N always stands beside
it, and the floor: the distance of the real windows' first half from their second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.compiled import compile_network
from models.i3d import CLASSES, FRAMES, SIZE_PX, I3d
from models.pictures import Pictures, images_from

Features = NDArray[np.float64]
"""I3D logits, one window a row, [N, 400]."""

MIN_WINDOWS = 4
"""Fewer leave a half of the real windows without a covariance."""

SHORTEST_CLIP = FRAMES + MIN_WINDOWS - 1
"""Scored frames that a clip must have for an FVD."""


def frechet_distance(a: Features, b: Features) -> float:
    """The Fréchet distance of the Gaussians fitted to two samples [N, D] and [M, D], N and M at least 2.

    With S1 = A'A and S2 = B'B, the trace of the root of S1 S2 is the sum of the singular values of A B'. So no
    covariance is built and no root is taken of a singular matrix: for N below D, the usual case, that root is where the
    textbook formula loses its digits.
    """
    difference = a.mean(axis=0) - b.mean(axis=0)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(difference @ difference + np.square(root_a).sum() + np.square(root_b).sum() - 2.0 * cross)


def _covariance_root(sample: Features) -> Features:
    """A, [min(N, D), D], with A'A the sample's covariance: the centred rows, rotated into no more than D of them."""
    assert sample.ndim == 2, sample.shape
    assert len(sample) >= 2, "one window has no covariance"
    return np.asarray(np.linalg.qr(sample - sample.mean(axis=0), mode="r") / np.sqrt(len(sample) - 1))


def window_starts(frames: int, limit: int) -> list[int]:
    """First frames of at most `limit` windows, evenly spread from the first frame to the last; none in a short clip.

    The stride follows from the clip: 16 windows of 40 frames lie 1 or 2 frames apart, of 100 frames 5 or 6.
    """
    last = frames - FRAMES
    if last < 0:
        return []
    return [int(start) for start in np.rint(np.linspace(0, last, min(limit, last + 1)))]


@dataclass(frozen=True)
class WindowReader:
    """Pictures -> features of their windows; `load` builds one.

    logits: float32 [1, 3, 16, 224, 224] in [-1, 1] -> [1, 400]. limit: windows of a clip, at most.
    """

    logits: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    limit: int

    @classmethod
    def load(cls, limit: int, fast: bool = False) -> Self:
        """I3D with the published weights on the CPU; fast: in bfloat16. Raises AssetMissing."""
        example = torch.zeros(1, 3, FRAMES, SIZE_PX, SIZE_PX)
        return cls(compile_network(I3d.load(), example, "bf16" if fast else "f32"), limit)

    def read(self, pictures: Pictures) -> Features:
        """Features [N, 400] of consecutive pictures, uint8 RGB [T, H, W, 3]; N is 0 in a clip of less than 16."""
        small = [cv2.resize(picture, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) for picture in pictures]
        images = images_from(np.stack(small)).transpose(1, 0, 2, 3)
        windows = [images[None, :, start : start + FRAMES] for start in window_starts(len(small), self.limit)]
        rows = [self.logits(np.ascontiguousarray(window))[0] for window in windows]
        return np.array(rows, dtype=np.float64) if rows else np.empty((0, CLASSES))


@dataclass(frozen=True)
class ClipFeatures:
    """Features of one clip's windows, of its inversion and of its edit, the same windows of each; [N, 400]."""

    source: Features
    inversion: Features
    edit: Features


def fvd_scores(clips: Sequence[ClipFeatures]) -> dict[str, float]:
    """FVD of one clip, or of several pooled into one sample; empty when they have too few windows.

    fvd: inversion against source; fvd_edit: edit against source; both over `windows` windows. fvd_floor: real against
    real, the first half of every clip's windows in time against the second; so it has half as many windows on each
    side, which overlap in frames where the stride is below 16.
    """
    clips = [clip for clip in clips if len(clip.source) >= MIN_WINDOWS]
    if not clips:
        return {}
    source = np.concatenate([clip.source for clip in clips])
    earlier = np.concatenate([clip.source[: len(clip.source) // 2] for clip in clips])
    later = np.concatenate([clip.source[len(clip.source) // 2 :] for clip in clips])
    return {
        "fvd": frechet_distance(source, np.concatenate([clip.inversion for clip in clips])),
        "fvd_edit": frechet_distance(source, np.concatenate([clip.edit for clip in clips])),
        "fvd_floor": frechet_distance(earlier, later),
        "windows": len(source),
    }
