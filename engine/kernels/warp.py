"""Frame -> aligned crops on the kernels' device; defined by `geometry.align` and `compositing.image_from_u8`.

One launch for all faces where no face is more than twice as large as its crop. A larger one takes a second, `shrink`,
before it: the definition reads block means there, and with one thread making all the means that its own pixel needs,
every pixel of the frame would be read dozens of times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry import CROP_SIZE, Affine, blur_taps, compose, invert_affine, reading_of
from engine.kernels.load import Array, Kernels, check, frame_arguments, frame_size

BLOCKS_SIDE = 752
"""Side of the block means of one face: a crop turned by 45 degrees with just under two blocks to a pixel, and margins
of 8 blocks and the rounding on either side."""

RECORD = np.dtype(
    [
        ("matrix", np.float32, (2, 3)),
        ("origin", np.int32, 2),
        ("block", np.int32),
        ("start", np.int32, 2),
        ("extent", np.int32, 2),
        ("reach", np.int32),
        ("taps", np.float32, 4),
    ]
)
"""`struct Crop` of warp.cu."""


@dataclass(frozen=True)
class CropBuffers:
    """Memory for `align_faces`, made once. staged: host, `RECORD` [F]. crops: the same on the device, uint8 [F, bytes].
    blocks: device, uint8 [F, BLOCKS_SIDE, BLOCKS_SIDE, 3]."""

    staged: NDArray[Any]
    crops: Array
    blocks: Array


def crop_buffers(kernels: Kernels, faces: int) -> CropBuffers:
    """Buffers for up to so many faces."""
    return CropBuffers(
        staged=kernels.staging((faces,), RECORD),
        crops=kernels.empty((faces, RECORD.itemsize), np.uint8),
        blocks=kernels.empty((faces, BLOCKS_SIDE, BLOCKS_SIDE, 3), np.uint8),
    )


def place_crops(
    kernels: Kernels, crops_from_frame: Sequence[Affine], frame_size_px: tuple[int, int], buffers: CropBuffers
) -> tuple[int, int]:
    """Put on the device where the crops lie; what `plan_crops` gives.

    The copy reads `buffers.staged` later: wait for the stream before the next.
    """
    faces = len(crops_from_frame)
    shrunk_px = plan_crops(crops_from_frame, frame_size_px, buffers.staged)
    kernels.upload(buffers.crops[:faces], buffers.staged[:faces].view(np.uint8).reshape(faces, RECORD.itemsize))
    return shrunk_px


def plan_crops(
    crops_from_frame: Sequence[Affine], frame_size_px: tuple[int, int], staged: NDArray[Any]
) -> tuple[int, int]:
    """Write where the crops lie; the (width, height) that `align_faces` must shrink, (0, 0) for none.

    frame_size_px: (width, height). staged: `RECORD`, at least as many as crops; the first ones are written.
    """
    staged = staged[: len(crops_from_frame)]
    for record, crop_from_frame in zip(staged, crops_from_frame, strict=True):
        _plan(record, crop_from_frame, frame_size_px)
    means = staged["extent"][staged["block"] > 1]
    return (int(means[:, 0].max()), int(means[:, 1].max())) if len(means) else (0, 0)


def _plan(record: NDArray[Any], crop_from_frame: Affine, frame_size_px: tuple[int, int]) -> None:
    assert np.isfinite(crop_from_frame).all(), "a transform with a value that is not finite"
    reading = reading_of(crop_from_frame, (CROP_SIZE, CROP_SIZE), frame_size_px)
    part_from_crop = compose(reading.part_from_image, invert_affine(crop_from_frame))
    # The whole part of the offset stays a whole number: float32 has too few digits for a place in a 4K frame.
    origin = np.clip(np.floor(part_from_crop[:, 2]), -(2**30), 2**30)
    part_from_crop[:, 2] -= origin
    x0, y0, x1, y1 = reading.blocks
    taps = blur_taps(reading.sigma, np.uint8)
    record["matrix"] = part_from_crop
    record["origin"] = origin
    record["block"] = reading.block
    record["start"] = x0, y0
    record["extent"] = x1 - x0, y1 - y0
    record["reach"] = len(taps) - 1
    record["taps"] = np.pad(taps, (0, 4 - len(taps)))


def align_faces(kernels: Kernels, frame: Array, buffers: CropBuffers, shrunk_px: tuple[int, int], out: Array) -> None:
    """The aligned crops of the faces that `place_crops` was called for.

    frame: uint8 BGR [H, W, 3] (any view) or NV12 [H * 3 / 2, W] on the device. shrunk_px: what `place_crops` gave; a
    caller that captures the launches for later frames gives (BLOCKS_SIDE, BLOCKS_SIDE). out: RGB [-1, 1], `real`
    [F, 3, CROP_SIZE, CROP_SIZE], contiguous; written.
    """
    faces = out.shape[0]
    check(out, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    layout = "bgr" if frame.ndim == 3 else "nv12"
    of_frame = frame_arguments(frame)
    width, height = frame_size(frame)
    if shrunk_px != (0, 0):
        kernels.launch(
            "warp",
            f"shrink_{layout}",
            (*shrunk_px, faces),
            *of_frame,
            width,
            height,
            buffers.crops,
            buffers.blocks,
            BLOCKS_SIDE,
        )
    tall = () if layout == "bgr" else (height,)
    kernels.launch(
        "warp",
        f"align_{layout}",
        (CROP_SIZE, CROP_SIZE, faces),
        *of_frame,
        *tall,
        buffers.crops,
        buffers.blocks,
        BLOCKS_SIDE,
        out,
        CROP_SIZE,
    )
