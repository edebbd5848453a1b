"""Edits with the surroundings where they have less of a face, on the kernels' device; `surroundings.cut_out`."""

from dataclasses import dataclass

import numpy as np

from engine.compositing import GATE_RESOLUTION
from engine.geometry import CROP_SIZE
from engine.kernels.load import Array, Kernels, check
from engine.kernels.mask import MaskBuffers, mean_margins, soft_masks
from engine.kernels.restore import RestoreBuffers, restore_buffers, unchanged_shares
from engine.surroundings import (
    AROUND_REACH,
    BARE_LATE,
    BEYOND_FADE_PX,
    FADE_PX,
    GROWTH,
    HIDDEN_REACH,
    KEPT_EARLY,
    LEAST_KNOWN,
    LONG_FROM,
    LONG_RISE,
    RISE,
    STEP,
)


@dataclass(frozen=True)
class SurroundBuffers:
    """Memory for `cut_out_faces`, made once; on the device, G = GATE_RESOLUTION.

    around, shown, hair, bare, hidden, stays: float32 [F, h, w]. gate: for what changes. images, known: by level,
    float32 [F, 3, n, n] and [F, n, n] with n = G, G / STEP ... 1.
    """

    around: Array
    shown: Array
    hair: Array
    bare: Array
    hidden: Array
    stays: Array
    gate: RestoreBuffers
    images: tuple[Array, ...]
    known: tuple[Array, ...]


def surround_buffers(kernels: Kernels, faces: int, logits_size: tuple[int, int]) -> SurroundBuffers:
    """Buffers for up to so many faces; logits_size: (width, height) of the parser's output, multiples of G."""
    width, height = logits_size
    assert width % GATE_RESOLUTION == height % GATE_RESOLUTION == 0, f"{logits_size}: not multiples"
    plane = (faces, height, width)
    around, shown, hair, bare, hidden, stays = (kernels.empty(plane, np.float32) for _ in range(6))
    sides = [side for side in (STEP**level for level in range(5)) if side <= GATE_RESOLUTION][::-1]
    images = tuple(kernels.empty((faces, 3, side, side), np.float32) for side in sides)
    known = tuple(kernels.empty((faces, side, side), np.float32) for side in sides)
    gate = restore_buffers(kernels, faces)
    return SurroundBuffers(around, shown, hair, bare, hidden, stays, gate, images, known)


def cut_out_faces(
    kernels: Kernels,
    logits: Array,
    crops: Array,
    edits: Array,
    hair: Array,
    of_masks: MaskBuffers,
    buffers: SurroundBuffers,
    out: Array,
    masks: Array,
) -> None:
    """What `surroundings.cut_out` makes of each face.

    logits, hair: as `soft_masks` takes them. crops, edits: RGB [-1, 1], `real` [F, 3, CROP_SIZE, CROP_SIZE],
    contiguous. out: the same, and masks: float32 [F, CROP_SIZE, CROP_SIZE]; both written, and none of the others.
    """
    faces = out.shape[0]
    for array in (crops, edits, out):
        check(array, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    soft_masks(kernels, logits, of_masks, masks, GROWTH, (FADE_PX, BEYOND_FADE_PX, RISE), hair)
    _, classes, height, width = logits.shape
    grid, side = (width, height), GATE_RESOLUTION
    of_person = of_masks.face_classes | of_masks.neck_classes | of_masks.occluder_classes
    of_rest = ~of_person & ((1 << classes) - 1)
    mean_margins(kernels, logits[faces:], of_rest, AROUND_REACH, buffers.around[:faces])
    mean_margins(kernels, logits[faces:], of_masks.face_classes, AROUND_REACH, buffers.shown[:faces])
    mean_margins(kernels, logits[:faces], of_masks.hair_classes, AROUND_REACH, buffers.hair[:faces])
    hidden, bare, stays = buffers.hidden, buffers.bare, buffers.stays
    margins = (of_masks.found, buffers.around, buffers.shown, buffers.hair, HIDDEN_REACH)
    ramps = map(np.float32, (BARE_LATE, RISE, LONG_FROM, LONG_RISE, KEPT_EARLY))
    kernels.launch("surroundings", "lay_bare", (*grid, faces), *margins, *ramps, *grid, hidden, bare, stays)
    images, known, gate = buffers.images, buffers.known, buffers.gate
    reduced = (images[0], known[0], gate.changes, side)
    kernels.launch("surroundings", "reduce", (side, side, faces), crops, edits, CROP_SIZE, hidden, *grid, *reduced)
    unchanged_shares(kernels, faces, gate.whole, gate)
    levels, least = range(len(images) - 1), (STEP, np.float32(LEAST_KNOWN))
    for n in levels:
        few, coarse = images[n + 1].shape[-1], (images[n + 1], known[n + 1])
        kernels.launch("surroundings", "pull", (few, few, faces), images[n], known[n], *least, *coarse, few)
    for n in reversed(levels):
        many, few = images[n].shape[-1], images[n + 1].shape[-1]
        kernels.launch("surroundings", "push", (many, many, faces), images[n + 1], few, known[n], images[n], many)
    size = (CROP_SIZE, CROP_SIZE, faces)
    sources = (edits, images[0], gate.gates, side, bare, stays, *grid, known[-1])
    kernels.launch("surroundings", "surround", size, *sources, out, masks, CROP_SIZE)
