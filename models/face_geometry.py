"""What a face does, measured on its 468 mesh points: smile, open mouth, open eyes, brows, pose, width.

Points are MediaPipe's face mesh, float32 [B, 468, 3] in pixels of an aligned crop: x right, y down, z away from the
camera on the scale of x. Left and right are the image's. Every measure but the pose is taken in the face's own frame,
so that a turned head does not look narrower or sadder.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Landmarks = NDArray[np.float32]
"""Mesh points, float32 [B, 468, 3], pixels."""

# Indices into the mesh: single points, then the upper and lower points of each lid.
EYE_LEFT_OUTER, EYE_LEFT_INNER = 33, 133
EYE_RIGHT_INNER, EYE_RIGHT_OUTER = 362, 263
NOSE_BASE = 2
_FOREHEAD, _CHIN = 10, 152
_TEMPLE_LEFT, _TEMPLE_RIGHT = 234, 454
_JAW_LEFT, _JAW_RIGHT = (58, 172), (288, 397)
_MOUTH_LEFT, _MOUTH_RIGHT = 61, 291
_LIP_UPPER_INNER, _LIP_LOWER_INNER = (82, 13, 312), (87, 14, 317)
_BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
_LID_LEFT_UPPER, _LID_LEFT_LOWER = (160, 159, 158), (144, 145, 153)
_LID_RIGHT_UPPER, _LID_RIGHT_LOWER = (385, 386, 387), (380, 374, 373)


@dataclass(frozen=True)
class FaceMeasures:
    """Measures of B faces, float32 [B] each; lengths are divided by the distance of the outer eye corners.

    smile: how far the corners of the mouth stand above its centre. mouth_width: corner to corner. mouth_open: gap of
    the lips. eyes_open: height over width of the eyes (eye aspect ratio). brows: how high they stand above the eyes'
    corners. jaw_width: of the lower face over its height. yaw_deg: positive when the face looks to the image's right.
    pitch_deg: positive when it looks up. roll_deg: positive clockwise.
    """

    smile: NDArray[np.float32]
    mouth_width: NDArray[np.float32]
    mouth_open: NDArray[np.float32]
    eyes_open: NDArray[np.float32]
    brows: NDArray[np.float32]
    jaw_width: NDArray[np.float32]
    yaw_deg: NDArray[np.float32]
    pitch_deg: NDArray[np.float32]
    roll_deg: NDArray[np.float32]


def face_axes(landmarks: Landmarks) -> NDArray[np.float32]:
    """The face's own axes: right, down and into the head, orthonormal rows, float32 [B, 3, 3]."""
    across = landmarks[:, _TEMPLE_RIGHT] - landmarks[:, _TEMPLE_LEFT]
    across = across + landmarks[:, EYE_RIGHT_OUTER] - landmarks[:, EYE_LEFT_OUTER]
    right = _unit(across)
    down = landmarks[:, _CHIN] - landmarks[:, _FOREHEAD]
    down = _unit(down - (down * right).sum(axis=1, keepdims=True) * right)
    return np.stack([right, down, np.cross(right, down)], axis=1).astype(np.float32)


def measure(landmarks: Landmarks) -> FaceMeasures:
    """All measures of the faces in `landmarks`, float32 [B, 468, 3] in pixels."""
    axes = face_axes(landmarks)
    # Coordinates in the face's frame: the inner product of every point with every axis.
    points = np.einsum("bpk,bak->bpa", landmarks, axes)
    eyes = _distance(points, EYE_LEFT_OUTER, EYE_RIGHT_OUTER)
    corners_y = (points[:, _MOUTH_LEFT, 1] + points[:, _MOUTH_RIGHT, 1]) / 2.0
    middle_y = points[:, _LIP_UPPER_INNER + _LIP_LOWER_INNER, 1].mean(axis=1)
    eyes_y = points[:, (EYE_LEFT_OUTER, EYE_LEFT_INNER, EYE_RIGHT_INNER, EYE_RIGHT_OUTER), 1].mean(axis=1)
    return FaceMeasures(
        smile=((middle_y - corners_y) / eyes).astype(np.float32),
        mouth_width=(_distance(points, _MOUTH_LEFT, _MOUTH_RIGHT) / eyes).astype(np.float32),
        mouth_open=(_gap(points, _LIP_UPPER_INNER, _LIP_LOWER_INNER) / eyes).astype(np.float32),
        eyes_open=((_eye_aspect_left(points) + _eye_aspect_right(points)) / 2.0).astype(np.float32),
        brows=((eyes_y - points[:, _BROWS, 1].mean(axis=1)) / eyes).astype(np.float32),
        jaw_width=_jaw_width(points),
        yaw_deg=np.degrees(np.arctan2(-axes[:, 2, 0], axes[:, 2, 2])).astype(np.float32),
        pitch_deg=np.degrees(np.arcsin(np.clip(axes[:, 2, 1], -1.0, 1.0))).astype(np.float32),
        roll_deg=np.degrees(np.arctan2(axes[:, 0, 1], axes[:, 0, 0])).astype(np.float32),
    )


def mesh_distance(a: Landmarks, b: Landmarks) -> NDArray[np.float32]:
    """Mean distance of the points in the picture, as a share of that of a's outer corners of the eyes, [B]."""
    away = np.linalg.norm((a - b)[..., :2], axis=2).mean(axis=1)
    return np.asarray(away / np.maximum(_distance(a, EYE_LEFT_OUTER, EYE_RIGHT_OUTER), 1.0), np.float32)


def _eye_aspect_left(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return _gap(points, _LID_LEFT_UPPER, _LID_LEFT_LOWER) / _distance(points, EYE_LEFT_OUTER, EYE_LEFT_INNER)


def _eye_aspect_right(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return _gap(points, _LID_RIGHT_UPPER, _LID_RIGHT_LOWER) / _distance(points, EYE_RIGHT_INNER, EYE_RIGHT_OUTER)


def _jaw_width(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Width of the jaw, seen from the front, over the height from the eyes to the chin."""
    left, right = points[:, _JAW_LEFT, 0].mean(axis=1), points[:, _JAW_RIGHT, 0].mean(axis=1)
    eyes_y = (points[:, EYE_LEFT_OUTER, 1] + points[:, EYE_RIGHT_OUTER, 1]) / 2.0
    return ((right - left) / (points[:, _CHIN, 1] - eyes_y)).astype(np.float32)


def _gap(points: NDArray[np.float32], upper: tuple[int, ...], lower: tuple[int, ...]) -> NDArray[np.float32]:
    return (points[:, lower, 1] - points[:, upper, 1]).mean(axis=1)


def _distance(points: NDArray[np.float32], a: int, b: int) -> NDArray[np.float32]:
    return np.linalg.norm(points[:, a] - points[:, b], axis=1)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
