"""Who a face is: dlib's 128-d embedding of an aligned crop, for identity metrics.

Two crops of one person lie within about 0.6 of each other (raw L2, the threshold its author gives), other people
further. Weights: dlib_face_recognition_resnet_model_v1, CC0.
"""

from dataclasses import dataclass
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray

from engine.assets import asset_path

Embeddings = NDArray[np.float32]
"""One raw dlib embedding a row, float32 [N, 128]; length about 1.4."""

SAME_PERSON = 0.6
"""Raw L2 distance below which two embeddings are taken for one person."""

# Where dlib's face detector sees the face in an FFHQ-aligned 256 px crop: the median over 60 FFHQ faces. A constant
# box instead of a detection a frame: a detector that flips between two boxes would move the embedding by 0.05.
_FACE_BOX = (45, 78, 194, 228)
_CROP_PX = 256
_CHIP_PX = 150
_CHIP_PADDING = 0.25


@dataclass(frozen=True)
class FaceEmbedder:
    """dlib's landmark and embedding networks; `load` reads them from the asset cache."""

    landmarks: Any
    network: Any

    @classmethod
    def load(cls) -> "FaceEmbedder":
        """The published networks. Raises AssetMissing when they are not cached."""
        return cls(
            landmarks=dlib.shape_predictor(str(asset_path("dlib_landmarks5"))),
            network=dlib.face_recognition_model_v1(str(asset_path("dlib_face"))),
        )

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Raw embeddings, float32 [N, 128]. crops: uint8 RGB [N, 256, 256, 3], FFHQ's alignment."""
        assert crops.shape[1:] == (_CROP_PX, _CROP_PX, 3), crops.shape
        return np.array([self._embed_one(np.ascontiguousarray(crop)) for crop in crops], np.float32).reshape(-1, 128)

    def _embed_one(self, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        points = self.landmarks(crop, dlib.rectangle(*_FACE_BOX))
        chip = dlib.get_face_chip(crop, points, _CHIP_PX, _CHIP_PADDING)
        return np.array(self.network.compute_face_descriptor(chip))


def unit(embeddings: Embeddings) -> Embeddings:
    """The embeddings at length 1, float32 [N, 128], as TL-ID and TG-ID want them."""
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def distances(a: Embeddings, b: Embeddings) -> NDArray[np.float32]:
    """Raw L2 distance of each pair, float32 [N], on the scale of `SAME_PERSON`."""
    return np.linalg.norm(a - b, axis=1)
