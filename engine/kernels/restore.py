"""Edits -> edits with what the inversions lost, on the kernels' device; defined by `compositing.give_back`."""

from dataclasses import dataclass

import numpy as np

from engine.compositing import CHANGED, GATE_BLUR, GATE_REACH, GATE_RESOLUTION
from engine.directions import Reach
from engine.geometry import CROP_SIZE, blur_taps
from engine.kernels.load import Array, Kernels, check


@dataclass(frozen=True)
class RestoreBuffers:
    """Memory and constants for `give_back_faces`, made once; on the device, G = GATE_RESOLUTION.

    changes, widened, gates: float32 [F, G, G]. taps: of the blur, from the middle outwards, float32 [1 + reach]. whole:
    float32 [F], `Reach.reshaped` of faces that may be painted anew.
    """

    changes: Array
    widened: Array
    gates: Array
    taps: Array
    whole: Array


def restore_buffers(kernels: Kernels, faces: int) -> RestoreBuffers:
    """Buffers for up to so many faces."""
    plane = (faces, GATE_RESOLUTION, GATE_RESOLUTION)
    changes, widened, gates = (kernels.empty(plane, np.float32) for _ in range(3))
    constants = kernels.put(blur_taps(GATE_BLUR, np.float32)), kernels.put(np.ones(faces, np.float32))
    return RestoreBuffers(changes, widened, gates, *constants)


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
    kernels.launch("restore", "change", (side, side, faces), a, b, CROP_SIZE, buffers.changes, side)
    unchanged_shares(kernels, faces, reshaped, buffers)


def unchanged_shares(kernels: Kernels, faces: int, reshaped: Array, buffers: RestoreBuffers) -> None:
    """The same of `buffers.changes`."""
    small, side, taps = (GATE_RESOLUTION, GATE_RESOLUTION, faces), GATE_RESOLUTION, buffers.taps
    kernels.launch("restore", "widen", small, buffers.changes, GATE_REACH, buffers.widened, side)
    blur = (taps, taps.shape[0] - 1, np.float32(1.0 / CHANGED))
    kernels.launch("restore", "gate", small, buffers.widened, *blur, reshaped, buffers.gates, side)
