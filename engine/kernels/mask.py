"""The parser's logits -> soft masks on the kernels' device; defined by `masks.face_mask`.

Every margin that anything asks for is found once at each pixel, then every mean and every largest of them, all in
three launches; what `surroundings.cut_out` needs of them is among these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from engine.bundle import ParserSpec
from engine.geometry import CROP_SIZE
from engine.glasses import GLASSES_REACH
from engine.kernels.load import Array, Kernels, check
from engine.masks import (
    GLASSES_CLASSES,
    HAIR_CLASSES,
    HAIR_REACH,
    HAIR_RISE,
    LEAST_COVER,
    NECK_CLASSES,
    PART_REACH,
    PART_RISE,
    THING_BENEFIT,
    THING_CORE,
    THING_GROWTH,
    THING_REACH,
    MaskShape,
    beyond_outline,
    usual_mask,
)
from engine.surroundings import AROUND_REACH, BEYOND_FADE_PX, BEYOND_LATE, FADE_PX, GROWTH, HIDDEN_REACH, RISE

MOST_CLASSES = 32
"""Classes of a parser whose set fits the kernel's word; CelebAMask-HQ has 19."""

MOST_REACH, MOST_CORE, MOST_GROWTH, MOST_PART = 4, 2, 10, 1
"""How far mask.cu can look."""


class Margin(IntEnum):
    """Planes of margins, as mask.cu numbers them: of what, above all other classes."""

    FOUND = 0
    """The face in the frame; what is before it counts for neither."""
    BEFORE = 1
    """What is before a face in the frame."""
    SKIN = 2
    """The face but for hair in the frame; what is before it counts for neither."""
    HAIR = 3
    """Hair in the frame."""
    GLASSES = 4
    """Glasses in the frame."""
    FACE = 5
    """The face in the edit."""
    PAINTED = 6
    """The face but for hair in the edit."""
    REST = 7
    """What is neither a face, nor its neck, nor before one in the edit."""


class Seen(IntEnum):
    """Planes of what squares of margins hold: a mean, or the largest."""

    BEFORE = 0
    HAIR = 1
    GROWN = 2
    HIDDEN = 3
    AROUND = 4
    SHOWN = 5
    GLASSES = 6


WINDOWS = {
    Seen.BEFORE: (Margin.BEFORE, THING_REACH, 0),
    Seen.HAIR: (Margin.HAIR, HAIR_REACH, 0),
    Seen.GROWN: (Margin.FOUND, GROWTH, 1),
    Seen.HIDDEN: (Margin.FOUND, HIDDEN_REACH, 1),
    Seen.AROUND: (Margin.REST, AROUND_REACH, 0),
    Seen.SHOWN: (Margin.FACE, AROUND_REACH, 0),
    Seen.GLASSES: (Margin.GLASSES, GLASSES_REACH, 1),
}
"""Of each: the margin, how far the square reaches to each side, and 1 for the largest."""


@dataclass(frozen=True)
class MaskBuffers:
    """Memory and constants for `soft_masks`, made once; arrays on the device, S = CROP_SIZE.

    things, hair: whether the parser has such classes. sets: uint32 [Margin, 2], bit n of a set for class n. windows:
    int32 [Seen, 3], `WINDOWS`. margins: float32 [Margin, F, h, w]; lines, squares: float32 [Seen, F, h, w], of `lines`
    the rows alone. cores, near: uint8 [F, h, w]. united, shares: float32 [F, h, w]. beyond: float32 [h, w], where a
    head's outline is and what lies beyond. covered: uint32 [F]. rows, eroded: uint8 [F, S, S]. counts: uint16
    [F, S, S]. usual: float32 [S, S]. both: float32 [F], ones.
    """

    shape: MaskShape
    things: bool
    hair: bool
    sets: Array
    windows: Array
    margins: Array
    lines: Array
    squares: Array
    cores: Array
    near: Array
    united: Array
    shares: Array
    beyond: Array
    covered: Array
    rows: Array
    eroded: Array
    counts: Array
    usual: Array
    both: Array


def mask_buffers(
    kernels: Kernels, faces: int, parts: ParserSpec, logits_size: tuple[int, int], shape: MaskShape
) -> MaskBuffers:
    """Buffers for up to so many faces; logits_size: (width, height) of the parser's output."""
    assert max(reach for _, reach, _ in WINDOWS.values()) <= MOST_REACH, "a window wider than mask.cu's"
    assert THING_CORE <= MOST_CORE, f"a core of {THING_CORE}"
    assert THING_GROWTH <= MOST_GROWTH, f"a growth of {THING_GROWTH}"
    assert PART_REACH <= MOST_PART, f"a reach of {PART_REACH}"
    width, height = logits_size
    plane = (faces, CROP_SIZE, CROP_SIZE)
    sets = margin_sets(parts)
    return MaskBuffers(
        shape=shape,
        things=bool(sets[Margin.BEFORE, 0]),
        hair=bool(sets[Margin.HAIR, 0]),
        sets=kernels.put(sets),
        windows=kernels.put(np.array([WINDOWS[seen] for seen in Seen], np.int32)),
        margins=kernels.empty((len(Margin), faces, height, width), np.float32),
        lines=kernels.empty((len(Seen), faces, height, width), np.float32),
        squares=kernels.empty((len(Seen), faces, height, width), np.float32),
        cores=kernels.empty((faces, height, width), np.uint8),
        near=kernels.empty((faces, height, width), np.uint8),
        united=kernels.empty((faces, height, width), np.float32),
        shares=kernels.empty((faces, height, width), np.float32),
        beyond=kernels.put(beyond_outline((height, width))),
        covered=kernels.empty((faces,), np.uint32),
        rows=kernels.empty(plane, np.uint8),
        eroded=kernels.empty(plane, np.uint8),
        counts=kernels.empty(plane, np.uint16),
        usual=kernels.put(usual_mask(CROP_SIZE, shape)),
        both=kernels.put(np.ones(faces, np.float32)),
    )


def margin_sets(parts: ParserSpec) -> NDArray[np.uint32]:
    """Of each `Margin` its classes, and those that they are measured by: bit n for class n; uint32 [Margin, 2]."""
    assert len(parts.classes) <= MOST_CLASSES, f"{len(parts.classes)} classes, at most {MOST_CLASSES} were expected"
    everything = _word(parts, parts.classes)
    face, thing = _word(parts, parts.face_classes), _word(parts, parts.occluder_classes)
    hair, neck, glasses = (_word(parts, names) for names in (HAIR_CLASSES, NECK_CLASSES, GLASSES_CLASSES))
    skin, person = face & ~hair, face | thing | neck
    sets = {
        Margin.FOUND: (face, everything & ~(face | thing)),
        Margin.BEFORE: (thing, everything & ~thing),
        Margin.SKIN: (skin, everything & ~(skin | thing)),
        Margin.HAIR: (hair, everything & ~hair),
        Margin.GLASSES: (glasses, everything & ~glasses),
        Margin.FACE: (face, everything & ~face),
        Margin.PAINTED: (skin, everything & ~skin),
        Margin.REST: (everything & ~person, person),
    }
    return np.array([sets[margin] for margin in Margin], np.uint32)


def _word(parts: ParserSpec, names: Sequence[str]) -> int:
    return sum(1 << n for n, name in enumerate(parts.classes) if name in names)


def soft_masks(
    kernels: Kernels,
    logits: Array,
    buffers: MaskBuffers,
    out: Array,
    hair: Array | None = None,
    outline: Array | None = None,
    surrounded: bool = False,
) -> None:
    """The union of the masks of frame and edit of each face, without what is before it, eroded and feathered.

    logits: `real` [2 F, classes, h, w], contiguous, first the F frames, then their F edits. out: float32
    [F, CROP_SIZE, CROP_SIZE], contiguous; written. hair, outline: float32 [F], of each face as `face_mask` takes them;
    None for 1.
    surrounded: for `surroundings.cut_out`: the frame's face counts as larger by GROWTH, the mask fades as `fade` says,
    and `buffers.squares` has all of it afterwards; else no more than the mask needs.
    """
    faces = out.shape[0]
    _, classes, height, width = logits.shape
    room = buffers.margins.shape[1]
    check(logits, kernels.real, (2 * faces, classes, *buffers.margins.shape[2:]))
    check(out, np.float32, (faces, CROP_SIZE, CROP_SIZE))
    hair, outline = (buffers.both[:faces] if part is None else part for part in (hair, outline))
    for part in (hair, outline):
        check(part, np.float32, (faces,))
    margins, squares, grid = buffers.margins, buffers.squares, (width, height)
    stacked = (faces, room, *grid)
    kernels.launch("mask", "find_margins", (*grid, 2 * faces), logits, classes, buffers.sets, *stacked, margins)
    many = (*grid, (len(Seen) if surrounded else Seen.GROWN) * faces)
    kernels.launch("mask", "see_rows", many, margins, buffers.windows, *stacked, buffers.lines)
    kernels.launch("mask", "see_columns", many, buffers.lines, buffers.windows, *stacked, squares)
    small, before = (*grid, faces), squares[Seen.BEFORE]
    if buffers.things:
        kernels.launch("mask", "find_cores", small, before, THING_CORE, *grid, buffers.cores)
        kernels.launch("mask", "grow_rows", small, buffers.cores, THING_GROWTH, *grid, buffers.near)
    found = squares[Seen.GROWN] if surrounded else margins[Margin.FOUND]
    things = (int(buffers.things), before, buffers.near, THING_GROWTH, np.float32(THING_BENEFIT))
    parts = (int(not buffers.hair), hair, PART_REACH, np.float32(PART_RISE))
    head = (squares[Seen.HAIR], np.float32(HAIR_RISE), buffers.beyond, outline)
    united = (buffers.united, buffers.shares, buffers.covered)
    kernels.launch("mask", "unite", small, margins, room, found, *things, *parts, *head, *grid, *united)
    _soften(kernels, buffers, grid, out, (FADE_PX, BEYOND_FADE_PX) if surrounded else (0, 0))


def _soften(
    kernels: Kernels, buffers: MaskBuffers, grid: tuple[int, int], out: Array, fade_px: tuple[int, int]
) -> None:
    """Masks from `united`, `shares` and `covered`. fade_px: from the border inwards; where a face goes on beyond."""
    faces, size = out.shape[0], CROP_SIZE
    first, second = buffers.shape.boxes
    erode = buffers.shape.erode_px
    # The soft edge lies inside the crop, so the mask's mean is the share of pixels that erosion left.
    least = math.ceil(LEAST_COVER * CROP_SIZE * CROP_SIZE)
    many = (size, size, faces)
    kernels.launch("mask", "erode_rows", many, buffers.united, *grid, erode, buffers.rows, size)
    kernels.launch("mask", "erode_columns", many, buffers.rows, erode, buffers.eroded, buffers.covered, size)
    kernels.launch("mask", "feather_rows", many, buffers.eroded, first, second, buffers.counts, size)
    usual = (buffers.covered, least, buffers.usual, buffers.shares)
    faces_at = buffers.margins[Margin.FOUND], buffers.margins[Margin.FACE]
    faded = (*faces_at, *grid, *fade_px, np.float32(BEYOND_LATE), np.float32(RISE))
    kernels.launch("mask", "feather_columns", many, buffers.counts, first, second, *usual, *faded, out, size)
