"""How long the kernels take against the time that their bytes need on this card."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.bundle import ParserSpec
from engine.directions import Reach
from engine.geometry import CROP_SIZE, Affine, Rectangle, face_rectangle_px, square_from_frame
from engine.imaging import Kept
from engine.kernels.blend import blend_buffers, blend_faces, place_patches
from engine.kernels.load import Array, CudaKernels, Kernels
from engine.kernels.mask import mask_buffers
from engine.kernels.restore import give_back_faces, restore_buffers
from engine.kernels.steady import steady_faces
from engine.kernels.surroundings import cut_out_faces, surround_buffers
from engine.kernels.warp import align_faces, crop_buffers, place_crops
from engine.masks import MaskShape
from engine.steadying import still

MOST_BYTE_TIMES = 1.5
MOST_LAUNCH_US = 3.0
"""The limit of a step: so many times what its bytes need, and so much for each launch."""

PARTS = ParserSpec(
    128, tuple(f"class {n}" for n in range(19)), tuple(f"class {n}" for n in range(1, 14)), ("class 18",)
)
"""A parser of the usual size, for its number of classes alone."""

Timer = Callable[[Callable[[], None]], float]
"""Microseconds that a step takes on the device, on average."""


@dataclass(frozen=True)
class Case:
    """What the kernels are timed on. size_px: (width, height) of the frame. half_side_px: half a crop's side in it."""

    size_px: tuple[int, int]
    half_side_px: float
    faces: int


@dataclass(frozen=True)
class Timing:
    """One step. least_bytes: what it must read and write, everything once. limit_us: nan until `judged`."""

    step: str
    case: Case
    launches: int
    least_bytes: int
    took_us: float
    limit_us: float = math.nan

    @property
    def within(self) -> bool:
        """True when the step keeps to its limit."""
        return self.took_us <= self.limit_us


CASES = tuple(
    Case(size_px, half_side_px, faces)
    for size_px, half_side_px in (
        ((640, 360), 90.0),
        ((1920, 1080), 250.0),
        ((3840, 2160), 90.0),
        ((3840, 2160), 400.0),
    )
    for faces in (1, 4)
)
"""Faces near and far, up to 4K with four."""


def judged(timing: Timing, bytes_per_us: float) -> Timing:
    """The timing with the limit that a card of this bandwidth sets."""
    limit_us = MOST_BYTE_TIMES * timing.least_bytes / bytes_per_us + MOST_LAUNCH_US * timing.launches
    return replace(timing, limit_us=limit_us)


def measure(kernels: Kernels, case: Case, timer: Timer) -> tuple[Timing, ...]:
    """Time the steps `align`, `steady`, `restore`, `mask` and `blend` on faces side by side, buffers made before."""
    crops = crops_of(case)
    width, height = case.size_px
    real = kernels.real.itemsize
    square = CROP_SIZE * CROP_SIZE
    frame = kernels.put(np.zeros((height, width, 3), np.uint8))
    images, inversions, edits, restored = (
        kernels.put(np.zeros((case.faces, 3, CROP_SIZE, CROP_SIZE), kernels.real)) for _ in range(4)
    )
    motions = kernels.put(np.stack([still()] * case.faces))
    masks = kernels.put(np.zeros((case.faces, CROP_SIZE, CROP_SIZE), np.float32))
    logits = kernels.put(np.zeros((2 * case.faces, len(PARTS.classes), PARTS.size, PARTS.size), kernels.real))
    read_px = sum(_area(face_rectangle_px(crop, case.size_px)) for crop in crops)

    of_crops = crop_buffers(kernels, case.faces)
    shrunk_px = place_crops(kernels, crops, case.size_px, of_crops)
    means_px = case.faces * shrunk_px[0] * shrunk_px[1]
    of_restore = restore_buffers(kernels, case.faces)
    of_gate = 2 * sum(map(_bytes, (of_restore.changes, of_restore.lines, of_restore.blurred, of_restore.gates)))
    of_masks = mask_buffers(kernels, case.faces, PARTS, (PARTS.size, PARTS.size), MaskShape())
    of_surround = surround_buffers(kernels, case.faces, (PARTS.size, PARTS.size))
    hair = kernels.put(np.zeros(case.faces, np.float32))
    zones = kernels.put(np.ones((case.faces, CROP_SIZE), np.float32))
    reach = Reach(hair, hair, hair, hair, hair, hair, hair, zones, kernels.put(np.zeros((case.faces, 2), np.int32)))
    of_blend = blend_buffers(kernels, case.faces)
    extent_px = place_patches(kernels, crops, case.size_px, of_blend)
    prepared_px = int((of_blend.staged["side"].astype(np.int64) ** 2).sum())

    def timing(step: str, launches: int, least_bytes: int, run: Callable[[], None]) -> Timing:
        return Timing(step, case, launches, least_bytes, timer(run))

    return (
        timing(
            "align",
            2 if means_px else 1,
            read_px * 3 + means_px * 6 + case.faces * 3 * square * real,
            lambda: align_faces(kernels, frame, of_crops, shrunk_px, images),
        ),
        timing(
            "steady",
            1,
            3 * _bytes(images) + _bytes(motions),
            lambda: steady_faces(kernels, inversions, edits, motions, restored),
        ),
        timing(
            "restore",
            8,
            # Three images in and one out, inversion and edit twice more, for the colours of skin and for the gate, and
            # what lies between the passes of the two.
            8 * _bytes(images) + of_gate + 2 * sum(map(_bytes, (of_restore.means, of_restore.cells, of_restore.tones))),
            lambda: give_back_faces(kernels, images, inversions, edits, reach, of_restore, restored),
        ),
        timing(
            "mask",
            20,
            # Logits in; margins, what is seen around them by rows and by squares, the other planes between the passes,
            # each written and read; masks out and once more in and out. Crops and edits in three times, filled edits
            # out; the grids that are pulled and pushed, and those of the change that glasses keep.
            _bytes(logits)
            + 2 * sum(map(_bytes, (of_masks.margins, of_masks.lines, of_masks.squares)))
            + 2 * sum(map(_bytes, (of_masks.cores, of_masks.near, of_masks.united, of_masks.shares)))
            + case.faces * square * (2 + 2 + 4 + 4 + 4 + 4)
            + 7 * _bytes(images)
            + 2 * sum(map(_bytes, (of_surround.hidden, of_surround.bare, of_surround.stays)))
            + 2 * sum(map(_bytes, (of_surround.moves, of_surround.afar)))
            + 4 * sum(map(_bytes, (*of_surround.images, *of_surround.known)))
            + of_gate,
            lambda: cut_out_faces(kernels, logits, images, edits, reach, of_masks, of_surround, restored, masks),
        ),
        timing(
            "blend",
            7,
            # Edits and crops in, for the gate and once more; its planes and the layers between the passes; masks.
            4 * _bytes(images)
            + of_gate
            + 2 * _bytes(of_blend.layers)
            + 3 * _bytes(of_blend.opens)
            + prepared_px * 24
            + _bytes(masks)
            + read_px * 6,
            lambda: blend_faces(kernels, frame, images, masks, of_blend, extent_px, Kept(inversions, hair, hair)),
        ),
    )


def crops_of(case: Case) -> tuple[Affine, ...]:
    """Faces in a row, a little turned, as far apart as the frame allows."""
    width, height = case.size_px
    axis = case.half_side_px * np.array([math.cos(0.1), math.sin(0.1)])
    return tuple(
        square_from_frame(np.array([width * (n + 0.5) / case.faces, height / 2]), axis, CROP_SIZE)
        for n in range(case.faces)
    )


def graph_timer(kernels: CudaKernels, repeats: int = 20, replays: int = 10) -> Timer:
    """Times a step as part of a CUDA graph of `repeats`, so that the time Python takes to launch does not count."""
    import cupy

    def time_us(run: Callable[[], None]) -> float:
        stream = kernels.stream
        with stream:
            run()
            stream.begin_capture()
            for _ in range(repeats):
                run()
            graph = stream.end_capture()
            graph.launch(stream)
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            for _ in range(replays):
                graph.launch(stream)
            end.record(stream)
            end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end)) * 1e3 / (repeats * replays)

    return time_us


def bytes_per_us(kernels: CudaKernels) -> float:
    """What the card moves in a copy too large for its caches, bytes read plus bytes written."""
    source, copy = (kernels.put(np.zeros(2**28, np.uint8)) for _ in range(2))
    time_us = graph_timer(kernels, repeats=2)(lambda: copy.data.copy_from_device_async(source.data, 2**28))
    return 2.0 * 2**28 / time_us


def run(kernels: CudaKernels, cases: tuple[Case, ...] = CASES) -> tuple[Timing, ...]:
    """Every step of every case on this card, with its limit."""
    rate, timer = bytes_per_us(kernels), graph_timer(kernels)
    return tuple(judged(timing, rate) for case in cases for timing in measure(kernels, case, timer))


def _area(rectangle: Rectangle) -> int:
    x0, y0, x1, y1 = rectangle
    return max(x1 - x0, 0) * max(y1 - y0, 0)


def _bytes(array: Array) -> int:
    return int(array.nbytes)
