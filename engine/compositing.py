"""From networks' images back to the frame: the blend (Eq. 7).

The frame is touched only inside the rectangle of the mask, and there only where the mask is not 0: everywhere else the
pixels of the result are the frame's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import cv2
import numpy as np

from engine.frames import ImageU8
from engine.geometry import (
    CROP_SIZE,
    Affine,
    Rectangle,
    compose,
    invert_affine,
    pixels_per_pixel,
    resized_from_crop,
    transform_points,
    translation,
    warp,
)
from engine.restoring import unchanged_between
from engine.runtimes.base import FloatArray

BAND_ROWS = 48
"""Rows of the frame that faces are laid over at a time."""

WORTH_DOUBLING = 1.5
"""Enlargement from which doubling the crop with a cubic, then a linear warp, is as sharp as a cubic warp and faster."""


@dataclass(frozen=True)
class Patch:
    """One edited face on its way back: image RGB [-1, 1] [3, S, S], mask [0, 1] [S, S], and where the crop lies.

    crop: I_t, RGB [-1, 1] [3, S, S], to keep the frame's own detail by (`paste`); None lays the image over the frame as
    it is. reshaped, outline: as `give_back` takes them.
    """

    image: FloatArray
    mask: FloatArray
    crop_from_frame: Affine
    crop: FloatArray | None = None
    reshaped: float = 1.0
    outline: float = 1.0


def image_from_u8(crop_u8: ImageU8) -> FloatArray:
    """uint8 BGR [S, S, 3] as the networks see it: float32 RGB [-1, 1] [1, 3, S, S]."""
    rgb = np.ascontiguousarray(crop_u8[..., ::-1].transpose(2, 0, 1))
    return (rgb.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1.0))[None]


def levels_from_image(image: FloatArray) -> FloatArray:
    """RGB [-1, 1] [3, S, S] as levels from 0 to 255, BGR float32 [S, S, 3]; values outside the range are clipped."""
    levels = np.asarray(cv2.merge(list(image[::-1])), dtype=np.float32)
    levels *= np.float32(127.5)
    levels += np.float32(127.5)
    return np.clip(levels, 0.0, 255.0, out=levels)


def blend(frame_u8: ImageU8, patches: Sequence[Patch]) -> ImageU8:
    """The frame with the patches over it, B(UA(E_t), I_t, M); a new array, the frame is not written to."""
    out = frame_u8.copy()
    paste(out, patches)
    return out


def paste(out: ImageU8, patches: Sequence[Patch]) -> None:
    """Lay the patches over the frame `out`, which is written to inside their rectangles and not read elsewhere.

    A crop of 256 px does not hold what a face close up shows: pores, lashes, the wire of glasses. So with g near 1
    where the edit E looks like the crop I, and U bringing a crop to its place, what is laid over the frame F is not
    U(E) but U(E) + g (F - U(I)), as U(E - g I) + g F: the edit's change on the frame's own pixels.
    """
    height, width = out.shape[:2]
    for patch in patches:
        left, top, columns, rows = cv2.boundingRect((patch.mask > 0.0).astype(np.uint8))
        box_px = (left, top, left + columns, top + rows)
        x0, y0, x1, y1 = reach_px(box_px, patch.crop_from_frame, (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        layer = _layer(patch)
        # What takes a whole face is written to memory and read again at every step; a band stays in the cache.
        for start in range(y0, y1, BAND_ROWS):
            _lay(layer, out[start : min(start + BAND_ROWS, y1), x0:x1], translation(-x0, -start))


class Resampling(Enum):
    """How the crop gets to the frame's pixels."""

    DOUBLED = auto()
    """Doubled with a cubic, then warped: much enlarged."""
    CUBIC = auto()
    """Warped with a cubic: about as large as it is."""
    LOW_PASSED = auto()
    """Warped as everything else: made smaller."""


@dataclass(frozen=True)
class _Layer:
    """A patch as it is read.

    levels: E - g I, BGR [n, n, 3]. shares: the mask and, where there is a crop, g, of the crop's pixels, [S, S] each.
    """

    levels: FloatArray
    frame_from_levels: Affine
    shares: Sequence[FloatArray]
    frame_from_crop: Affine
    resampling: Resampling


def _layer(patch: Patch) -> _Layer:
    levels, shares = levels_from_image(patch.image), [patch.mask]
    if patch.crop is not None:
        gate = unchanged_between(patch.crop, np.clip(patch.image, -1.0, 1.0), patch.reshaped, patch.outline)
        levels -= levels_from_image(patch.crop) * gate[..., None]
        shares.append(gate)
    frame_from_levels = frame_from_crop = invert_affine(patch.crop_from_frame)
    how = resampling_of(frame_from_crop)
    if how is Resampling.DOUBLED:
        doubled = 2 * CROP_SIZE
        levels = np.asarray(cv2.resize(levels, (doubled, doubled), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
        frame_from_levels = compose(frame_from_crop, invert_affine(resized_from_crop(doubled)))
    return _Layer(levels, frame_from_levels, shares, frame_from_crop, how)


def _lay(layer: _Layer, band: ImageU8, place: Affine) -> None:
    """Lay a patch over a band of the frame, which is written to. place: to its pixels from the frame's."""
    size = band.shape[1], band.shape[0]
    band_from_crop = compose(place, layer.frame_from_crop)
    mask, *gate = (warp(share, band_from_crop, size, cv2.BORDER_CONSTANT) for share in layer.shares)
    mask = np.clip(mask, 0.0, 1.0, out=mask)
    band_from_levels = compose(place, layer.frame_from_levels)
    if layer.resampling is Resampling.CUBIC:
        flags, border = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        image = cv2.warpAffine(layer.levels, invert_affine(band_from_levels), size, flags=flags, borderMode=border)
    else:
        image = warp(layer.levels, band_from_levels, size, cv2.BORDER_REPLICATE)
    if gate:
        own = cv2.multiply(band, cv2.merge(gate * 3), dtype=cv2.CV_32F)
        image = cv2.add(image, own, dtype=cv2.CV_8U)
    else:
        image = np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8)
    band[...] = cv2.blendLinear(image, np.ascontiguousarray(band), mask, np.float32(1.0) - mask)


def resampling_of(rectangle_from_crop: Affine) -> Resampling:
    """How the crop is brought through this transform."""
    spacing = pixels_per_pixel(rectangle_from_crop)
    if spacing < 1.0 / WORTH_DOUBLING:
        return Resampling.DOUBLED
    return Resampling.CUBIC if spacing < 1.0 else Resampling.LOW_PASSED


def reach_px(box_px: Rectangle, crop_from_frame: Affine, frame_size: tuple[int, int]) -> Rectangle:
    """The rectangle of the frame (width, height) that a mask can reach which is 0 outside a box of the crop.

    box_px: in pixels of the crop; an empty one gives an empty rectangle.
    """
    x0, y0, x1, y1 = box_px
    if x1 <= x0 or y1 <= y0:
        return 0, 0, 0, 0
    # One crop pixel around, which interpolation reaches, but not beyond the crop.
    low, high = np.maximum([x0 - 1.0, y0 - 1.0], -0.5), np.minimum([x1, y1], CROP_SIZE - 0.5)
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    reached = transform_points(invert_affine(crop_from_frame), corners)
    start = np.clip(np.floor(reached.min(axis=0)) - 1, 0, frame_size).astype(int)
    stop = np.clip(np.ceil(reached.max(axis=0)) + 2, 0, frame_size).astype(int)
    return int(start[0]), int(start[1]), int(stop[0]), int(stop[1])
