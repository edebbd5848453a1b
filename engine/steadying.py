"""Holds what the generator draws steady along the face's own motion, so that an edit does not boil.

Every frame is drawn anew, and what the code and the noise map do not say of it comes out a little differently each
time: skin crawls, painted glasses tremble. The crops themselves tell how the face moved. Along that motion the pictures
of the frame before are carried over and mixed with the new ones, where the carried crop looks like the new one; a mouth
that opens or a hand that comes in does not, and there the new picture stands alone. Costs no latency: nothing later
than the frame itself is looked at.

Motion is estimated by dense inverse search (Kroeger et al., ECCV 2016) on small grey crops, on the CPU whatever the
networks run on. Carrying results along optical flow is how Lai et al. measure temporal consistency ("Learning Blind
Video Temporal Consistency", ECCV 2018), and how they enforce it.
"""

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.frames import ImageU8
from engine.geometry import CROP_SIZE, Affine, align
from engine.runtimes.base import FloatArray

GREY_SIDE = 64
MOTION_SIDE = 32
"""Sides of the crop as motion sees it, and of the grid on which motion is kept: faces move smoothly."""

CARRIED = 0.7
"""Share of the picture before where the crops agree. More is steadier and, as each carrying blurs a little, softer."""

RESTING = 0.2
"""Pixels of the crop below which a motion along x or y counts as none: so little is the search's own trembling, and
what is carried by whole pixels is not blurred."""

UNLIKE = 12.7
"""Grey levels of 255 between the carried crop and the new one at which that share has fallen to 1/e."""

UNLIKE_BLUR = 1.0
"""Standard deviation of the window in which they are compared, px of the grey crop."""

_PATCH_STRIDE = 6
"""Pixels from one patch of the search to the next; a patch is 8 wide."""

Grey = NDArray[np.uint8]
"""A crop as motion sees it, [GREY_SIDE, GREY_SIDE]."""

Motion = NDArray[np.float32]
"""[3, MOTION_SIDE, MOTION_SIDE]: from a point of the new crop to where it was before, x and y in pixels of the crop,
and the share of the picture before."""

Steady = Callable[[Sequence[FloatArray], Sequence[FloatArray | None]], Sequence[FloatArray]]
"""Pictures of the frame before and of this one, each [B, 3, S, S] -> this one's, held steady; new arrays. Where there
are none of this one, those of the frame before are carried along."""


def still() -> Motion:
    """The motion of a face that was not seen before: nothing is carried over."""
    return np.zeros((3, MOTION_SIDE, MOTION_SIDE), np.float32)


def grey_crop(image: ImageU8, crop_from_frame: Affine) -> Grey:
    """A face as motion sees it. image: uint8 BGR [H, W, 3]."""
    return np.asarray(cv2.cvtColor(align(image, crop_from_frame, GREY_SIDE), cv2.COLOR_BGR2GRAY), np.uint8)


def motion_between(before: Grey | None, now: Grey) -> Motion:
    """How one face moved from one frame to the next, and where that is sure; `still` without a frame before."""
    if before is None:
        return still()
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(0)
    search.setPatchStride(_PATCH_STRIDE)
    flow = search.calc(now, before, np.zeros((GREY_SIDE, GREY_SIDE, 2), np.float32))
    x, y = _places(GREY_SIDE)
    carried = cv2.remap(before, flow[..., 0] + x, flow[..., 1] + y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    unlike = cv2.GaussianBlur(cv2.absdiff(carried, now).astype(np.float32), (0, 0), UNLIKE_BLUR)
    share = np.float32(CARRIED) * np.exp(-np.square(unlike / np.float32(UNLIKE)))
    side = (MOTION_SIDE, MOTION_SIDE)
    small = cv2.resize(flow, side, interpolation=cv2.INTER_AREA) * np.float32(CROP_SIZE / GREY_SIDE)
    # Towards none as a non-negative garrote goes: without a jump, and large motions stay what they are.
    small *= np.maximum(1.0 - np.square(RESTING / np.maximum(np.abs(small), 1e-6)), 0.0, dtype=np.float32)
    return np.stack([small[..., 0], small[..., 1], cv2.resize(share, side, interpolation=cv2.INTER_AREA)])


def steadied(
    before: Sequence[FloatArray], now: Sequence[FloatArray | None], motions: Sequence[Motion]
) -> tuple[FloatArray, ...]:
    """Pictures of this frame, mixed with those of the frame before along the motion of each face.

    before, now: as many of either, float32 [B, 3, S, S], S = CROP_SIZE; None for those of the frame before alone.
    motions: one a face, B of them. Returns new arrays.
    """
    size, places = (CROP_SIZE, CROP_SIZE), _places(CROP_SIZE)
    out = tuple(np.empty_like(pictures) for pictures in before)
    for face, motion in enumerate(motions):
        x, y, share = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in motion)
        x += places[0]
        y += places[1]
        for old, new, made in zip(before, now, out, strict=True):
            for channel, mixed in enumerate(made[face]):
                cv2.remap(old[face, channel], x, y, cv2.INTER_LINEAR, dst=mixed, borderMode=cv2.BORDER_REPLICATE)
                if new is not None:
                    mixed -= new[face, channel]
                    mixed *= share
                    mixed += new[face, channel]
    return out


@cache
def _places(side: int) -> NDArray[np.float32]:
    """The x and the y of every pixel, [2, side, side]."""
    places = np.mgrid[:side, :side].astype(np.float32)[::-1].copy()
    places.flags.writeable = False
    return places
