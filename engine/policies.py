"""What goes out instead of a frame that might show the user's face unedited."""

from enum import StrEnum

import cv2
import numpy as np

from engine.frames import CameraFrame, ImageU8
from engine.state import HOLD_NS, HeldFrame

BLUR_SHORT_SIDE_PX = 12
"""A blurred frame keeps this many pixels along its shorter side: no face can be told from them."""

BLANK_LEVEL = 128
"""The grey of a blank frame."""


class LostFace(StrEnum):
    """What leaves the program while an attribute is set and the face is not tracked."""

    HOLD = "hold"
    """The last edited frame for up to `HOLD_NS`, then the live picture, strongly blurred."""
    FREEZE = "freeze"
    """The last edited frame for as long as it takes."""
    BLANK = "blank"
    """A grey frame."""
    PASSTHROUGH = "passthrough"
    """The frame as the camera gave it: the only policy that shows the unedited face."""


def stand_in(policy: LostFace, frame: CameraFrame, held: HeldFrame | None) -> ImageU8:
    """The image that the policy shows in place of a frame, of the frame's own size.

    held: the last frame that was safe to show; without one, or with one of another size, the live picture is blurred.
    """
    if policy is LostFace.PASSTHROUGH:
        return frame.image
    if policy is LostFace.BLANK:
        return np.full_like(frame.image, BLANK_LEVEL)
    image = held.image() if held else None
    if held is None or image is None or image.shape != frame.image.shape:
        return blurred(frame.image)
    # A clock that runs backwards (a source that starts over) says nothing about the time gone by.
    fresh = 0 <= frame.captured_ns - held.captured_ns <= HOLD_NS
    return image if policy is LostFace.FREEZE or fresh else blurred(frame.image)


def blurred(image_u8: ImageU8) -> ImageU8:
    """The picture with light and colour but no features, uint8 BGR [H, W, 3]."""
    height, width = image_u8.shape[:2]
    # Of a large picture, every n-th pixel is more than enough.
    step = max(min(height, width) // (16 * BLUR_SHORT_SIDE_PX), 1)
    scale = min(BLUR_SHORT_SIDE_PX / min(height, width), 1.0)
    small_size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.GaussianBlur(
        cv2.resize(image_u8[::step, ::step], small_size, interpolation=cv2.INTER_AREA), (0, 0), 1.0
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
