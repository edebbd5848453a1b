"""Edits with the surroundings where they have less of a face, and with the glasses that it wears, on the kernels'
device; `surroundings.cut_out`."""

from dataclasses import dataclass

import numpy as np

from engine.directions import Reach
from engine.geometry import CROP_SIZE
from engine.glasses import GLASSES_RISE, LEAST_COUNTED, STANDS_OUT
from engine.kernels.load import Array, Kernels, check
from engine.kernels.mask import MaskBuffers, Seen, soft_masks
from engine.kernels.restore import RestoreBuffers, restore_buffers, unchanged_shares
from engine.restoring import GATE_RESOLUTION
from engine.surroundings import BARE_LATE, KEPT_EARLY, LEAST_KNOWN, LONG_FROM, LONG_RISE, RISE, STEP

SIDES = (GATE_RESOLUTION, GATE_RESOLUTION // STEP, GATE_RESOLUTION // STEP**2)
"""Of the grids that surroundings.cu fills, from fine to coarse; the next would be one pixel."""


@dataclass(frozen=True)
class SurroundBuffers:
    """Memory for `cut_out_faces`, made once; on the device, G = GATE_RESOLUTION.

    bare, hidden, stays: float32 [F, h, w]. gate: for what changes. moves, afar: float32 [F, 3, G, G]. images, known: by
    level, float32 [F, 3, n, n] and [F, n, n] with n of `SIDES`. whole: float32 [F], how much is known of a whole crop.
    """

    bare: Array
    hidden: Array
    stays: Array
    gate: RestoreBuffers
    moves: Array
    afar: Array
    images: tuple[Array, ...]
    known: tuple[Array, ...]
    whole: Array


def surround_buffers(kernels: Kernels, faces: int, logits_size: tuple[int, int]) -> SurroundBuffers:
    """Buffers for up to so many faces; logits_size: (width, height) of the parser's output, multiples of G."""
    width, height = logits_size
    assert width % GATE_RESOLUTION == height % GATE_RESOLUTION == 0, f"{logits_size}: not multiples"
    assert (STEP, GATE_RESOLUTION) == (4, STEP**3), "surroundings.cu fills three grids, each a quarter of the last"
    bare, hidden, stays = (kernels.empty((faces, height, width), np.float32) for _ in range(3))
    images = tuple(kernels.empty((faces, 3, side, side), np.float32) for side in SIDES)
    known = tuple(kernels.empty((faces, side, side), np.float32) for side in SIDES)
    moves, afar = (kernels.empty((faces, 3, GATE_RESOLUTION, GATE_RESOLUTION), np.float32) for _ in range(2))
    gate, whole = restore_buffers(kernels, faces), kernels.empty((faces,), np.float32)
    return SurroundBuffers(bare, hidden, stays, gate, moves, afar, images, known, whole)


def cut_out_faces(
    kernels: Kernels,
    logits: Array,
    crops: Array,
    edits: Array,
    reach: Reach,
    of_masks: MaskBuffers,
    buffers: SurroundBuffers,
    out: Array,
    masks: Array,
) -> None:
    """What `surroundings.cut_out` makes of each face.

    logits: as `soft_masks` takes them. reach: on the device. crops, edits: RGB [-1, 1], `real` [F, 3, CROP_SIZE,
    CROP_SIZE], contiguous. out: the same, and masks: float32 [F, CROP_SIZE, CROP_SIZE]; both written, and none of the
    others.
    """
    faces = out.shape[0]
    for array in (crops, edits, out):
        check(array, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    check(reach.glasses, np.dtype(np.float32), (faces,))
    soft_masks(kernels, logits, of_masks, masks, reach.hair, reach.outline, surrounded=True)
    *_, height, width = logits.shape
    grid, squares, side = (width, height), of_masks.squares, GATE_RESOLUTION
    hidden, bare, stays = buffers.hidden, buffers.bare, buffers.stays
    margins = [squares[seen] for seen in (Seen.HIDDEN, Seen.AROUND, Seen.SHOWN, Seen.HAIR)]
    ramps = map(np.float32, (BARE_LATE, RISE, LONG_FROM, LONG_RISE, KEPT_EARLY))
    kernels.launch("surroundings", "lay_bare", (*grid, faces), *margins, *ramps, *grid, hidden, bare, stays)
    images, known, gate = buffers.images, buffers.known, buffers.gate
    reduced = (images[0], known[0], buffers.moves, gate.changes, side)
    kernels.launch("surroundings", "reduce", (side, side, 3 * faces), crops, edits, hidden, *grid, *reduced)
    unchanged_shares(kernels, faces, gate.whole, gate.whole, gate)
    least = np.float32(LEAST_KNOWN)
    for n, few in enumerate(SIDES[1:]):
        grids = (images[n], known[n], least, images[n + 1], known[n + 1])
        kernels.launch("surroundings", "pull", (few, few, 3 * faces), *grids, few)
    levels = [array for level in zip(images, known, strict=True) for array in level]
    kernels.launch("surroundings", "push", (side, side, 3 * faces), *levels, least, buffers.whole, side)
    counted = (np.float32(STANDS_OUT), np.float32(LEAST_COUNTED))
    kernels.launch(
        "surroundings", "see_from_afar", (side, side, faces), crops, edits, buffers.moves, *counted, buffers.afar, side
    )
    sources = (crops, edits, images[0], buffers.afar, gate.gates, side, bare, stays, *grid, buffers.whole)
    worn = (squares[Seen.GLASSES], reach.glasses, np.float32(GLASSES_RISE))
    kernels.launch("surroundings", "surround", (CROP_SIZE, CROP_SIZE, faces), *sources, *worn, out, masks, CROP_SIZE)
