"""Where a face and its parts lie in an aligned crop."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from engine.runtimes.base import FloatArray

FACE_MIDDLE, FACE_HALF = (0.5, 0.59), (0.25, 0.32)
"""Of a face in an aligned crop, across and down as shares of its side: the middle and half the extent."""

OUTLINE, OUTLINE_RISE = 1.08, 0.22
"""How far from its middle a face ends, in FACE_HALF, and over how much of that its inside turns into its outside."""

Feature = tuple[tuple[float, float], tuple[float, float]]
"""The middle and half the extent of a part of a face, likewise."""

EYES: tuple[Feature, ...] = (((0.385, 0.47), (0.099, 0.072)), ((0.615, 0.47), (0.099, 0.072)))
MOUTH: tuple[Feature, ...] = (((0.5, 0.735), (0.12, 0.08)),)
FEATURE_RISE = 0.55
"""Eyes with their lids; lips; and over how much of their extent what belongs to them turns into what does not."""


def within_face(side: int, like: FloatArray) -> FloatArray:
    """1 within a face in an aligned crop, 0 from its outline on, [side, side]; an array as `like` is."""
    share: FloatArray = np.clip((OUTLINE - _away(side, FACE_MIDDLE, FACE_HALF, like)) / OUTLINE_RISE, 0.0, 1.0)
    return share


def at_features(side: int, features: Sequence[Feature], like: FloatArray) -> FloatArray:
    """1 at these features of a face in an aligned crop, 0 from their ends on, [side, side]; an array as `like` is."""
    nearest = reduce(np.minimum, [_away(side, middle, half, like) for middle, half in features])
    share: FloatArray = np.clip((1.0 - nearest) / FEATURE_RISE, 0.0, 1.0)
    return share


def part_places(side: int, like: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """1 at the outline of a face in an aligned crop and beyond, at eyes, and at the mouth, each [side, side]; arrays as
    `like` is."""
    return 1.0 - within_face(side, like), at_features(side, EYES, like), at_features(side, MOUTH, like)


def _away(side: int, middle: tuple[float, float], half: tuple[float, float], like: FloatArray) -> FloatArray:
    """How far each place of a crop is from a middle, in units of the half extents across and down, [side, side]."""
    places = (np.arange(side, dtype=np.float32, like=like) + np.float32(0.5)) / np.float32(side)
    across, down = (np.square((places - at) / extent) for at, extent in zip(middle, half, strict=True))
    away: FloatArray = np.sqrt(down[:, None] + across)
    return away
