"""A whole step on a graphics card at once: one copy up, one CUDA graph, one copy down, and one wait at the end.

For frames on which every face goes on from the frame before, which are nearly all; the others, and frames whose numbers
come out not finite, are stepped piece by piece (`engine/session.py`). What differs from frame to frame travels with the
frame in one parcel, so that a graph that was recorded once holds for every later frame:

| part of the parcel | what |
|---|---|
| frame | uint8 BGR [H, W, 3], at its start; edited in place |
| total | float32, the sum of the new state, which is not finite where a number of it is not |
| crops, patches | where the faces are read and laid: `RECORD` of `engine.kernels.warp` and `engine.kernels.blend` |
| offsets | float32 [F, L, D], the sliders' moves |
| weights | float32 [7, F], what the edit is meant for: the first seven of `directions.Reach` |
| zones | float32 [F, S], how much of the edit each row of a crop takes |
| shifts | int32 [F, 2], how far the edit is moved within its crop |
| motions | float32 [F, 3, side, side], `steadying.Motion` of each face |

Frame and total come back. The loop's state lies in two sets of fixed buffers, read and written in turns: a step that
fails leaves the set that it read as it was.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.bundle import ParserSpec
from engine.directions import Reach
from engine.errors import CardFailed
from engine.frames import ImageU8
from engine.geometry import CROP_SIZE, Affine
from engine.imaging import Kept
from engine.kernels import blend, warp
from engine.kernels.blend import blend_faces, plan_patches
from engine.kernels.imaging import CardImaging
from engine.kernels.load import Array, Kernels
from engine.kernels.warp import BLOCKS_SIDE, align_faces, plan_crops
from engine.masks import MaskShape
from engine.recurrence import UNLOOKED_FRAMES, Switches, advance, next_rhythm
from engine.runtimes.base import Capture, FloatArray, Networks, Replay, shape_for
from engine.state import RecurrentState, Rhythm, together, unstack
from engine.steadying import Motion, still

log = logging.getLogger(__name__)

LEAST_EXTENT_PX = 256
"""Rectangles of faces are rounded up to this or its doubles, so that a moving face does not need graph after graph."""

KEPT_GRAPHS = 24
"""For two sets of state, with an inversion and without, a few sizes of face and numbers of faces; a graph of large
networks takes some memory."""

WEIGHTS = 7
"""Of a `Reach`: hair, outline, eyes, mouth, glasses, reshaped, tones."""

Stepped = tuple[ImageU8, tuple[RecurrentState, ...]]
"""The edited frame, of NumPy and the caller's, and what each face leaves to the next frame."""


@dataclass(frozen=True)
class _Key:
    """What a graph holds besides the buffers. source: the set of state that is read. rhythm: of that state."""

    source: int
    faces: int
    rhythm: Rhythm
    shrunk_px: tuple[int, int]
    extent_px: tuple[int, int]


class WholeSteps:
    """Steps for up to so many faces. capture: of the runtime that the networks run on."""

    def __init__(
        self,
        kernels: Kernels,
        imaging: CardImaging,
        networks: Networks,
        switches: Switches,
        faces: int,
        capture: Capture,
    ) -> None:
        self._kernels = kernels
        self._imaging = imaging
        self._networks = networks
        self._switches = switches
        self._faces = faces
        self._capture = capture
        _, *code = shape_for(networks.generator.spec, "ws", 1)
        self._code = (code[0], code[1])
        self._sets = tuple(self._state_buffers() for _ in range(2))
        self._rows = tuple(unstack(buffers) for buffers in self._sets)
        self._parcel: _Parcel | None = None
        self._graphs: OrderedDict[_Key, Replay] = OrderedDict()
        self._unfinished = False
        self.graphs = 0
        """CUDA graphs that were captured so far."""

    def step(
        self,
        image: ImageU8,
        crops_from_frame: Sequence[Affine],
        states: Sequence[RecurrentState],
        offsets: FloatArray,
        reach: Reach,
        motions: Sequence[Motion],
    ) -> Stepped | None:
        """The frame, edited, and the new states; `states` stay as they are.

        image: uint8 BGR [H, W, 3], not written to. One crop and one state a face. offsets: [F, L, D], and reach:
        NumPy's. motions: one a face, or none where nothing is held steady. Gives None when the
        states are not what `step` or `adopt` gave, or the new ones are not finite. Raises CardFailed.
        """
        source = self._set_of(states)
        if source is None:
            return None
        if self._unfinished:  # a step that failed half-way may still read what is written now
            self._kernels.wait()
        self._unfinished = True
        parcel = self._parcel_for(image)
        shrunk_px, extent_px = parcel.fill(image, crops_from_frame, offsets, reach, motions)
        self._kernels.upload(parcel.placed, parcel.staged)
        before = together([state.rhythm for state in states])
        rhythm = next_rhythm(before, self._networks, self._switches)
        # A graph holds for every rhythm after which the same is done.
        estimated = 0 if rhythm.estimated else self._switches.inverted_every - 1
        before = Rhythm(estimated, {0: UNLOOKED_FRAMES, 1: 0}.get(rhythm.unlooked, 1))
        self._do(_Key(source, len(states), before, shrunk_px, extent_px), parcel)
        out = self._kernels.staging((parcel.returned,), np.uint8)
        self._kernels.download(out, parcel.placed[: parcel.returned])
        self._kernels.wait()
        self._unfinished = False
        if not math.isfinite(out[parcel.total :].view(np.float32)[0]):
            return None
        made = (replace(row, rhythm=rhythm) for row in self._rows[1 - source][: len(states)])
        return out[: image.size].reshape(image.shape), tuple(made)

    def adopt(
        self, states: Sequence[RecurrentState], kept: Iterable[RecurrentState | None]
    ) -> tuple[RecurrentState, ...]:
        """Copies of states that were computed elsewhere, which `step` can go on from.

        kept: what must stay as it is, because the step that gave `states` may yet fail.
        """
        before = [state for state in kept if state is not None]
        source = next((n for n in range(2) if any(self._lies_in(n, state) for state in before)), 1)
        places = self._rows[1 - source][: len(states)]
        for state, place in zip(states, places, strict=True):
            _copy(state, place)
        return tuple(replace(place, rhythm=state.rhythm) for state, place in zip(states, places, strict=True))

    def _set_of(self, states: Sequence[RecurrentState]) -> int | None:
        """The set of buffers whose first rows these states are; None where they are not."""
        for number, rows in enumerate(self._rows):
            if len(states) <= len(rows) and all(map(_same, states, rows)):
                return number
        return None

    def _lies_in(self, number: int, state: RecurrentState) -> bool:
        return any(state.crop is row.crop for row in self._rows[number])

    def _do(self, key: _Key, parcel: "_Parcel") -> None:
        """Enqueue the step that the parcel asks for: as a graph, which is recorded when its like comes first."""
        replay = self._graphs.pop(key, None)
        if replay is None:
            # What a graph reads and writes must be nobody else's, also when the graph is not at work.
            with self._kernels.set_apart():
                self._enqueue(key, parcel)  # libraries choose and compile on the way, which cannot be recorded
                replay = self._recorded(lambda: self._enqueue(key, parcel))
        else:
            replay()
        self._graphs[key] = replay
        if len(self._graphs) > KEPT_GRAPHS:
            self._graphs.popitem(last=False)

    def _recorded(self, work: Callable[[], None]) -> Replay:
        """What does the work again: a graph or, where it cannot be captured, the work itself."""
        try:
            replay = self._capture(work)
        except CardFailed as error:
            log.warning("this step cannot be captured as a CUDA graph; it is launched piece by piece: %s", error)
            return work
        self.graphs += replay is not None
        return replay or work

    def _enqueue(self, key: _Key, parcel: "_Parcel") -> None:
        """The step, from the frame on the card to the edited frame there. Nothing of it may depend on the host."""
        kernels, imaging, faces = self._kernels, self._imaging, key.faces
        frame, crop_records, patch_records, offsets, reach, motions, total = parcel.on_card(faces)
        before, after = (_first(self._sets[n], faces) for n in (key.source, 1 - key.source))
        before = replace(before, rhythm=key.rhythm)
        align_faces(kernels, frame, replace(imaging.crop_buffers, crops=crop_records), key.shrunk_px, after.crop)
        steady = partial(imaging.steady_along, motions) if self._switches.steadied else None
        state, inversion, edit = advance(
            self._networks, before, after.crop, offsets, self._switches, steady=steady, reach=reach
        )
        _copy(state, after)
        total[...] = after.total
        if self._switches.residual:
            edit = imaging.give_back(after.crop, inversion, edit, reach)
        if self._switches.surrounded:
            edit, masks = imaging.cut_out(self._networks.parser, after.crop, edit, reach)
        else:
            masks = imaging.masks(self._networks.parser, after.crop, edit)
        patches = replace(imaging.patch_buffers, patches=patch_records)
        kept = Kept(after.crop, reach.reshaped, reach.outline) if self._switches.residual else None
        blend_faces(kernels, frame, edit, masks, patches, key.extent_px, kept)

    def _parcel_for(self, image: ImageU8) -> "_Parcel":
        if self._parcel is None or self._parcel.image.shape != image.shape:
            self._graphs.clear()
            self._parcel = _Parcel(self._kernels, image.shape, (self._faces, *self._code))
        return self._parcel

    def _state_buffers(self) -> RecurrentState:
        recurrent = self._networks.recurrent.spec.inputs
        images = [(3, CROP_SIZE, CROP_SIZE)] * 4
        memory = [tuple(int(axis) for axis in recurrent[name][1:]) for name in ("h", "c")]
        shapes = [*images, *memory, *[self._code] * 4]
        return RecurrentState(*(self._kernels.empty((self._faces, *shape), np.float32) for shape in shapes))


def open_card(
    kernels: Kernels,
    networks: Networks,
    parts: ParserSpec,
    mask: MaskShape,
    switches: Switches,
    faces: int,
    capture: Capture,
) -> tuple[CardImaging, WholeSteps]:
    """A session's work on pixels on a card, piece by piece and at once, for up to so many faces."""
    *_, height, width = shape_for(networks.parser.spec, "logits", 1)
    with kernels.at_work():
        imaging = CardImaging(kernels, parts, mask, faces, (width, height))
        return imaging, WholeSteps(kernels, imaging, networks, switches, faces, capture)


class _Parcel:
    """What crosses the bus for frames of one size, and where its parts begin; see the table above."""

    def __init__(self, kernels: Kernels, shape: tuple[int, ...], offsets: tuple[int, int, int]) -> None:
        """shape: of the frame. offsets: [F, L, D]."""
        faces = offsets[0]
        self.total = _aligned(math.prod(shape), 4)
        self.returned = self.total + 4
        self._crops = _aligned(self.returned)
        self._patches = _aligned(self._crops + faces * warp.RECORD.itemsize)
        self._offsets = _aligned(self._patches + faces * blend.RECORD.itemsize)
        self._weights = _aligned(self._offsets + 4 * math.prod(offsets))
        self._zones = _aligned(self._weights + 4 * WEIGHTS * faces)
        self._shifts = _aligned(self._zones + 4 * faces * CROP_SIZE)
        self._motions = _aligned(self._shifts + 8 * faces)
        self._shapes = shape, offsets
        moved = (faces, *still().shape)
        size = self._motions + 4 * math.prod(moved)
        self.staged = kernels.staging((size,), np.uint8)
        self.placed: Array = kernels.empty((size,), np.uint8)
        self.image: ImageU8 = self._part(0, math.prod(shape)).reshape(shape)
        self.crops = self._part(self._crops, faces * warp.RECORD.itemsize).view(warp.RECORD)
        self.patches = self._part(self._patches, faces * blend.RECORD.itemsize).view(blend.RECORD)
        self.offsets = self._part(self._offsets, 4 * math.prod(offsets)).view(np.float32).reshape(offsets)
        self.reach = self._reach(self.staged, faces)
        self.motions = self._part(self._motions, 4 * math.prod(moved)).view(np.float32).reshape(moved)

    def fill(
        self,
        image: ImageU8,
        crops_from_frame: Sequence[Affine],
        offsets: FloatArray,
        reach: Reach,
        motions: Sequence[Motion],
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Write a frame and what goes with it; the (width, height) that `align_faces` and `blend_faces` must cover."""
        np.copyto(self.image, image)
        np.copyto(self.offsets[: len(offsets)], offsets)
        for part, values in zip(self.reach[:-1], reach[:-1], strict=True):
            np.copyto(part[: len(values)], values)
        for place, motion in zip(self.motions, motions, strict=False):
            np.copyto(place, motion)
        height, width = image.shape[:2]
        shrunk_px = plan_crops(crops_from_frame, (width, height), self.crops)
        extent_px = plan_patches(crops_from_frame, (width, height), self.patches)
        covered_px = _rounded(extent_px[0], width), _rounded(extent_px[1], height)
        return (0, 0) if shrunk_px == (0, 0) else (BLOCKS_SIDE, BLOCKS_SIDE), covered_px

    def on_card(self, faces: int) -> tuple[Array, Array, Array, Array, Reach, Array, Array]:
        """On the card, for so many faces: frame, crop records, patch records, offsets, reach, motions, total."""
        shape, (_, rows, width) = self._shapes
        placed = self.placed
        crops = placed[self._crops : self._crops + faces * warp.RECORD.itemsize]
        patches = placed[self._patches : self._patches + faces * blend.RECORD.itemsize]
        offsets = placed[self._offsets : self._offsets + 4 * faces * rows * width].view(np.float32)
        offsets = offsets.reshape(faces, rows, width)
        one = still()
        motions = placed[self._motions : self._motions + faces * one.nbytes].view(np.float32)
        total = placed[self.total : self.returned].view(np.float32)
        frame = placed[: math.prod(shape)].reshape(*shape)
        return frame, crops, patches, offsets, self._reach(placed, faces), motions.reshape(faces, *one.shape), total

    def _reach(self, parcel: Array, faces: int) -> Reach:
        weights = parcel[self._weights : self._weights + 4 * WEIGHTS * self._shapes[1][0]].view(np.float32)
        zones = parcel[self._zones : self._zones + 4 * faces * CROP_SIZE].view(np.float32).reshape(faces, CROP_SIZE)
        shifts = parcel[self._shifts : self._shifts + 8 * faces].view(np.int32).reshape(faces, 2)
        return Reach(*(*weights.reshape(WEIGHTS, -1)[:, :faces], zones, shifts))

    def _part(self, start: int, size: int) -> NDArray[np.uint8]:
        return self.staged[start : start + size]


def _aligned(size: int, step: int = 256) -> int:
    return -(-size // step) * step


def _rounded(extent_px: int, limit_px: int) -> int:
    """An extent as graphs are recorded for it: threads beyond the face's own rectangle end at once."""
    if extent_px == 0:
        return 0
    rounded = LEAST_EXTENT_PX
    while rounded < extent_px:
        rounded *= 2
    return min(rounded, limit_px)


def _first(buffers: RecurrentState, faces: int) -> RecurrentState:
    return RecurrentState(*(array[:faces] for array in buffers.arrays()))


def _same(state: RecurrentState, row: RecurrentState) -> bool:
    """Whether a state is the buffers themselves, all of them: a session may have put another aim into it."""
    return all(array is buffer for array, buffer in zip(state.arrays(), row.arrays(), strict=True))


def _copy(state: RecurrentState, place: RecurrentState) -> None:
    for made, kept in zip(state.arrays(), place.arrays(), strict=True):
        if made is not kept:
            kept[...] = made
