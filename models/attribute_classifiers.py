"""Small linear classifiers of our own: one weight vector an attribute on frozen perceptual features.

The features are the second stage of the ST-LPIPS Alex trunk over the inner face, each position normalised and then
averaged over a grid, and a thumbnail of the whole crop. The weights are trained by `models/training/attributes.py` on
labelled faces and ship in `models/weights/attribute_classifiers.npz`.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from models.perceptual import StLpips

WEIGHTS_FILE = Path(__file__).parent / "weights" / "attribute_classifiers.npz"

_FACE_ROWS, _FACE_COLUMNS = slice(64, 224), slice(48, 208)
"""The inner face in an aligned crop of 256 px: brows to chin."""
_INPUT_PX = 128
_GRID = 8
_THUMBNAIL_PX = 16
_BATCH = 32

Features = NDArray[np.float32]
"""Features of faces, float32 [B, FEATURES]."""

BLOCKS = (192 * _GRID**2, 3 * _THUMBNAIL_PX**2)
"""How many features come from the trunk, how many from the thumbnail."""
FEATURES = sum(BLOCKS)


@torch.inference_mode()
def features_of(crops: NDArray[np.uint8], trunk: StLpips) -> Features:
    """Features of aligned crops, uint8 RGB [B, H, W, 3], H = W; sizes other than 256 are resampled first."""
    rows = [_features_of_batch(crops[start : start + _BATCH], trunk) for start in range(0, len(crops), _BATCH)]
    return np.concatenate(rows)


def _features_of_batch(crops: NDArray[np.uint8], trunk: StLpips) -> Features:
    image = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    if image.shape[-1] != 256:
        image = F.interpolate(image, size=(256, 256), mode="bilinear", antialias=True)
    face = image[:, :, _FACE_ROWS, _FACE_COLUMNS]
    activations = (
        F.interpolate(face, size=(_INPUT_PX, _INPUT_PX), mode="bilinear", antialias=True) - trunk.shift
    ) / trunk.scale
    # The second stage already tells a frame of glasses from a brow, and costs a third of the whole trunk.
    for stage in trunk.stages[:2]:
        activations = stage(activations)
    directions = activations / (activations.norm(dim=1, keepdim=True) + 1e-3)
    parts = (F.adaptive_avg_pool2d(directions, _GRID), F.adaptive_avg_pool2d(image, _THUMBNAIL_PX))
    return torch.cat([part.flatten(1) for part in parts], dim=1).numpy()


@dataclass(frozen=True)
class LinearHeads:
    """Linear scores of features: (features - mean) / deviation @ weights + bias.

    names: one an attribute. mean, deviation: float32 [FEATURES]. weights: float32 [FEATURES, K]. bias: float32 [K].
    """

    names: tuple[str, ...]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change when any weight does."""
        return f"{zlib.crc32(self.weights.tobytes()):08x}"

    def score(self, features: Features) -> dict[str, NDArray[np.float32]]:
        """Score of each face a name, float32 [B]."""
        scores = ((features - self.mean) / self.deviation) @ self.weights + self.bias
        return {name: scores[:, column] for column, name in enumerate(self.names)}

    def save(self, path: Path) -> None:
        """Write the heads in half precision, which changes a score by less than a hundredth."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            names=np.array(self.names),
            mean=self.mean.astype(np.float16),
            deviation=self.deviation.astype(np.float16),
            # Weights are tiny; scaled to the range where half precision has all its digits.
            weights=(self.weights * len(self.mean)).astype(np.float16),
            bias=self.bias,
        )

    @classmethod
    def load(cls, path: Path = WEIGHTS_FILE) -> "LinearHeads":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            mean = stored["mean"].astype(np.float32)
            return cls(
                names=tuple(str(name) for name in stored["names"]),
                mean=mean,
                deviation=stored["deviation"].astype(np.float32),
                weights=stored["weights"].astype(np.float32) / len(mean),
                bias=stored["bias"],
            )


@dataclass(frozen=True)
class AttributeClassifiers:
    """The trunk with its heads, from pixels to scores."""

    heads: LinearHeads

    @classmethod
    def load(cls, path: Path = WEIGHTS_FILE) -> "AttributeClassifiers":
        """The classifiers that ship; the trunk is read from the asset cache when first used."""
        return cls(LinearHeads.load(path))

    @cached_property
    def _trunk(self) -> StLpips:
        return StLpips.load(net="alex")

    def score(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Scores of aligned crops, uint8 RGB [B, H, W, 3], float32 [B] a name."""
        return self.heads.score(features_of(crops, self._trunk))
