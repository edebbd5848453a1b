"""Edited crops -> frame on the kernels' device; defined by `compositing.blend`.

For all faces at once: `take` makes what is laid of edits and crops, `prepare` brings it to the pixel spacing that the
definition reads it at (doubled where the face is large, so that a frame pixel takes four pixels and not sixteen), and
`composite` passes once over the rectangles of the frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.compositing import Resampling, reach_px, resampling_of
from engine.geometry import (
    CROP_SIZE,
    Affine,
    Reading,
    blur_taps,
    compose,
    invert_affine,
    reading_of,
    resized_from_crop,
    translation,
)
from engine.imaging import Kept
from engine.kernels.load import Array, Kernels, check, frame_arguments
from engine.kernels.restore import RestoreBuffers, restore_buffers, unchanged_between
from engine.restoring import GATE_RESOLUTION

RECORD = np.dtype(
    [
        ("image", np.float32, (2, 3)),
        ("mask", np.float32, (2, 3)),
        ("rectangle", np.int32, 4),
        ("how", np.int32),
        ("block", np.int32),
        ("side", np.int32),
        ("image_reach", np.int32),
        ("mask_reach", np.int32),
        ("image_taps", np.float32, 5),
        ("mask_taps", np.float32, 5),
    ]
)
"""`struct Patch` of blend.cu."""

HOW = {Resampling.DOUBLED: 0, Resampling.CUBIC: 1, Resampling.LOW_PASSED: 2}
"""The numbers that blend.cu gives them."""


@dataclass(frozen=True)
class BlendBuffers:
    """Memory for `blend_faces`, made once; S = CROP_SIZE. staged: host, `RECORD` [F]. On the device: patches, the same,
    uint8 [F, bytes]; float32 layers [F, S, S, 3]; opens, open_means, means [F, S, S]; prepared [F, 2 S, 2 S, 3]."""

    staged: NDArray[Any]
    patches: Array
    layers: Array
    opens: Array
    prepared: Array
    open_means: Array
    means: Array
    gate: RestoreBuffers


def blend_buffers(kernels: Kernels, faces: int) -> BlendBuffers:
    """Buffers for up to so many faces."""
    plane = (faces, CROP_SIZE, CROP_SIZE)
    return BlendBuffers(
        staged=kernels.staging((faces,), RECORD),
        patches=kernels.empty((faces, RECORD.itemsize), np.uint8),
        layers=kernels.empty((*plane, 3), np.float32),
        opens=kernels.empty(plane, np.float32),
        prepared=kernels.empty((faces, 2 * CROP_SIZE, 2 * CROP_SIZE, 3), np.float32),
        open_means=kernels.empty(plane, np.float32),
        means=kernels.empty(plane, np.float32),
        gate=restore_buffers(kernels, faces),
    )


def place_patches(
    kernels: Kernels, crops_from_frame: Sequence[Affine], frame_size_px: tuple[int, int], buffers: BlendBuffers
) -> tuple[int, int]:
    """Put on the device where the faces go; what `plan_patches` gives.

    The copy reads `buffers.staged` later: wait for the stream before the next.
    """
    faces = len(crops_from_frame)
    extent_px = plan_patches(crops_from_frame, frame_size_px, buffers.staged)
    kernels.upload(buffers.patches[:faces], buffers.staged[:faces].view(np.uint8).reshape(faces, RECORD.itemsize))
    return extent_px


def plan_patches(
    crops_from_frame: Sequence[Affine], frame_size_px: tuple[int, int], staged: NDArray[Any]
) -> tuple[int, int]:
    """Write where the faces go; the (width, height) of the largest rectangle, (0, 0) for none.

    frame_size_px: (width, height). staged: `RECORD`, at least as many as crops; the first ones are written.
    """
    staged = staged[: len(crops_from_frame)]
    for record, crop_from_frame in zip(staged, crops_from_frame, strict=True):
        _plan(record, crop_from_frame, frame_size_px)
    extent = (staged["rectangle"][:, 2:] - staged["rectangle"][:, :2]).clip(0)
    extent = extent[extent.all(axis=1)]
    return (int(extent[:, 0].max()), int(extent[:, 1].max())) if len(extent) else (0, 0)


def _plan(record: NDArray[Any], crop_from_frame: Affine, frame_size_px: tuple[int, int]) -> None:
    assert np.isfinite(crop_from_frame).all(), "a transform with a value that is not finite"
    # Where in the crop the mask is 0 is not known on this side of the bus.
    x0, y0, x1, y1 = reach_px((0, 0, CROP_SIZE, CROP_SIZE), crop_from_frame, frame_size_px)
    crop_from_rectangle = compose(crop_from_frame, translation(x0, y0))
    size = (x1 - x0, y1 - y0)
    how = resampling_of(invert_affine(crop_from_rectangle))
    side = 2 * CROP_SIZE if how is Resampling.DOUBLED else CROP_SIZE
    image_from_rectangle = compose(resized_from_crop(side), crop_from_rectangle)
    reading = reading_of(invert_affine(image_from_rectangle), size, (side, side))
    mask_from_rectangle = crop_from_rectangle
    mask_sigma = 0.0
    if how is Resampling.LOW_PASSED:
        image_from_rectangle = mask_from_rectangle = compose(_blocks_from_image(reading), crop_from_rectangle)
        mask_sigma = reading.sigma
        side = max(CROP_SIZE // reading.block, 1)
    image_taps, mask_taps = blur_taps(reading.sigma, np.float32), blur_taps(mask_sigma, np.float32)
    record["image"] = image_from_rectangle
    record["mask"] = mask_from_rectangle
    record["rectangle"] = x0, y0, x1, y1
    record["how"] = HOW[how]
    record["block"] = reading.block
    record["side"] = side
    record["image_reach"], record["mask_reach"] = len(image_taps) - 1, len(mask_taps) - 1
    record["image_taps"] = np.pad(image_taps, (0, 5 - len(image_taps)))
    record["mask_taps"] = np.pad(mask_taps, (0, 5 - len(mask_taps)))


def _blocks_from_image(reading: Reading) -> Affine:
    """The pixels of all the image's block means from its own, not only those of the part that is read."""
    x0, y0, _, _ = reading.blocks
    return compose(translation(x0, y0), reading.part_from_image)


def blend_faces(
    kernels: Kernels,
    frame: Array,
    images: Array,
    masks: Array,
    buffers: BlendBuffers,
    extent_px: tuple[int, int],
    kept: Kept | None = None,
) -> None:
    """The frame with the faces over it that `place_patches` was called for, in their order.

    frame: uint8 BGR [H, W, 3] (any view) on the device; changed in place, and only inside the faces' rectangles.
    images: RGB [-1, 1], `real` [F, 3, CROP_SIZE, CROP_SIZE]. masks: float32 [0, 1] [F, CROP_SIZE, CROP_SIZE]. Both
    contiguous. extent_px: what `place_patches` gave; a caller that captures the launches for later frames gives the
    largest that they are to hold. kept: on the device, its crops as images.
    """
    faces = images.shape[0]
    check(images, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    check(masks, np.float32, (faces, CROP_SIZE, CROP_SIZE))
    assert frame.ndim == 3, "the frame to be changed must be BGR"
    if extent_px == (0, 0):
        return
    if kept is not None:
        check(kept.crops, kernels.real, images.shape)
        for weight in kept.reshaped, kept.outline:
            check(weight, np.float32, (faces,))
        unchanged_between(kernels, kept.crops, images, kept.reshaped, kept.outline, buffers.gate)
    kernels.launch(
        "blend",
        "take",
        (CROP_SIZE, CROP_SIZE, faces),
        images,
        images if kept is None else kept.crops,
        buffers.gate.gates,
        0 if kept is None else GATE_RESOLUTION,
        buffers.layers,
        buffers.opens,
        CROP_SIZE,
    )
    kernels.launch(
        "blend",
        "prepare",
        (2 * CROP_SIZE, 2 * CROP_SIZE, faces),
        buffers.layers,
        buffers.opens,
        masks,
        buffers.patches,
        buffers.prepared,
        buffers.open_means,
        buffers.means,
        CROP_SIZE,
    )
    kernels.launch(
        "blend",
        "composite",
        (*extent_px, faces),
        *frame_arguments(frame),
        buffers.patches,
        faces,
        buffers.prepared,
        buffers.opens,
        buffers.open_means,
        masks,
        buffers.means,
        CROP_SIZE,
    )
