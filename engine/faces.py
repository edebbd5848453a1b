"""The faces of a session, one slot each: which track is whose, what a frame means to each, and what may be shown.

A session has as many slots as it edits faces. A slot is the pair of records that its face leaves to the next frame.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.detection import Detection
from engine.frames import Phase
from engine.runtimes.base import FloatArray
from engine.state import (
    CLEAR_FRAMES,
    HOLD_NS,
    NO_RAMP,
    Event,
    HeldFrame,
    Ramp,
    RecurrentState,
    TrackState,
    advance_ramp,
    next_state,
    settled,
)
from engine.steadying import Grey
from engine.tracking import FaceTrack

Box = tuple[float, float, float, float]

CLEARLY_LARGER = 1.5
"""Ratio of areas from which another face takes a tracked one's slot; two alike must not take turns."""

FOLLOWED = (Phase.ANCHORING, Phase.TRACKING)
"""The phases of a face that is tracked on this frame."""


@dataclass(frozen=True)
class Face:
    """One slot. recurrent: None until a frame is edited; it then starts from an anchor. grey: the face as motion saw it
    on the frame that the slot was last edited on."""

    track: TrackState = field(default_factory=TrackState)
    recurrent: RecurrentState | None = None
    grey: Grey | None = None

    @property
    def followed(self) -> bool:
        """Whether the face is tracked on the frame that the slot was last brought to."""
        return self.track.phase in FOLLOWED


Faces = tuple[Face, ...]
Sightings = tuple[FaceTrack | None, ...]
"""The tracks of one frame, in the order of the slots; None where a slot's face was not found."""


def assign(faces: Faces, tracks: Sequence[FaceTrack]) -> Sightings:
    """Give every track to a slot: first by identity, then new ones to free slots.

    Among the free slots a new track takes one whose lost face was in the same place, for that is the same person; else
    one that looks for a face; else a lost one's. Tracks beyond the slots are dropped.
    """
    sightings: list[FaceTrack | None] = [None] * len(faces)
    by_id = {track.track_id: track for track in tracks}
    for slot, face in enumerate(faces):
        if face.track.face is not None:
            sightings[slot] = by_id.pop(face.track.face.track_id, None)
    for track in by_id.values():
        free = [slot for slot, sighting in enumerate(sightings) if sighting is None]
        if free:
            sightings[min(free, key=lambda slot: _reluctance(faces[slot], track))] = track
    return tuple(sightings)


def _reluctance(face: Face, track: FaceTrack) -> int:
    if face.track.face is not None and _centre_in(track.box_px, face.track.face.box_px):
        return 0
    return 1 if face.track.phase is Phase.SEARCHING else 2


def _centre_in(box_px: Box, other_px: Box) -> bool:
    x, y = (box_px[0] + box_px[2]) / 2.0, (box_px[1] + box_px[3]) / 2.0
    return other_px[0] <= x <= other_px[2] and other_px[1] <= y <= other_px[3]


def overtaken(tracks: Sequence[FaceTrack], detections: Iterable[Detection]) -> FaceTrack | None:
    """The smallest of the tracked faces, when a face that nobody tracks is clearly larger; else None.

    The largest faces are the ones to edit: a passer-by who got the only slot while the user was lost must give it back.
    """
    smallest = min(tracks, key=lambda track: _area_px(track.box_px))
    others = [found for found in detections if not any(_centre_in(found.box_px, track.box_px) for track in tracks)]
    larger = any(_area_px(found.box_px) > CLEARLY_LARGER * _area_px(smallest.box_px) for found in others)
    return smallest if larger else None


def needs_second_look(faces: Faces, sightings: Sightings) -> bool:
    """Whether there may be a face that nobody tracks: a slot has lost its own, or there is no track at all."""
    lost = any(s is None and face.track.phase is not Phase.SEARCHING for face, s in zip(faces, sightings, strict=True))
    return lost or all(sighting is None for sighting in sightings)


def unaccounted(detections: Iterable[Detection], sightings: Sightings) -> bool:
    """Whether one of the detections is not a face that is tracked on this frame."""
    tracked = [sighting.box_px for sighting in sightings if sighting is not None]
    return any(not any(_centre_in(detection.box_px, box_px) for box_px in tracked) for detection in detections)


def advance_face(
    face: Face,
    sighting: FaceTrack | None,
    values: Mapping[str, float],
    clear_frames: int,
    captured_ns: int,
) -> Face:
    """Bring a slot to this frame: phase, ramp, and no recurrent state where the anchor no longer fits.

    sighting: the face's track on this frame, if it has one. values: the sliders, by attribute; with every one at 0 the
    face rests. clear_frames: frames in a row, this one included, without an untracked face.
    """
    edited = any(values.values())
    event = event_of(face, sighting, edited, clear_frames, captured_ns)
    track = next_state(face.track, event, sighting, clear_frames, captured_ns)
    if sighting is not None and edited:
        track = replace(track, ramp=_ramp(face, event, sighting, values))
    keep = event in (Event.SEEN, Event.MISSED)
    return replace(face, track=track) if keep else Face(track)


def event_of(face: Face, sighting: FaceTrack | None, edited: bool, clear_frames: int, captured_ns: int) -> Event:
    """What this frame means to the slot's face; edited: some attribute is set, the rest as in `advance_face`.

    A scene cut needs no rule of its own: the tracker ends a track whose picture changes and begins another.
    """
    if sighting is None:
        return Event.GONE if clear_frames >= CLEAR_FRAMES else Event.MISSED
    if not _same_identity(face, sighting):
        return Event.NEW
    if not edited:
        return Event.SEEN
    since_ns = face.track.lost_since_ns
    outlived = since_ns is not None and captured_ns - since_ns > HOLD_NS
    return Event.NEW if face.recurrent is None or outlived else Event.SEEN


def _same_identity(face: Face, sighting: FaceTrack) -> bool:
    return face.track.face is not None and face.track.face.track_id == sighting.track_id


def _ramp(face: Face, event: Event, sighting: FaceTrack, values: Mapping[str, float]) -> Ramp:
    """The sliders of this frame: at full strength on a track's first frame, else one step on.

    A face that was there already while everything was at 0 takes an anchor now, but to the person this is a slider
    moving, so it is ramped.
    """
    was_untouched = face.recurrent is None and face.followed and _same_identity(face, sighting)
    if event is Event.NEW and not was_untouched:
        return settled(values)
    return advance_ramp(face.track.ramp, values)


def at_rest(faces: Faces) -> Faces:
    """The slots after a frame with every attribute at 0: tracks go on, nothing edited is kept.

    The networks rest too, which is most of the work of a frame. The first edit after that takes a new anchor from the
    frame it starts on; stepping the loop unseen would cost the same every frame, for a state that one frame can make.
    """
    return tuple(Face(replace(face.track, held=None, ramp=NO_RAMP)) for face in faces)


def holding(faces: Faces, held: HeldFrame) -> Faces:
    """The slots with a newer frame to fall back on."""
    return tuple(replace(face, track=replace(face.track, held=held)) for face in faces)


def forgetting(faces: Faces, slots: Collection[int]) -> Faces:
    """The slots, those of these numbers without their recurrent state: they take a new anchor."""
    return tuple(replace(face, recurrent=None) if slot in slots else face for slot, face in enumerate(faces))


def with_states(faces: Faces, slots: Iterable[int], states: Iterable[RecurrentState]) -> Faces:
    """The slots, those of these numbers with these states."""
    new = dict(zip(slots, states, strict=True))
    return tuple(replace(face, recurrent=new.get(slot, face.recurrent)) for slot, face in enumerate(faces))


def looking(faces: Faces, greys: Mapping[int, Grey]) -> Faces:
    """The slots, those of these numbers with their faces as motion sees them on this frame."""
    return tuple(replace(face, grey=greys.get(slot, face.grey)) for slot, face in enumerate(faces))


def aiming(faces: Faces, likeness: FloatArray) -> Faces:
    """The slots, those with a recurrent state on their way to this likeness [L, D]."""
    return tuple(
        face
        if (state := face.recurrent) is None
        else replace(face, recurrent=replace(state, aim=np.broadcast_to(likeness, state.aim.shape)))
        for face in faces
    )


def exposed(faces: Faces) -> bool:
    """Whether the frame may show a face unedited that the user wants edited.

    A lost face may still be there; with no track at all, so may one that the detector is not sure of, until it has
    found nothing for `CLEAR_FRAMES`. Beside a tracked face, a slot that never had one exposes nobody.
    """
    if any(face.track.phase is Phase.HOLDING for face in faces):
        return True
    return not any(face.followed for face in faces) and any(face.track.clear_frames < CLEAR_FRAMES for face in faces)


def main_phase(faces: Faces) -> Phase:
    """The phase to report: of the largest tracked face, but HOLDING while any face is lost."""
    if any(face.track.phase is Phase.HOLDING for face in faces):
        return Phase.HOLDING
    followed = [face.track for face in faces if face.followed]
    largest = max(followed, key=lambda track: _area_px(track.face.box_px) if track.face else 0.0, default=TrackState())
    return largest.phase


def _area_px(box_px: Box) -> float:
    x0, y0, x1, y1 = box_px
    return (x1 - x0) * (y1 - y0)
