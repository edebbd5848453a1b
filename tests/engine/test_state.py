"""The table of phases and the sliders' ramp."""

import itertools

import numpy as np
import pytest

from engine.frames import Phase
from engine.state import (
    NO_RAMP,
    TRANSITIONS,
    Event,
    RecurrentState,
    TrackState,
    advance_ramp,
    next_state,
    settled,
    shown_values,
    stack,
    unstack,
)
from tests.engine.fakes import face

S, A, T, H = Phase.SEARCHING, Phase.ANCHORING, Phase.TRACKING, Phase.HOLDING


def test_every_phase_knows_every_event():
    assert set(TRANSITIONS) == set(itertools.product(Phase, Event))


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (Event.SEEN, {S: A, A: T, T: T, H: T}),
        (Event.NEW, {S: A, A: A, T: A, H: A}),
        (Event.MISSED, {S: S, A: H, T: H, H: H}),
        (Event.GONE, {S: S, A: S, T: S, H: S}),
    ],
)
def test_transition(event, after):
    assert {phase: TRANSITIONS[phase, event] for phase in Phase} == after


def test_a_life():
    events = [Event.MISSED, Event.NEW, Event.SEEN, Event.MISSED, Event.SEEN, Event.MISSED, Event.MISSED, Event.GONE]
    track, phases = TrackState(), []
    for n, event in enumerate(events):
        sighting = face() if event in (Event.SEEN, Event.NEW) else None
        track = next_state(track, event, sighting, 0, n)
        phases.append(track.phase)
    assert phases == [S, A, T, H, T, H, H, S]


def test_a_lost_face_is_remembered_until_it_is_gone():
    track = next_state(TrackState(), Event.NEW, face(7), 0, 0)
    lost = next_state(next_state(track, Event.MISSED, None, 0, 40), Event.MISSED, None, 1, 80)
    assert lost.face is not None
    assert lost.face.track_id == 7
    assert (lost.lost_since_ns, lost.clear_frames) == (40, 1)
    assert next_state(lost, Event.GONE, None, 3, 120).face is None
    back = next_state(lost, Event.SEEN, face(7), 0, 120)
    assert (back.lost_since_ns, back.clear_frames) == (None, 0)


@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        ([0.9, 0.9, 0.9, 0.9], [0.3, 0.6, 0.9, 0.9]),
        ([0.9, 0.9, 0.3, 0.3, 0.3, 0.3], [0.3, 0.6, 0.5, 0.4, 0.3, 0.3]),
        ([0.9, -0.6, -0.6, -0.6], [0.3, 0.0, -0.3, -0.6]),
        ([0.9, 0.0, 0.0, 0.0], [0.3, 0.2, 0.1, 0.0]),
    ],
)
def test_a_slider_takes_a_third_at_once_and_all_after_three_frames(targets, shown):
    ramp, seen = NO_RAMP, []
    for target in targets:
        ramp = advance_ramp(ramp, {"age": target})
        seen.append(shown_values(ramp).get("age", 0.0))
    assert seen == pytest.approx(shown)


def test_one_slider_does_not_hold_up_another():
    ramp = advance_ramp(settled({"age": 1.0}), {"age": 1.0, "smile": 0.3})
    assert shown_values(ramp) == pytest.approx({"age": 1.0, "smile": 0.1})
    ramp = advance_ramp(ramp, {"age": 0.4, "smile": 0.3})
    assert shown_values(ramp) == pytest.approx({"age": 0.8, "smile": 0.2})


def test_a_slider_back_at_rest_is_forgotten():
    ramp = settled({"age": 0.5})
    for _ in range(3):
        ramp = advance_ramp(ramp, {})
    assert dict(ramp) == {}


def test_stack_and_unstack_are_inverse():
    rng = np.random.default_rng(0)
    states = [RecurrentState(*(rng.random((1, 2, 3), np.float32) for _ in range(10))) for _ in range(3)]
    for before, after in zip(states, unstack(stack(states)), strict=True):
        for name in ("crop", "inversion", "edit", "bare", "h", "c", "anchor", "correction", "aim", "added"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_one_face_alone_is_not_copied():
    state = RecurrentState(*(np.zeros((1, 2), np.float32) for _ in range(10)))
    assert stack([state]) is state
