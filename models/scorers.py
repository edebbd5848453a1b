"""Scores of aligned face crops: what the sliders are fitted on and what tests of an edit measure.

    scorers = FaceScorers.open()
    scores = scorers.score(crops)      # {"age": [B], "smile": [B], ...}

Age, gender, emotions and gaze come from published networks, expression and pose from mesh points
(`models/face_geometry.py`), light from the skin (`models/face_light.py`), the rest from small linear classifiers of our
own (`models/attribute_classifiers.py`). Everything runs on the CPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from engine.assets import asset_path
from engine.geometry import Affine, warp
from models.attribute_classifiers import AttributeClassifiers
from models.compiled import compile_file
from models.emotions import EmotionScorer
from models.eye_gaze import GazeScorer
from models.face_geometry import (
    EYE_LEFT_INNER,
    EYE_LEFT_OUTER,
    EYE_RIGHT_INNER,
    EYE_RIGHT_OUTER,
    NOSE_BASE,
    Landmarks,
    measure,
)
from models.face_light import eye_light, side_light, skin_tone
from models.identity import MEAN_RGB

Crops = NDArray[np.uint8]
"""Aligned faces (FFHQ's alignment), uint8 RGB [B, 256, 256, 3]."""

VERSION = 3
"""Rises when a score is added or measured in another way, so that scores that were kept are taken anew."""
BATCH = 16
_CROP_PX = 256
_MESH_INPUT_PX = 192
# The mesh network wants the detector's box grown by half; in an FFHQ crop that is always this square (x0, y0, side).
_MESH_SQUARE = (18.0, 38.0, 220.0)
# Where dlib's five points lie in a face chip without padding, as shares of its side (Davis King, dlib, 2017).
_CHIP_POINTS = np.array([[0.8596, 0.2135], [0.6461, 0.2290], [0.1206, 0.2137], [0.3341, 0.2291], [0.4901, 0.6278]])
_CHIP_MESH_INDICES = (EYE_RIGHT_OUTER, EYE_RIGHT_INNER, EYE_LEFT_OUTER, EYE_LEFT_INNER, NOSE_BASE)
_CHIP_PADDING = 0.2
_CHIP_MEANS = np.array(MEAN_RGB, dtype=np.float32)
_AGE_CHIP_PX, _GENDER_CHIP_PX = 64, 32
_AGES = np.concatenate([[0.25], np.arange(1.0, 81.0)]).astype(np.float32)


@dataclass(frozen=True)
class FaceScorers:
    """The compiled networks behind the scores; `open` builds one."""

    age: ov.CompiledModel
    gender: ov.CompiledModel
    mesh: ov.CompiledModel
    gaze: GazeScorer
    emotions: EmotionScorer
    classifiers: AttributeClassifiers

    @classmethod
    def open(cls, threads: int = 2) -> "FaceScorers":
        """Compile the cached networks and load our classifiers.

        Raises AssetMissing when a network is not cached.
        """
        return cls(
            age=compile_file(asset_path("age"), [BATCH, 3, _AGE_CHIP_PX, _AGE_CHIP_PX], threads),
            gender=compile_file(asset_path("gender"), [BATCH, 3, _GENDER_CHIP_PX, _GENDER_CHIP_PX], threads),
            mesh=compile_file(asset_path("face_mesh"), [1, _MESH_INPUT_PX, _MESH_INPUT_PX, 3], threads),
            gaze=GazeScorer.open(threads),
            emotions=EmotionScorer.open(threads),
            classifiers=AttributeClassifiers.load(),
        )

    def landmarks(self, crops: Crops) -> tuple[Landmarks, NDArray[np.float32]]:
        """Mesh points [B, 468, 3] in crop pixels, and [B] how surely there is a face at all, in [0, 1]."""
        points = np.empty((len(crops), 468, 3), dtype=np.float32)
        presence = np.empty(len(crops), dtype=np.float32)
        for index, crop in enumerate(crops):
            points[index], presence[index] = self._mesh_of(crop)
        return points, presence

    def score(self, crops: Crops) -> dict[str, NDArray[np.float32]]:
        """Every score of each crop, float32 [B] a name.

        age: years. gender: log odds of male. smile, mouth_open, eyes_open, brows, jaw_width: shares (`FaceMeasures`).
        yaw, pitch, roll: degrees. gaze: half eye widths, positive to the image's right. light, eye_light, skin_bright,
        skin_red, skin_blue: stops (`models/face_light.py`). angry, sad, surprised: log odds. face: how surely there is
        a face, in [0, 1]. The classifiers' scores are in standard deviations of their labels over the training faces.
        """
        points, presence = self.landmarks(crops)
        measures = measure(points)
        age, gender = self._age_and_gender(crops, points)
        return {
            "age": age,
            "gender": gender,
            "smile": measures.smile + 0.5 * measures.mouth_width,
            "mouth_open": measures.mouth_open,
            "eyes_open": measures.eyes_open,
            "brows": measures.brows,
            "yaw": measures.yaw_deg,
            "pitch": measures.pitch_deg,
            "roll": measures.roll_deg,
            "jaw_width": measures.jaw_width,
            "gaze": self.gaze.score(crops, points),
            "light": side_light(crops, points),
            "eye_light": eye_light(crops, points),
            **skin_tone(crops, points),
            **self.emotions.score(crops, points),
            "face": presence,
            **self.classifiers.score(crops),
        }

    def _mesh_of(self, crop: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        x0, y0, side = _MESH_SQUARE
        scale = _MESH_INPUT_PX / side
        input_from_crop = np.array([[scale, 0.0, -x0 * scale], [0.0, scale, -y0 * scale]])
        image = warp(crop, input_from_crop, (_MESH_INPUT_PX, _MESH_INPUT_PX)).astype(np.float32) / 255.0
        points, logit = (np.asarray(out).reshape(-1) for out in self.mesh(image[None]).values())
        in_crop = points.reshape(468, 3) / scale + np.array([x0, y0, 0.0], dtype=np.float32)
        return in_crop.astype(np.float32), float(1.0 / (1.0 + np.exp(-logit[0])))

    def _age_and_gender(self, crops: Crops, points: Landmarks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        age_chips = face_chips(crops, points, _AGE_CHIP_PX)
        gender_chips = face_chips(crops, points, _GENDER_CHIP_PX)
        ages = np.concatenate([_run(self.age, chips) @ _AGES for chips in _batches(age_chips)])
        odds = np.concatenate([_log_odds(_run(self.gender, chips)) for chips in _batches(gender_chips)])
        return ages.astype(np.float32), odds.astype(np.float32)


def chip_from_crop(points: Landmarks, size: int) -> Affine:
    """The least-squares similarity from five mesh points of one face [468, 3] to a dlib face chip of `size` px."""
    source = np.asarray(points[list(_CHIP_MESH_INDICES), :2], dtype=np.float64)
    target = (_CHIP_POINTS + _CHIP_PADDING) / (1.0 + 2.0 * _CHIP_PADDING) * size
    # As complex numbers a similarity is z -> a z + b, and least squares has a closed form.
    z, q = source @ np.array([1.0, 1.0j]), target @ np.array([1.0, 1.0j])
    centred = z - z.mean()
    a = np.vdot(centred, q - q.mean()) / np.vdot(centred, centred).real
    b = q.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def face_chips(crops: Crops, points: Landmarks, size: int) -> NDArray[np.float32]:
    """Network inputs of the age and gender nets, float32 [B, 3, size, size], means taken off, divided by 256."""
    chips = [warp(crop, chip_from_crop(face, size), (size, size)) for crop, face in zip(crops, points, strict=True)]
    values = (np.stack(chips).astype(np.float32) - _CHIP_MEANS) / np.float32(256.0)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    # Classes are (female, male); the clip keeps a sure answer finite.
    clipped = np.clip(probabilities, 1e-4, 1.0)
    return np.log(clipped[:, 1] / clipped[:, 0])


def _batches(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]


def _run(network: ov.CompiledModel, values: NDArray[np.float32]) -> NDArray[Any]:
    """One batch through a network of fixed batch size; a short batch is padded with its last item."""
    padded = values[np.minimum(np.arange(BATCH), len(values) - 1)]
    return np.asarray(network(padded)[0])[: len(values)]
