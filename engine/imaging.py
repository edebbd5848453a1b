"""A session's work on pixels, from the frame to the crops and back, chosen once when the session opens.

`CpuImaging` is the definition, with OpenCV and NumPy. `engine.kernels.imaging.CardImaging` is the same on a graphics
card, where the arrays between a frame and its edit never leave the card.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Thread
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.bundle import ParserSpec
from engine.compositing import Patch, image_from_u8, paste
from engine.directions import Reach
from engine.frames import ImageU8
from engine.geometry import Affine, align
from engine.masks import MaskShape, face_mask, parse_faces, worn
from engine.restoring import give_back
from engine.runtimes.base import FloatArray, Network, begin
from engine.steadying import Motion, Steady, steadied
from engine.surroundings import cut_out

PlacedFrame = Any
"""A frame where the work is done: the frame's own array, or a copy on a card."""


class Kept(NamedTuple):
    """What the frame's own detail is kept by, of F faces: of a `Patch` its crop [F, 3, S, S], reshaped [F] and outline
    [F]."""

    crops: FloatArray
    reshaped: FloatArray
    outline: FloatArray


class Imaging(Protocol):
    """What a session does to pixels; F faces at once, S = CROP_SIZE.

    Float arrays lie where the work is done: NumPy's, or CuPy's on a card. An image RGB [-1, 1] is [F, 3, S, S].
    """

    def at_work(self) -> AbstractContextManager[None]:
        """Everything of a step, array code and networks too, happens inside. Raises CardFailed."""
        ...

    def place_frame(self, image: ImageU8) -> PlacedFrame:
        """A frame, uint8 BGR [H, W, 3], to be used until the next one is placed; it is not written to."""
        ...

    def place(self, array: FloatArray) -> FloatArray:
        """An array of NumPy, where the work is done."""
        ...

    def place_reach(self, reach: Reach) -> Reach:
        """The same of where edits act; nothing is taken off yet (`worn`)."""
        ...

    def align(self, frame: PlacedFrame, crops_from_frame: Sequence[Affine]) -> FloatArray:
        """I_t^a of each face, RGB [-1, 1]."""
        ...

    def steady(self, motions: Sequence[Motion]) -> Steady:
        """What holds pictures steady along the motion of each face, `steadying.steadied`."""
        ...

    def give_back(self, crops: FloatArray, inversions: FloatArray, edits: FloatArray, reach: Reach) -> FloatArray:
        """The edits with what the inversions lost, `restoring.give_back`; RGB [-1, 1]."""
        ...

    def worn(self, parser: Network, crops: FloatArray, things: Sequence[Mapping[str, float]]) -> FloatArray:
        """Where each edit takes off what its face wears, `masks.worn`; float32 [F, G, G]."""
        ...

    def masks(self, parser: Network, crops: FloatArray, edits: FloatArray) -> FloatArray:
        """Soft masks of the faces, `masks.face_mask`; float32 [0, 1] [F, S, S]."""
        ...

    def cut_out(
        self, parser: Network, crops: FloatArray, edits: FloatArray, reach: Reach
    ) -> tuple[FloatArray, FloatArray]:
        """The edits with the surroundings where they have no face, and masks that go with that,
        `surroundings.cut_out`; RGB [-1, 1] and float32 [0, 1] [F, S, S]."""
        ...

    def blend(
        self,
        frame: PlacedFrame,
        edits: FloatArray,
        masks: FloatArray,
        crops_from_frame: Sequence[Affine],
        kept: Kept | None = None,
    ) -> ImageU8:
        """The frame with the edits over it, `compositing.blend`: a new array of NumPy; the placed frame is used up."""
        ...


WORTH_A_THREAD = 4 << 20
"""Bytes of a frame from which its copy is made beside the networks: 4K takes as long as laying a face over it."""


class _FrameCopy:
    """A frame and the copy of it that the faces are laid over; a large one is copied by a thread of its own."""

    def __init__(self, image: ImageU8) -> None:
        self.image = image
        self._copy: ImageU8 | None = None
        self._thread: Thread | None = None
        if image.nbytes >= WORTH_A_THREAD:
            self._copy = np.empty_like(image, order="C")
            self._thread = Thread(target=np.copyto, args=(self._copy, image), name="frame copy", daemon=True)
            self._thread.start()

    def take(self) -> ImageU8:
        """The copy, the caller's to write to; once."""
        if self._copy is None or self._thread is None:
            return self.image.copy()
        self._thread.join()
        return self._copy


class CpuImaging:
    """See `Imaging`; on the CPU."""

    def __init__(self, parts: ParserSpec, shape: MaskShape) -> None:
        self._parts = parts
        self._shape = shape

    def at_work(self) -> AbstractContextManager[None]:
        """See `Imaging.at_work`."""
        return nullcontext()

    def place_frame(self, image: ImageU8) -> PlacedFrame:
        """See `Imaging.place_frame`."""
        return _FrameCopy(image)

    def place(self, array: FloatArray) -> FloatArray:
        """See `Imaging.place`."""
        return array

    def place_reach(self, reach: Reach) -> Reach:
        """See `Imaging.place_reach`."""
        return reach

    def align(self, frame: PlacedFrame, crops_from_frame: Sequence[Affine]) -> FloatArray:
        """See `Imaging.align`."""
        return _batch([image_from_u8(align(frame.image, crop_from_frame))[0] for crop_from_frame in crops_from_frame])

    def steady(self, motions: Sequence[Motion]) -> Steady:
        """See `Imaging.steady`."""
        return partial(steadied, motions=motions)

    def give_back(self, crops: FloatArray, inversions: FloatArray, edits: FloatArray, reach: Reach) -> FloatArray:
        """See `Imaging.give_back`."""
        faces = enumerate(zip(crops, inversions, edits, strict=True))
        return _batch([give_back(*images, reach.of(n)) for n, images in faces])

    def worn(self, parser: Network, crops: FloatArray, things: Sequence[Mapping[str, float]]) -> FloatArray:
        """See `Imaging.worn`."""
        logits = begin(parser, crop=crops)()["logits"]  # as the parser always runs, so that nothing is compiled for it
        return np.stack([worn(face, self._parts, off) for face, off in zip(logits, things, strict=True)])

    def masks(self, parser: Network, crops: FloatArray, edits: FloatArray) -> FloatArray:
        """See `Imaging.masks`."""
        parses = parse_faces(parser, self._parts, crops, edits)
        return _batch([face_mask(parse, crops.shape[-1], self._shape) for parse in parses])

    def cut_out(
        self, parser: Network, crops: FloatArray, edits: FloatArray, reach: Reach
    ) -> tuple[FloatArray, FloatArray]:
        """See `Imaging.cut_out`."""
        parses = parse_faces(parser, self._parts, crops, edits)
        faces = zip(crops, edits, parses, reach.hair, reach.glasses, reach.outline, strict=True)
        cut = (cut_out(crop, edit, parse, self._shape, *parts) for crop, edit, parse, *parts in faces)
        images, masks = zip(*cut, strict=True)
        return _batch(images), _batch(masks)

    def blend(
        self,
        frame: PlacedFrame,
        edits: FloatArray,
        masks: FloatArray,
        crops_from_frame: Sequence[Affine],
        kept: Kept | None = None,
    ) -> ImageU8:
        """See `Imaging.blend`."""
        out: ImageU8 = frame.take()
        faces = zip(edits, masks, crops_from_frame, *(kept or ()), strict=True)
        paste(out, [Patch(*face) for face in faces])
        return out


def _batch(faces: Sequence[FloatArray]) -> FloatArray:
    """What was made for each face as one batch; one alone is not copied."""
    return faces[0][None] if len(faces) == 1 else np.stack(faces)
