"""What one frame leaves to the next, a face: two frozen records, the table of phases and the sliders' ramp."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.frames import ImageU8, Phase
from engine.tracking import FaceTrack

RAMP_FRAMES = 3
"""A slider's change is spread over this many frames, the first included."""

CLEAR_FRAMES = 3
"""A face is surely gone after this many frames in a row in which even the low-threshold pass finds none."""

HOLD_NS = 1_000_000_000
"""How long the last edited frame may stand still, and how long an anchor outlives its face; nanoseconds."""


class Event(StrEnum):
    """What a frame means to one face."""

    SEEN = "seen"
    """The face goes on from the frame before."""
    NEW = "new"
    """A face that has no fitting anchor: another identity, a scene cut, an anchor grown old, or none taken yet."""
    MISSED = "missed"
    """No track, but the face may still be in the picture."""
    GONE = "gone"
    """No track, and surely no face either (`CLEAR_FRAMES`)."""


TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = MappingProxyType(
    {
        (Phase.SEARCHING, Event.SEEN): Phase.ANCHORING,
        (Phase.SEARCHING, Event.NEW): Phase.ANCHORING,
        (Phase.SEARCHING, Event.MISSED): Phase.SEARCHING,
        (Phase.SEARCHING, Event.GONE): Phase.SEARCHING,
        (Phase.ANCHORING, Event.SEEN): Phase.TRACKING,
        (Phase.ANCHORING, Event.NEW): Phase.ANCHORING,
        (Phase.ANCHORING, Event.MISSED): Phase.HOLDING,
        (Phase.ANCHORING, Event.GONE): Phase.SEARCHING,
        (Phase.TRACKING, Event.SEEN): Phase.TRACKING,
        (Phase.TRACKING, Event.NEW): Phase.ANCHORING,
        (Phase.TRACKING, Event.MISSED): Phase.HOLDING,
        (Phase.TRACKING, Event.GONE): Phase.SEARCHING,
        (Phase.HOLDING, Event.SEEN): Phase.TRACKING,
        (Phase.HOLDING, Event.NEW): Phase.ANCHORING,
        (Phase.HOLDING, Event.MISSED): Phase.HOLDING,
        (Phase.HOLDING, Event.GONE): Phase.SEARCHING,
    }
)
"""The life of a face. ANCHORING is the frame on which the anchor is taken, HOLDING a loss that may be short."""


@dataclass(frozen=True)
class Slider:
    """One attribute on its way to a value: `shown` is in force now, `target` is reached after `frames_left` more."""

    shown: float
    target: float
    frames_left: int


Ramp = Mapping[str, Slider]
"""The attributes that are, or until just now were, away from 0."""

NO_RAMP: Ramp = MappingProxyType({})
"""Every slider at rest at 0."""


def settled(values: Mapping[str, float]) -> Ramp:
    """The sliders at their values, with no ramp: what the first frame of a track shows."""
    return MappingProxyType({name: Slider(value, value, 0) for name, value in values.items()})


def advance_ramp(ramp: Ramp, values: Mapping[str, float]) -> Ramp:
    """One frame on: a third of a new change at once, all of it on the third frame; a slider moved again starts over.

    values: the targets; an attribute that is absent has the target 0.
    """
    moved = {}
    for name in [*ramp, *(name for name in values if name not in ramp)]:
        slider = ramp.get(name, Slider(0.0, 0.0, 0))
        target = values.get(name, 0.0)
        frames_left = slider.frames_left if target == slider.target else RAMP_FRAMES
        if frames_left > 1:
            step = (target - slider.shown) / frames_left
            moved[name] = Slider(slider.shown + step, target, frames_left - 1)
        elif target != 0.0:
            moved[name] = Slider(target, target, 0)
    return MappingProxyType(moved)


def shown_values(ramp: Ramp) -> dict[str, float]:
    """The value of each attribute that is in force on this frame."""
    return {name: slider.shown for name, slider in ramp.items()}


@dataclass(frozen=True)
class HeldFrame:
    """The last frame that was safe to show: edited, or surely without a face.

    image: gives the picture, uint8 BGR [H, W, 3], once it is finished; None where it could not be.
    """

    captured_ns: int
    image: Callable[[], ImageU8 | None]


@dataclass(frozen=True)
class TrackState:
    """Where one face is in its life.

    face: its track, which carries the filters; kept while the face is lost, so that it can be found again.
    lost_since_ns: capture time of the first frame without it. clear_frames: frames in a row in which even the
    low-threshold pass found no face. held: shown while the policy is in force. ramp: the sliders. frame_size: (height,
    width) that all of this belongs to.
    """

    phase: Phase = Phase.SEARCHING
    face: FaceTrack | None = None
    lost_since_ns: int | None = None
    clear_frames: int = 0
    held: HeldFrame | None = None
    ramp: Ramp = field(default_factory=lambda: NO_RAMP)
    frame_size: tuple[int, int] | None = None


class Rhythm(NamedTuple):
    """Where the loop is in what is not done on every frame.

    estimated: inversions in a row, O_{t-1} the last, that were estimated (`Switches.inverted_every`). unlooked: frames
    since that was drawn which the refiner looks at, on the frame after.
    """

    estimated: int = 0
    unlooked: int = 0


@dataclass(frozen=True)
class RecurrentState:
    """What the loop carries from frame to frame, for B faces; float32, NumPy's or CuPy's.

    crop, inversion, edit: I_{t-1}, O_{t-1}, E_{t-1}, aligned, RGB [-1, 1] [B, 3, S, S]. bare: what was drawn of the
    frame's own code alone when the refiner last looked, as those. h, c: the recurrent encoder's, each [B, C, H, W] of
    its own. anchor: w_1, the code of the track's first frame, [B, L, D]. correction: what the refiner has found so far
    that the encoder misses of this person; aim: the likeness that the user had found; added: what was added to the code
    of this frame, on its way to their sum (`engine/recurrence.py`); all [B, L, D].
    """

    crop: NDArray[np.float32]
    inversion: NDArray[np.float32]
    edit: NDArray[np.float32]
    bare: NDArray[np.float32]
    h: NDArray[np.float32]
    c: NDArray[np.float32]
    anchor: NDArray[np.float32]
    correction: NDArray[np.float32]
    aim: NDArray[np.float32]
    added: NDArray[np.float32]
    rhythm: Rhythm = field(default_factory=Rhythm, kw_only=True)

    @property
    def finite(self) -> bool:
        """Whether every number that the networks gave is finite; on a card this waits for them."""
        with np.errstate(invalid="ignore"):
            return math.isfinite(float(self.total))

    @property
    def total(self) -> NDArray[np.float32]:
        """A number that is not finite where one of those that the networks gave is not; where the arrays lie."""
        total: NDArray[np.float32] = self.inversion.sum() + self.edit.sum() + self.h.sum() + self.c.sum()
        return total

    def arrays(self) -> Iterator[NDArray[np.float32]]:
        """All of them, in the order of the fields."""
        codes = self.anchor, self.correction, self.aim, self.added
        return iter((self.crop, self.inversion, self.edit, self.bare, self.h, self.c, *codes))


def stack(states: Sequence[RecurrentState]) -> RecurrentState:
    """Several faces as one batch, which takes over the rhythm of the one that is furthest; one alone is not copied."""
    if len(states) == 1:
        return states[0]
    arrays = (np.concatenate(arrays) for arrays in zip(*(s.arrays() for s in states), strict=True))
    return RecurrentState(*arrays, rhythm=together([state.rhythm for state in states]))


def together(rhythms: Sequence[Rhythm]) -> Rhythm:
    """The rhythm of faces that go through the networks as one batch."""
    return Rhythm(max(one.estimated for one in rhythms), max(one.unlooked for one in rhythms))


def unstack(state: RecurrentState) -> tuple[RecurrentState, ...]:
    """The faces of a batch, each a batch of one, as views."""
    faces = range(len(state.crop))
    return tuple(RecurrentState(*(array[k : k + 1] for array in state.arrays()), rhythm=state.rhythm) for k in faces)


def next_state(
    track: TrackState, event: Event, sighting: FaceTrack | None, clear_frames: int, captured_ns: int
) -> TrackState:
    """One frame on: the phase by the table, and what belongs to it.

    sighting: the face's track on this frame; None exactly when the event is MISSED or GONE. clear_frames: see
    `TrackState`, this frame included.
    """
    assert (sighting is None) == (event in (Event.MISSED, Event.GONE))
    phase = TRANSITIONS[track.phase, event]
    if sighting is not None:
        return replace(track, phase=phase, face=sighting, lost_since_ns=None, clear_frames=0)
    since_ns = captured_ns if track.lost_since_ns is None else track.lost_since_ns
    face = None if phase is Phase.SEARCHING else track.face
    return replace(track, phase=phase, face=face, lost_since_ns=since_ns, clear_frames=clear_frames)
