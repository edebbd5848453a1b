"""A likeness in a session: offered to every track, faded in and out, and the crops that it is found on."""

import numpy as np
import pytest

from engine.errors import UsageError
from engine.frames import Controls
from engine.geometry import align
from engine.session import Session
from tests.engine.fakes import EMPTY, SEEN, ScriptedTracker, frames

SMILE, NEUTRAL = Controls({"smile": 0.9}), Controls()


@pytest.fixture
def open_session(tiny, tiny_networks):
    """Make a session for a script."""
    return lambda looks: Session(tiny_networks, ScriptedTracker(looks), tiny.directions, tiny.manifest.parser)


def play(session, count, first=0):
    """So many frames with a smile."""
    for frame in frames(count, first):
        session.step(frame, SMILE)


def test_a_track_that_begins_later_is_offered_the_likeness(open_session, monkeypatch):
    monkeypatch.setattr("engine.recurrence.fitting", lambda networks, crop, ws, likeness: ws * 0 + likeness)
    session = open_session([SEEN])
    likeness = np.full(session._code_shape, 0.25, np.float32)
    session.set_likeness(likeness)
    play(session, 1)
    np.testing.assert_array_equal(session._faces[0].recurrent.likeness[0], likeness)


def test_a_likeness_is_faded_into_a_track_and_out_again(open_session):
    session = open_session([SEEN] * 12)
    play(session, 2)
    likeness = np.full(session._code_shape, 0.25, np.float32)
    session.set_likeness(likeness)
    play(session, 1, first=2)
    state = session._faces[0].recurrent
    np.testing.assert_array_equal(state.aim[0], likeness)
    assert 0 < state.likeness.max() < 0.25
    session.set_likeness(None)
    assert not session._faces[0].recurrent.aim.any()


def test_a_likeness_of_another_shape_or_with_nan_is_refused(open_session):
    session = open_session([SEEN])
    rows, width = session._code_shape
    for wrong in (np.zeros((rows + 1, width), np.float32), np.full((rows, width), np.nan, np.float32)):
        with pytest.raises(UsageError, match="finite numbers"):
            session.set_likeness(wrong)


def test_the_main_face_can_be_cut_out_with_every_slider_at_0(open_session):
    session = open_session([SEEN, EMPTY])
    first, second = frames(2)
    session.step(first, NEUTRAL)
    expected = align(first.image, session._faces[0].track.face.crop_from_frame)
    np.testing.assert_array_equal(session.crop(first), expected[..., ::-1])
    session.step(second, NEUTRAL)
    assert session.crop(second) is None
