"""Edits -> edits with what the inversions lost, on the kernels' device; defined by `compositing.give_back`."""

from dataclasses import dataclass

import numpy as np

from engine.compositing import CHANGED, GATE_BLUR, GATE_REACH, GATE_RESOLUTION
from engine.directions import Reach
from engine.geometry import CROP_SIZE, blur_taps
from engine.kernels.load import Array, Kernels, check

MOST_REACH, TAPS = 3, 6
"""How far restore.cu can widen, and blur taps beside the middle one that it has."""


@dataclass(frozen=True)
class RestoreBuffers:
    """Memory and constants for `give_back_faces`, made once; on the device, G = GATE_RESOLUTION.

    changes: float32 [F, 3, G, G]; lines, blurred, gates: float32 [F, G, G]. taps: of the blur, from the middle
    outwards, float32 [1 + TAPS]. whole: float32 [F], `Reach.reshaped` of faces that may be painted anew.
    """

    changes: Array
    lines: Array
    blurred: Array
    gates: Array
    taps: Array
    whole: Array


def restore_buffers(kernels: Kernels, faces: int) -> RestoreBuffers:
    """Buffers for up to so many faces."""
    taps = blur_taps(GATE_BLUR, np.float32)
    assert CROP_SIZE == 4 * GATE_RESOLUTION, "restore.cu and surroundings.cu take blocks of 4 pixels"
    assert GATE_REACH <= MOST_REACH, f"a reach of {GATE_REACH}"
    assert len(taps) <= 1 + TAPS, f"{len(taps)} taps"
    taps = np.pad(taps, (0, 1 + TAPS - len(taps)))
    changes = kernels.empty((faces, 3, GATE_RESOLUTION, GATE_RESOLUTION), np.float32)
    lines, blurred, gates = (kernels.empty((faces, *changes.shape[2:]), np.float32) for _ in range(3))
    return RestoreBuffers(changes, lines, blurred, gates, kernels.put(taps), kernels.put(np.ones(faces, np.float32)))


def give_back_faces(
    kernels: Kernels,
    crops: Array,
    inversions: Array,
    edits: Array,
    reach: Reach,
    buffers: RestoreBuffers,
    out: Array,
) -> None:
    """What `compositing.give_back` makes of each face, where every number is finite.

    crops, inversions, edits: RGB [-1, 1], `real` [F, 3, CROP_SIZE, CROP_SIZE], contiguous. reach: on the device. out:
    as the images; written, and none of the others.
    """
    faces = out.shape[0]
    for array in (crops, inversions, edits, out):
        check(array, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    check(reach.reshaped, np.float32, (faces,))
    check(reach.zones, np.float32, (faces, CROP_SIZE))
    check(reach.shifts, np.int32, (faces, 2))
    unchanged_between(kernels, inversions, edits, reach.reshaped, buffers)
    if reach.off is not None:
        buffers.gates[:faces] = buffers.gates[:faces] * (1.0 - reach.off)
    size = (CROP_SIZE, CROP_SIZE, faces)
    images, gates = (crops, inversions, edits), (buffers.gates, GATE_RESOLUTION)
    kernels.launch("restore", "give_back", size, *images, reach.zones, reach.shifts, *gates, out, CROP_SIZE)


def unchanged_between(kernels: Kernels, a: Array, b: Array, reshaped: Array, buffers: RestoreBuffers) -> None:
    """`compositing.unchanged_share` of two images of each face, `real` [F, 3, CROP_SIZE, CROP_SIZE], clipped, into
    `buffers.gates`; at least one less `reshaped`, float32 [F]."""
    faces, side = a.shape[0], GATE_RESOLUTION
    kernels.launch("restore", "change", (side, side, 3 * faces), a, b, buffers.changes, side)
    unchanged_shares(kernels, faces, reshaped, buffers)


def unchanged_shares(kernels: Kernels, faces: int, reshaped: Array, buffers: RestoreBuffers) -> None:
    """The same of `buffers.changes`."""
    small, side, taps = (GATE_RESOLUTION, GATE_RESOLUTION, faces), GATE_RESOLUTION, buffers.taps
    kernels.launch("restore", "widen_rows", small, buffers.changes, GATE_REACH, buffers.lines, side)
    kernels.launch("restore", "blur_rows", small, buffers.lines, GATE_REACH, taps, buffers.blurred, side)
    per_change = np.float32(1.0 / CHANGED)
    kernels.launch("restore", "gate", small, buffers.blurred, taps, per_change, reshaped, buffers.gates, side)
