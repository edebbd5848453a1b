"""What lies around a face, shown where an edit has less of a face than the frame: behind a beard's shorter hair, say.

The generator paints a background there, but its own: around a head it would stand as a bright rim. Behind the face
nobody has looked; a narrow strip of it can be told from what lies beside it. The mask is made for that: it takes in the
fringe of hair that the parser leaves out, which else would stand around hair of another colour, and it fades where a
face goes on beyond the crop. Hair that no slider moves is not touched: it would change with every edit a little, and
stand out against its own ends beyond the crop; nor is the face that only a new colour of hair is meant for. Long hair
stays where the edit shows none, for what falls below the crop cannot be cut: a head that turns does so before it. A
neck that the edit lays bare under a chin is no surroundings: the collar's colour would shine there.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import cv2
import numpy as np

from engine.geometry import shrunk
from engine.glasses import LEAST_SHARE, kept_on
from engine.masks import HAIR_REACH, FaceParse, MaskShape, face_mask, largest_around, mean_around
from engine.restoring import GATE_RESOLUTION, unchanged_share
from engine.runtimes.base import FloatArray

GROWTH = 2
"""Pixels of the parser's output that the frame's face is taken to be larger than the parser says."""

AROUND_REACH = 3
"""Pixels of the parser's output on each side over which the edit's margin is averaged: specks are no background."""

HIDDEN_REACH = 4
"""Pixels of the parser's output around the frame's face from which no colour of the surroundings is taken."""

RISE = 6.0
"""Steps of the logit over which what the parser says begins to hold: its answers tremble by a step or two."""

BARE_LATE = 1.5
"""Margin beyond a face's own edge at which an edit is wholly bare; half of it already is a little within that edge,
where the generator's background shines through."""

LONG_FROM = -1.0
LONG_RISE = 3.0
"""Margin of hair at the crop's lower border from which it begins to be long, and steps until it is: of 31 clips the
short lie below -0.8 and the long above 1.7, but for two in between."""

KEPT_EARLY = 2.0
"""Margin within an edited face's own edge at which long hair is wholly kept: no rim is left between the two."""

STEP = 4
"""Pixels of one grid of `surroundings` that are one of the next."""

LEAST_KNOWN = 1e-6
"""Of a pixel, below which its colour does not count."""

FADE_PX = 16
BEYOND_FADE_PX = 48
"""Of the crop, from its border inwards; the second where the frame's face or the edit's, hair above all, goes on beyond
the crop: hair of one colour has to become hair of another there, and new hair to end."""

BEYOND_LATE = 5.0
"""Margin at the crop's border from which a face wholly goes on beyond: hair that ends just below it, which keeps little
of its old colour, has -4 to -0.6 there, hair that the border cuts 4.5 to 8 (six clips)."""


def cut_out(
    crop: FloatArray,
    edit: FloatArray,
    parse: FaceParse,
    shape: MaskShape,
    hair: float = 1.0,
    glasses: float = 1.0,
    outline: float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """The edit as it goes into the frame, and its soft mask.

    crop, edit: RGB [-1, 1] [3, S, S], S a multiple of GATE_RESOLUTION; parse: theirs, on a grid that is one too. hair:
    how much of the hair is the edit's, [0, 2] (`directions.hair_weight`). glasses, outline: of what is worn, and of the
    head's outline, [0, 1].
    Returns the edit with the surroundings where it has no face and with the glasses that the face wears
    (`glasses.kept_on`), and the mask, float32 [0, 1] [S, S].
    """
    size = crop.shape[-1]
    grown = replace(parse, frame=largest_around(parse.frame, GROWTH))
    mask = face_mask(grown, size, shape, hair, outline) * fade((parse.frame, parse.edit), size)
    hidden, long = _risen(largest_around(parse.frame, HIDDEN_REACH)), _long_hair(parse.hair)
    bare = np.minimum(hidden, _risen(mean_around(parse.around, AROUND_REACH) - np.float32(BARE_LATE)))
    if long is not None:
        bare *= np.float32(1.0) - long
        stays = long * _risen(np.float32(KEPT_EARLY) - mean_around(parse.edit, AROUND_REACH))
        mask *= np.float32(1.0) - cv2.resize(stays, (size, size))
    filled = _filled(crop, edit, bare, hidden)
    return kept_on(filled, crop, edit, parse.glasses, glasses) if glasses < 1.0 else filled, mask


def _long_hair(margin: FloatArray) -> FloatArray | None:
    """Where the frame shows long hair, [0, 1] [h, w]; None of short. margin: of its hair."""
    mean = mean_around(margin, HAIR_REACH)
    long = min(max((float(mean[-1].max()) - LONG_FROM) / LONG_RISE, 0.0), 1.0)
    return np.float32(long) * _risen(mean) if long else None


def _risen(margin: FloatArray) -> FloatArray:
    """0 to 1 over the margins from -RISE to 0; no threshold, at which pictures would flicker."""
    risen: FloatArray = np.clip(np.float32(1.0) + margin / np.float32(RISE), 0.0, 1.0)
    return risen


def fade(faces: Sequence[FloatArray], size: int) -> FloatArray:
    """0 at a crop's border and 1 from FADE_PX on inwards, where a face goes on beyond from BEYOND_FADE_PX on; float32
    [size, size]. faces: the margins of the frame's face and of the edit's, each [h, w]."""
    faded = _plain_fade(size).copy()
    for quarters in range(4):  # each border in turn is the first row of views that are turned so
        borders = np.stack([np.rot90(face, quarters)[0] for face in faces])
        if borders.max() > BEYOND_LATE - RISE:
            strip = np.rot90(faded, quarters)[:BEYOND_FADE_PX]
            np.minimum(strip, _risen_from_border(borders, size), out=strip)
    return faded


@cache
def _plain_fade(size: int) -> FloatArray:
    rows = np.ones((size, size), np.float32)
    rows[:BEYOND_FADE_PX] = _risen_from_border(np.array([[BEYOND_LATE - RISE]], np.float32), size)
    faded: FloatArray = np.minimum.reduce([np.rot90(rows, quarters) for quarters in range(4)])
    return faded


def _risen_from_border(faces: FloatArray, size: int) -> FloatArray:
    """The first rows of `fade` [BEYOND_FADE_PX, size], from the margins along the border [faces, w]."""
    margins = np.asarray(cv2.resize(faces, (size, len(faces)), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    beyond = _risen(margins.max(axis=0) - np.float32(BEYOND_LATE))
    reach = np.float32(FADE_PX) + np.float32(BEYOND_FADE_PX - FADE_PX) * beyond
    share = np.minimum(np.arange(BEYOND_FADE_PX, dtype=np.float32)[:, None] / reach, np.float32(1.0))
    rows: FloatArray = share * share * (np.float32(3.0) - np.float32(2.0) * share)
    return rows


def _filled(crop: FloatArray, edit: FloatArray, bare: FloatArray, hidden: FloatArray) -> FloatArray:
    """The edit with the surroundings where it is bare and differs from the frame.

    bare, hidden: where the edit shows no face, and where the frame may show one, [0, 1] [h, w].
    """
    size = crop.shape[-1]
    of_crop, of_edit = _means(crop), _means(edit)
    change = cv2.transform(cv2.absdiff(of_edit, of_crop), np.full((1, 3), 1.0 / 3.0))
    changed = np.float32(1.0) - unchanged_share(np.asarray(change, dtype=np.float32))
    share: FloatArray = np.multiply(*(cv2.resize(of, (size, size)) for of in (changed, bare)), dtype=np.float32)
    if share.max() < LEAST_SHARE:
        return edit
    around, known = surroundings(of_crop, np.float32(1.0) - shrunk(hidden, GATE_RESOLUTION))
    share *= np.float32(known)  # 0 where the crop shows nothing but a face
    filled = np.empty_like(edit)
    for plane, colour in zip(filled, cv2.split(around), strict=True):
        cv2.resize(colour, (size, size), dst=plane)
    filled -= edit
    filled *= share
    filled += edit
    return filled


def _means(image: FloatArray) -> FloatArray:
    """Means of the blocks of an image [3, S, S], [G, G, 3] with G = GATE_RESOLUTION."""
    return np.asarray(cv2.merge([shrunk(plane, GATE_RESOLUTION) for plane in image]), dtype=np.float32)


def surroundings(image: FloatArray, known: FloatArray) -> tuple[FloatArray, float]:
    """An image [n, n, C] with what is not known filled from what is around it, by pull and push; and the share of the
    whole that is known, 1 but for next to nothing.

    A grid of a quarter of the side has the means of what is known of 4 x 4 pixels, is filled in the same way and gives,
    enlarged, what the image lacks. known: how much each pixel is, [0, 1] [n, n]; n: a power of STEP.
    """
    if len(image) == 1:
        return image, float(known[0, 0])
    there, coarse = known[..., None], len(image) // STEP
    mean = shrunk(known, coarse)
    sums = shrunk(image * there, coarse)
    means: FloatArray = np.divide(sums, np.maximum(mean, LEAST_KNOWN)[..., None], dtype=np.float32)
    filled, whole = surroundings(means, np.minimum(np.float32(STEP * STEP) * mean, np.float32(1.0)))
    beyond: FloatArray = np.asarray(cv2.resize(filled, known.shape), dtype=np.float32)
    return beyond + there * (image - beyond), whole
