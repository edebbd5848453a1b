"""How a face is lit and coloured, read from its skin, in stops (1 is twice as bright).

From which side the light comes and how dark the eyes are against the cheeks are ratios within one picture, so that
neither the exposure nor the colour of the skin enters; `skin_tone` is those two.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.face_geometry import Landmarks

# Pairs of mesh points that mirror each other, the image's left first: cheeks, sides of the mouth, forehead, jaw.
_MIRRORED = np.array([(50, 280), (205, 425), (117, 346), (187, 411), (69, 299), (104, 333), (214, 434)])
_EYE_LEFT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 27, 23)
_EYE_RIGHT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 257, 253)
_CHEEK_LEFT, _CHEEK_RIGHT = (50,), (280,)
_SKIN = tuple(_MIRRORED.ravel())
_SKIN_PX, _EYE_PX = 9, 3
"""Width of the squares that a brightness is the mean of."""
_DARKEST = 8.0
"""Grey levels that are added, so that the noise of black does not count."""


def side_light(crops: NDArray[np.uint8], points: Landmarks) -> NDArray[np.float32]:
    """How many stops brighter the image's right half of the face is than its left, float32 [B].

    crops: uint8 RGB [B, H, W, 3]. points: their mesh points [B, 468, 3]. The median of seven pairs of places, because
    hair covers some.
    """
    rows = []
    for crop, face in zip(crops, points, strict=True):
        levels = _levels(crop, face, _SKIN_PX)
        rows.append(np.median(levels[_MIRRORED[:, 1]] - levels[_MIRRORED[:, 0]]))
    return np.array(rows, dtype=np.float32)


def eye_light(crops: NDArray[np.uint8], points: Landmarks) -> NDArray[np.float32]:
    """How many stops brighter the eyes are than the cheeks, float32 [B]: about -1, and below -2 behind dark glasses."""
    rows = []
    for crop, face in zip(crops, points, strict=True):
        levels = _levels(crop, face, _EYE_PX)
        eyes = levels[list(_EYE_LEFT + _EYE_RIGHT)].mean()
        rows.append(eyes - levels[list(_CHEEK_LEFT + _CHEEK_RIGHT)].mean())
    return np.array(rows, dtype=np.float32)


def skin_tone(crops: NDArray[np.uint8], points: Landmarks) -> dict[str, NDArray[np.float32]]:
    """The skin's brightness, and its red and its blue against its green, each float32 [B]; medians over the face.

    crops: uint8 RGB [B, H, W, 3]. points: their mesh points [B, 468, 3].
    """
    rows = []
    for crop, face in zip(crops, points, strict=True):
        colours = at_points(cv2.blur(crop.astype(np.float32), (_SKIN_PX, _SKIN_PX)), face[list(_SKIN)]) + _DARKEST
        red, green, blue = np.log2(colours).T
        rows.append([np.median(green), np.median(red - green), np.median(blue - green)])
    columns = np.array(rows, dtype=np.float32).reshape(-1, 3).T
    return dict(zip(("skin_bright", "skin_red", "skin_blue"), columns, strict=True))


def _levels(crop: NDArray[np.uint8], face: NDArray[np.float32], width_px: int) -> NDArray[np.float64]:
    """Brightness at every mesh point, in stops, [468]."""
    grey = cv2.blur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32), (width_px, width_px)) + _DARKEST
    return np.asarray(np.log2(at_points(grey, face)), dtype=np.float64)


def at_points(image: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image's [H, W] or [H, W, C] values at points (x, y, ...) [N, 2 or 3]; outside it, those of its border."""
    x, y = (np.clip(np.rint(points[:, axis]).astype(int), 0, image.shape[1 - axis] - 1) for axis in (0, 1))
    values: NDArray[np.float32] = image[y, x]
    return values
