"""Where the eyes look, from the pinned iris network: how far the irises stand from the middle of the eyes.

The gaze is measured in the eye's own frame, between its corners, so it says where the eyes are turned within the head,
not whether they meet the camera: that depends on the head's pose as well.
"""

from dataclasses import dataclass

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from engine.assets import asset_path
from engine.geometry import Affine, invert_affine, transform_points, warp
from models.compiled import compile_file
from models.face_geometry import EYE_LEFT_INNER, EYE_LEFT_OUTER, EYE_RIGHT_INNER, EYE_RIGHT_OUTER, Landmarks

_INPUT_PX = 64
_EYE_SHARE = 1.0 / 2.3
"""Of the network's input that lies between the corners of the eye (MediaPipe's region of interest)."""
# Each eye by its corners, from the image's left to its right. The network knows left eyes; the other is mirrored.
_EYES = (((EYE_LEFT_OUTER, EYE_LEFT_INNER), False), ((EYE_RIGHT_INNER, EYE_RIGHT_OUTER), True))


@dataclass(frozen=True)
class GazeScorer:
    """The compiled iris network; `open` builds one."""

    iris: ov.CompiledModel

    @classmethod
    def open(cls, threads: int = 2) -> "GazeScorer":
        """Compile the cached network. Raises AssetMissing."""
        return cls(compile_file(asset_path("iris"), [len(_EYES), _INPUT_PX, _INPUT_PX, 3], threads))

    def score(self, crops: NDArray[np.uint8], points: Landmarks) -> NDArray[np.float32]:
        """Gaze of each face, float32 [B], positive when the eyes look to the image's right.

        crops: uint8 RGB [B, H, W, 3]. points: their mesh points [B, 468, 3]. Unit: half the eye's width, mean of both.
        """
        pairs = zip(crops, points, strict=True)
        return np.array([self._gaze(crop, face[:, :2].astype(float)) for crop, face in pairs], dtype=np.float32)

    def _gaze(self, crop: NDArray[np.uint8], face: NDArray[np.float64]) -> float:
        corners = [face[list(indices)] for indices, _ in _EYES]
        chips = [eye_chip_from_crop(ends, mirrored) for ends, (_, mirrored) in zip(corners, _EYES, strict=True)]
        images = np.stack([warp(crop, chip, (_INPUT_PX, _INPUT_PX)) for chip in chips]).astype(np.float32) / 255.0
        irises = np.asarray(self.iris(images)["output_iris"]).reshape(len(_EYES), 5, 3)
        centres = [
            transform_points(invert_affine(chip), iris[:1, :2])[0] for chip, iris in zip(chips, irises, strict=True)
        ]
        return float(np.mean([along_eye(ends, centre) for ends, centre in zip(corners, centres, strict=True)]))


def along_eye(corners: NDArray[np.float64], centre: NDArray[np.float64]) -> float:
    """Where a point lies between an eye's corners [2, 2] (image's left, right): -1 at the left one, 1 at the right."""
    half = (corners[1] - corners[0]) / 2.0
    return float((centre - corners.mean(axis=0)) @ half / (half @ half))


def eye_chip_from_crop(corners: NDArray[np.float64], mirrored: bool) -> Affine:
    """The map from the crop to the network's input: the eye level, in the middle, mirrored when it is a right one."""
    across = corners[1] - corners[0]
    scale = _EYE_SHARE * _INPUT_PX / max(float(across @ across), 1e-6)
    linear = np.array([[across[0], across[1]], [-across[1], across[0]]]) * scale
    if mirrored:
        linear[0] = -linear[0]
    middle = np.full(2, (_INPUT_PX - 1) / 2.0)
    return np.hstack([linear, (middle - linear @ corners.mean(axis=0))[:, None]])
