"""Edits -> edits with what the inversions lost, on the kernels' device; defined by `restoring.give_back`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.directions import Reach
from engine.geometry import CROP_SIZE, blur_taps
from engine.hair import PIGMENT
from engine.kernels.load import Array, Kernels, check
from engine.restoring import CHANGED, GATE_BLUR, GATE_REACH, GATE_RESOLUTION, parts_of
from engine.skin import LEAST_SKIN, SAME_SKIN, TONE_BLUR, TONE_RESOLUTION, face_places, skin_places

MOST_REACH, TAPS = 3, 6
"""How far restore.cu can widen, and blur taps beside the middle one that it has."""


@dataclass(frozen=True)
class RestoreBuffers:
    """Memory and constants for `give_back_faces`, made once; on the device, G = GATE_RESOLUTION, T = TONE_RESOLUTION.

    changes, means: float32 [F, 3, G, G]; lines, blurred, gates: float32 [F, G, G]; cells, tones: float32 [F, 4, T, T]
    and [F, 3, T, T]. taps, tone_taps: of the blurs, from the middle outwards, float32 [1 + TAPS]. skin, within: where a
    face shows skin, and is, float32 [G, G] and [T, T]. beyond: where a head's outline is and what lies beyond, float32
    [G, G]. parts: where that, eyes and mouth are, float32 [3, CROP_SIZE, CROP_SIZE]. whole: float32 [F],
    `Reach.reshaped` and `Reach.outline` of faces that may be painted anew.
    """

    changes: Array
    means: Array
    lines: Array
    blurred: Array
    gates: Array
    cells: Array
    tones: Array
    taps: Array
    tone_taps: Array
    skin: Array
    within: Array
    beyond: Array
    parts: Array
    whole: Array


def restore_buffers(kernels: Kernels, faces: int) -> RestoreBuffers:
    """Buffers for up to so many faces."""
    gate, cell = (GATE_RESOLUTION,) * 2, (TONE_RESOLUTION,) * 2
    assert CROP_SIZE == 4 * GATE_RESOLUTION, "restore.cu and surroundings.cu take blocks of 4 pixels"
    assert GATE_RESOLUTION == 4 * TONE_RESOLUTION, "restore.cu takes cells of 4 blocks"
    assert GATE_REACH <= MOST_REACH, f"a reach of {GATE_REACH}"
    changes, means = (kernels.empty((faces, 3, *gate), np.float32) for _ in range(2))
    lines, blurred, gates = (kernels.empty((faces, *gate), np.float32) for _ in range(3))
    return RestoreBuffers(
        changes,
        means,
        lines,
        blurred,
        gates,
        cells=kernels.empty((faces, 4, *cell), np.float32),
        tones=kernels.empty((faces, 3, *cell), np.float32),
        taps=kernels.put(_taps(GATE_BLUR)),
        tone_taps=kernels.put(_taps(TONE_BLUR)),
        skin=kernels.put(skin_places(GATE_RESOLUTION)),
        within=kernels.put(face_places(TONE_RESOLUTION)),
        beyond=kernels.put(parts_of(GATE_RESOLUTION)[0]),
        parts=kernels.put(parts_of(CROP_SIZE)),
        whole=kernels.put(np.ones(faces, np.float32)),
    )


def _taps(sigma: float) -> NDArray[np.float32]:
    taps = blur_taps(sigma, np.float32)
    assert len(taps) <= 1 + TAPS, f"{len(taps)} taps"
    return np.pad(taps, (0, 1 + TAPS - len(taps)))


def give_back_faces(
    kernels: Kernels,
    crops: Array,
    inversions: Array,
    edits: Array,
    reach: Reach,
    buffers: RestoreBuffers,
    out: Array,
) -> None:
    """What `restoring.give_back` makes of each face, where every number is finite.

    crops, inversions, edits: RGB [-1, 1], `real` [F, 3, CROP_SIZE, CROP_SIZE], contiguous. reach: on the device. out:
    as the images; written, and none of the others.
    """
    faces = out.shape[0]
    for array in (crops, inversions, edits, out):
        check(array, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    for weight in (reach.hair, reach.reshaped, reach.tones, reach.outline, reach.eyes, reach.mouth):
        check(weight, np.float32, (faces,))
    check(reach.zones, np.float32, (faces, CROP_SIZE))
    check(reach.shifts, np.int32, (faces, 2))
    tone_changes(kernels, inversions, edits, reach.tones, buffers)
    unchanged_between(kernels, inversions, edits, reach.reshaped, reach.outline, buffers, without_tones=True)
    if reach.off is not None:
        buffers.gates[:faces] = buffers.gates[:faces] * (1.0 - reach.off)
    size, images = (CROP_SIZE, CROP_SIZE, faces), (crops, inversions, edits, reach.zones, reach.shifts)
    small = buffers.gates, GATE_RESOLUTION, buffers.tones, TONE_RESOLUTION
    meant = buffers.parts, reach.hair, reach.outline, reach.eyes, reach.mouth, reach.reshaped
    kernels.launch("restore", "give_back", size, *images, *small, *meant, np.float32(PIGMENT), out, CROP_SIZE)


def tone_changes(kernels: Kernels, inversions: Array, edits: Array, tones: Array, buffers: RestoreBuffers) -> None:
    """`skin.tone_change` of each face into `buffers.tones`, but for the share `tones` of it, float32 [F]."""
    faces, side, small = edits.shape[0], TONE_RESOLUTION, GATE_RESOLUTION
    kernels.launch("restore", "mean_change", (small, small, 3 * faces), inversions, edits, buffers.means, small)
    of_skin = buffers.means, buffers.skin, np.float32(SAME_SKIN)
    kernels.launch("restore", "gather_skin", (side, side, 4 * faces), *of_skin, buffers.cells, side)
    of_cells = buffers.cells, buffers.tone_taps, np.float32(LEAST_SKIN), buffers.within, tones
    kernels.launch("restore", "tone", (side, side, 3 * faces), *of_cells, buffers.tones, side)


def unchanged_between(
    kernels: Kernels,
    a: Array,
    b: Array,
    reshaped: Array,
    outline: Array,
    buffers: RestoreBuffers,
    *,
    without_tones: bool = False,
) -> None:
    """`restoring.unchanged_share` of two images of each face, `real` [F, 3, CROP_SIZE, CROP_SIZE], clipped, into
    `buffers.gates`, as `restoring.unchanged_between` does; reshaped, outline: float32 [F]. without_tones:
    `buffers.tones` are taken off b first.
    """
    faces, side = a.shape[0], GATE_RESOLUTION
    tones = buffers.tones, TONE_RESOLUTION if without_tones else 0
    kernels.launch("restore", "change", (side, side, 3 * faces), a, b, *tones, buffers.changes, side)
    unchanged_shares(kernels, faces, reshaped, outline, buffers)


def unchanged_shares(kernels: Kernels, faces: int, reshaped: Array, outline: Array, buffers: RestoreBuffers) -> None:
    """The same of `buffers.changes`."""
    small, side, taps = (GATE_RESOLUTION, GATE_RESOLUTION, faces), GATE_RESOLUTION, buffers.taps
    kernels.launch("restore", "widen_rows", small, buffers.changes, GATE_REACH, buffers.lines, side)
    kernels.launch("restore", "blur_rows", small, buffers.lines, GATE_REACH, taps, buffers.blurred, side)
    least = np.float32(1.0 / CHANGED), reshaped, outline, buffers.beyond
    kernels.launch("restore", "gate", small, buffers.blurred, taps, *least, buffers.gates, side)
