"""The parser's logits -> soft masks on the kernels' device; defined by `compositing.face_mask`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.bundle import ParserSpec
from engine.compositing import (
    HAIR_CLASSES,
    LEAST_COVER,
    NECK_CLASSES,
    PART_REACH,
    PART_RISE,
    THING_BENEFIT,
    THING_CORE,
    THING_GROWTH,
    THING_REACH,
    MaskShape,
    usual_mask,
)
from engine.geometry import CROP_SIZE
from engine.kernels.load import Array, Kernels, check

NO_FADE = (0, 0, 1.0)
MOST_CLASSES = 32
"""Classes of a parser whose set fits the kernel's word; CelebAMask-HQ has 19."""


@dataclass(frozen=True)
class MaskBuffers:
    """Memory and constants for `soft_masks`, made once; arrays on the device, S = CROP_SIZE.

    face_classes: bit n is set where class n belongs to the face; hair_classes: to hair; neck_classes: to the neck;
    occluder_classes: to what is before a face. found, before, margins, shares: float32 [F, h, w]. cores, near: uint8
    [F, h, w]. covered: uint32 [F]. rows, eroded: uint8 [F, S, S]. counts: uint16 [F, S, S]. usual: float32 [S, S].
    both: float32 [F], ones.
    """

    shape: MaskShape
    face_classes: int
    hair_classes: int
    neck_classes: int
    occluder_classes: int
    found: Array
    before: Array
    cores: Array
    near: Array
    margins: Array
    shares: Array
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
    assert len(parts.classes) <= MOST_CLASSES, f"{len(parts.classes)} classes, at most {MOST_CLASSES} were expected"
    width, height = logits_size
    plane = (faces, CROP_SIZE, CROP_SIZE)
    return MaskBuffers(
        shape=shape,
        face_classes=_word(parts, parts.face_classes),
        hair_classes=_word(parts, HAIR_CLASSES),
        neck_classes=_word(parts, NECK_CLASSES),
        occluder_classes=_word(parts, parts.occluder_classes),
        found=kernels.empty((faces, height, width), np.float32),
        before=kernels.empty((faces, height, width), np.float32),
        cores=kernels.empty((faces, height, width), np.uint8),
        near=kernels.empty((faces, height, width), np.uint8),
        margins=kernels.empty((faces, height, width), np.float32),
        shares=kernels.empty((faces, height, width), np.float32),
        covered=kernels.empty((faces,), np.uint32),
        rows=kernels.empty(plane, np.uint8),
        eroded=kernels.empty(plane, np.uint8),
        counts=kernels.empty(plane, np.uint16),
        usual=kernels.put(usual_mask(CROP_SIZE, shape)),
        both=kernels.put(np.ones(faces, np.float32)),
    )


def _word(parts: ParserSpec, names: Sequence[str]) -> int:
    return sum(1 << n for n, name in enumerate(parts.classes) if name in names)


def soft_masks(
    kernels: Kernels,
    logits: Array,
    buffers: MaskBuffers,
    out: Array,
    growth: int = 0,
    fade: tuple[int, int, float] = NO_FADE,
    hair: Array | None = None,
) -> None:
    """The union of the masks of frame and edit of each face, without what is before it, eroded and feathered.

    logits: `real` [2 F, classes, h, w], contiguous, first the F frames, then their F edits. out: float32
    [F, CROP_SIZE, CROP_SIZE], contiguous; written. growth, fade: `surroundings.GROWTH`, and FADE_PX, BEYOND_FADE_PX and
    RISE; or neither. hair: float32 [F], of each face as `face_mask` takes it; None for 1. `buffers.found`
    has the frames' margins afterwards.
    """
    faces = out.shape[0]
    _, classes, height, width = logits.shape
    check(logits, kernels.real, (2 * faces, classes, *buffers.margins.shape[1:]))
    check(out, np.float32, (faces, CROP_SIZE, CROP_SIZE))
    first, second = buffers.shape.boxes
    erode = buffers.shape.erode_px
    # The soft edge lies inside the crop, so the mask's mean is the share of pixels that erosion left.
    least = math.ceil(LEAST_COVER * CROP_SIZE * CROP_SIZE)
    size, small = (CROP_SIZE, CROP_SIZE, faces), (width, height, faces)
    covered, found, margins, rows, eroded, counts = (
        buffers.covered,
        buffers.found,
        buffers.margins,
        buffers.rows,
        buffers.eroded,
        buffers.counts,
    )
    before, cores, near = buffers.before, buffers.cores, buffers.near
    of_face, of_things = np.uint32(buffers.face_classes), np.uint32(buffers.occluder_classes)
    kernels.launch("mask", "find_faces", small, logits, classes, of_face, of_things, width, height, found)
    if buffers.occluder_classes:
        mean_margins(kernels, logits[:faces], buffers.occluder_classes, THING_REACH, before[:faces])
        kernels.launch("mask", "find_cores", small, before, THING_CORE, width, height, cores)
        kernels.launch("mask", "grow_rows", small, cores, THING_GROWTH, width, height, near)
    things = (before, near, THING_GROWTH, np.float32(THING_BENEFIT))
    of_frame = (of_face, of_things, found, growth)
    edits = logits[faces:]
    kernels.launch("mask", "unite", small, edits, classes, *of_frame, *things, width, height, margins, covered)
    hair = buffers.both if hair is None else hair
    check(hair[:faces], np.float32, (faces,))
    sets = (of_face, np.uint32(buffers.hair_classes), of_things)
    parts = (hair, PART_REACH, np.float32(PART_RISE), width, height, buffers.shares)
    kernels.launch("mask", "share_parts", small, logits[:faces], edits, classes, *sets, *parts)
    kernels.launch("mask", "erode_rows", size, margins, width, height, erode, rows, CROP_SIZE)
    kernels.launch("mask", "erode_columns", size, rows, erode, eroded, covered, CROP_SIZE)
    kernels.launch("mask", "feather_rows", size, eroded, first, second, counts, CROP_SIZE)
    near_px, beyond_px, span = fade
    faded = (found, width, height, near_px, beyond_px, np.float32(span))
    usual = (covered, least, buffers.usual, buffers.shares)
    kernels.launch("mask", "feather_columns", size, counts, first, second, *usual, *faded, out, CROP_SIZE)


def mean_margins(kernels: Kernels, logits: Array, classes: int, reach: int, out: Array) -> None:
    """How far a set of classes lies above all others, averaged over squares; `compositing.mean_around` of a margin.

    logits: `real` [F, K, h, w], contiguous. classes: the set, bit n for class n. out: float32 [F, h, w]; written.
    """
    faces, count, height, width = logits.shape
    check(out, np.float32, (faces, height, width))
    size = (width, height, faces)
    kernels.launch("mask", "mean_margins", size, logits, count, np.uint32(classes), reach, width, height, out)
