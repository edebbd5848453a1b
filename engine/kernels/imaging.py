"""`engine.imaging.Imaging` on a graphics card: the frame goes up once and comes down once, the rest are kernels.

Everything is enqueued on the kernels' stream; only `worn` and the end of `blend` wait for it. Buffers whose size is
known are made once. What a step leaves to the next one, its crops and edits, comes from CuPy's memory pool, and the
frames from the pool of page-locked memory: after a few frames both only hand out again what they have.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from engine.bundle import ParserSpec
from engine.directions import Reach
from engine.frames import ImageU8
from engine.geometry import CROP_SIZE, Affine
from engine.imaging import Kept, PlacedFrame
from engine.kernels.blend import blend_buffers, blend_faces, place_patches
from engine.kernels.load import Array, Kernels
from engine.kernels.mask import mask_buffers, soft_masks
from engine.kernels.restore import give_back_faces, restore_buffers
from engine.kernels.steady import steady_faces
from engine.kernels.surroundings import cut_out_faces, surround_buffers
from engine.kernels.warp import align_faces, crop_buffers, place_crops
from engine.masks import MaskShape, worn
from engine.runtimes.base import FloatArray, Network
from engine.steadying import Motion, Steady


class CardImaging:
    """See `engine.imaging.Imaging`; for up to so many faces. One step uses the records of the one before, so every step
    must end with `blend` or begin with `place_frame`, which wait."""

    def __init__(
        self, kernels: Kernels, parts: ParserSpec, shape: MaskShape, faces: int, logits_size: tuple[int, int]
    ) -> None:
        """logits_size: (width, height) of the parser's output."""
        self._kernels = kernels
        self._parts = parts
        self.crop_buffers = crop_buffers(kernels, faces)
        self._restore = restore_buffers(kernels, faces)
        self._masks = mask_buffers(kernels, faces, parts, logits_size, shape)
        self._surround = surround_buffers(kernels, faces, logits_size)
        self.patch_buffers = blend_buffers(kernels, faces)
        self._frame: tuple[NDArray[np.uint8], Array] | None = None
        """The newest frame in page-locked memory of the host, and on the device; None before the first."""

    def at_work(self) -> AbstractContextManager[None]:
        """See `Imaging.at_work`."""
        return self._kernels.at_work()

    def place_frame(self, image: ImageU8) -> PlacedFrame:
        """See `Imaging.place_frame`."""
        self._kernels.wait()  # a step that failed half-way may still read what is written now
        if self._frame is None or self._frame[0].shape != image.shape:
            self._frame = self._kernels.staging(image.shape, np.uint8), self._kernels.empty(image.shape, np.uint8)
        staged, placed = self._frame
        np.copyto(staged, image)
        self._kernels.upload(placed, staged)
        return placed

    def place(self, array: FloatArray) -> FloatArray:
        """See `Imaging.place`."""
        placed: FloatArray = self._kernels.put(array)
        return placed

    def place_reach(self, reach: Reach) -> Reach:
        """See `Imaging.place_reach`."""
        return Reach(*map(self._kernels.put, reach[:-1]))

    def align(self, frame: PlacedFrame, crops_from_frame: Sequence[Affine]) -> FloatArray:
        """See `Imaging.align`."""
        shrunk_px = place_crops(self._kernels, crops_from_frame, _size_px(frame), self.crop_buffers)
        out = self._images(len(crops_from_frame))
        align_faces(self._kernels, frame, self.crop_buffers, shrunk_px, out)
        return out

    def steady(self, motions: Sequence[Motion]) -> Steady:
        """See `Imaging.steady`."""
        return self.steady_along(self._kernels.put(np.stack(motions)))

    def steady_along(self, motions: Array) -> Steady:
        """The same, the motions on the device already: float32 [F, 3, MOTION_SIDE, MOTION_SIDE]."""

        def steady(before: Sequence[FloatArray], now: Sequence[FloatArray | None]) -> tuple[FloatArray, ...]:
            out = tuple(self._images(len(pictures)) for pictures in before)
            for pictures in zip(before, now, out, strict=True):
                steady_faces(self._kernels, pictures[0], pictures[1], motions, pictures[2])
            return out

        return steady

    def give_back(self, crops: FloatArray, inversions: FloatArray, edits: FloatArray, reach: Reach) -> FloatArray:
        """See `Imaging.give_back`."""
        out = self._images(len(crops))
        give_back_faces(self._kernels, crops, inversions, edits, reach, self._restore, out)
        return out

    def worn(self, parser: Network, crops: FloatArray, things: Sequence[Mapping[str, float]]) -> FloatArray:
        """See `Imaging.worn`; found on the CPU, for few ask for it."""
        logits = parser(crop=crops)["logits"]
        seen = self._kernels.staging(logits.shape, logits.dtype)
        self._kernels.download(seen, logits)
        self._kernels.wait()
        shares = [worn(face.astype(np.float32), self._parts, off) for face, off in zip(seen, things, strict=True)]
        return self.place(np.stack(shares))

    def masks(self, parser: Network, crops: FloatArray, edits: FloatArray) -> FloatArray:
        """See `Imaging.masks`."""
        logits = parser(crop=np.concatenate([crops, edits]))["logits"]
        out: FloatArray = self._kernels.empty((len(crops), CROP_SIZE, CROP_SIZE), np.float32)
        soft_masks(self._kernels, logits, self._masks, out)
        return out

    def cut_out(
        self, parser: Network, crops: FloatArray, edits: FloatArray, reach: Reach
    ) -> tuple[FloatArray, FloatArray]:
        """See `Imaging.cut_out`."""
        logits = parser(crop=np.concatenate([crops, edits]))["logits"]
        images, masks = self._images(len(crops)), self._kernels.empty((len(crops), CROP_SIZE, CROP_SIZE), np.float32)
        cut_out_faces(self._kernels, logits, crops, edits, reach, self._masks, self._surround, images, masks)
        return images, masks

    def blend(
        self,
        frame: PlacedFrame,
        edits: FloatArray,
        masks: FloatArray,
        crops_from_frame: Sequence[Affine],
        kept: Kept | None = None,
    ) -> ImageU8:
        """See `Imaging.blend`; waits for all that the step has asked of the card."""
        extent_px = place_patches(self._kernels, crops_from_frame, _size_px(frame), self.patch_buffers)
        blend_faces(self._kernels, frame, edits, masks, self.patch_buffers, extent_px, kept)
        out = self._kernels.staging(frame.shape, np.uint8)
        self._kernels.download(out, frame)
        self._kernels.wait()
        return out

    def _images(self, faces: int) -> FloatArray:
        images: FloatArray = self._kernels.empty((faces, 3, CROP_SIZE, CROP_SIZE), self._kernels.real)
        return images


def _size_px(frame: Array) -> tuple[int, int]:
    return int(frame.shape[1]), int(frame.shape[0])
