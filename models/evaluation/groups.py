"""Who a bundle works worse for: the same scores for people of an apparent age, gender and skin tone.

Apparent means what networks and pixels say of a picture; nobody was asked. Skin tone is the individual typology angle
(Chardon et al. 1991) of the cheeks and the forehead, which a warm or dim light moves too.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.face_geometry import Landmarks
from models.face_light import at_points

Members = NDArray[np.bool_]

# Mesh points of both cheeks and the forehead.
_SKIN = (50, 280, 205, 425, 117, 346, 69, 299, 104, 333)
_SKIN_PX = 9
"""Side of the square around each that its colour is the mean of."""


def groups_of(scores: Mapping[str, NDArray[np.float32]], tone_deg: NDArray[np.float32]) -> dict[str, Members]:
    """Which of N stills belong to each group, bool [N]; those of one kind cover all stills.

    scores: "age" in years and "gender" as log odds of male, [N] (`FaceScorers.score`). tone_deg: of `skin_tone`, [N].
    """
    return {
        **_between("age", scores["age"], (30.0, 50.0), " years"),
        "apparent gender female": scores["gender"] < 0,
        "apparent gender male": scores["gender"] >= 0,
        **_between("skin tone", tone_deg, (10.0, 41.0), " degrees"),
    }


def skin_tone(crops: NDArray[np.uint8], points: Landmarks) -> NDArray[np.float32]:
    """The individual typology angle in degrees, float32 [B]: above 41 light, 10 to 41 intermediate or tan, below brown.

    crops: uint8 RGB [B, H, W, 3]. points: their mesh points [B, 468, 3]. The median over ten places, since hair or a
    highlight covers some.
    """
    angles = []
    for crop, face in zip(crops, points, strict=True):
        lab = cv2.cvtColor(cv2.blur(crop, (_SKIN_PX, _SKIN_PX)).astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
        lightness, _, yellow = at_points(lab, face[list(_SKIN)]).T
        angles.append(np.degrees(np.median(np.arctan2(lightness - 50.0, yellow))))
    return np.array(angles, dtype=np.float32)


def _between(name: str, values: NDArray[np.float32], bounds: Sequence[float], unit: str) -> dict[str, Members]:
    """Groups below, between and from the two bounds."""
    low, high = bounds
    return {
        f"{name} below {low:g}{unit}": values < low,
        f"{name} {low:g} to {high:g}{unit}": (values >= low) & (values < high),
        f"{name} from {high:g}{unit}": values >= high,
    }
