"""What an edit does to the colours of a face's skin, where it is not meant to.

A step in W that ages a face also darkens it, in patches, and the neck below stays as it is. Seen from afar, an edit of
shapes leaves skin the colour that it was; so what changes there, smoothed, is taken off the edit again. What changes
much is no skin in one of the two, and does not count: teeth, a beard, hair.
"""

from functools import cache

import cv2
import numpy as np

from engine.face_places import EYES, MOUTH, at_features, within_face
from engine.geometry import shrunk
from engine.runtimes.base import FloatArray

TONE_RESOLUTION = 16
"""Cells of a crop, on each side, that a colour is found for."""

TONE_BLUR = 1.25
"""In cells: finer than this are wrinkles and cheeks, which an edit may well change."""

SAME_SKIN = 0.25
"""Mean change on the [-1, 1] scale at which a place counts little as skin of both."""

LEAST_SKIN = 0.02
"""Share of skin that nothing is known about; where there is next to none, no colour changes."""


def tone_change(change: FloatArray) -> FloatArray:
    """What an edit does to the colours of skin, smooth, [3, T, T] with T = TONE_RESOLUTION; 0 outside the face.

    change: from inversion to edit on the [-1, 1] scale, means of blocks, [3, G, G], G a multiple of T.
    """
    skin = skin_places(change.shape[-1]) * np.exp(-np.square(np.abs(change).mean(axis=0) / np.float32(SAME_SKIN)))
    cells = shrunk(cv2.merge([*(change * skin), skin]), TONE_RESOLUTION)
    around = cv2.GaussianBlur(cells, (0, 0), TONE_BLUR)
    means = around[..., :3] / (around[..., 3:] + np.float32(LEAST_SKIN))
    return np.ascontiguousarray((means * face_places(TONE_RESOLUTION)[..., None]).transpose(2, 0, 1), dtype=np.float32)


@cache
def skin_places(side: int) -> FloatArray:
    """Where a face shows skin, [0, 1] [side, side]: not at eyes and mouth."""
    like = np.ones(1, np.float32)
    skin: FloatArray = face_places(side) * (1.0 - at_features(side, (*EYES, *MOUTH), like))
    return skin


@cache
def face_places(side: int) -> FloatArray:
    """Where a face is, [0, 1] [side, side]."""
    return within_face(side, np.ones(1, np.float32))
