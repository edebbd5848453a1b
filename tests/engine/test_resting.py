"""With every slider at 0 the networks rest: tracking alone goes on, and the first frame after that is edited."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.frames import Controls, Phase
from engine.session import Session, Settings
from tests.engine.fakes import EMPTY, SEEN, ScriptedTracker, frames

SMILE, AT_REST = Controls({"smile": 0.9}), Controls({"smile": 0.0})
PARTS = ("generator", "encoder_anchor", "encoder", "recurrent", "parser", "refiner")


class Counting:
    """A network that counts its calls under its name."""

    def __init__(self, network, name, calls):
        self.spec = network.spec
        self._network, self._name, self._calls = network, name, calls

    def __call__(self, **arrays):
        self._calls[self._name] += 1
        return self._network(**arrays)


@pytest.fixture
def calls():
    return Counter()


@pytest.fixture
def open_session(tiny, tiny_networks, calls):
    """Make a session whose networks count their calls, for a tracker's script."""

    def make(looks, **settings):
        parts = {name: Counting(getattr(tiny_networks, name), name, calls) for name in PARTS}
        tracker = ScriptedTracker(looks)
        session = Session(
            replace(tiny_networks, **parts), tracker, tiny.directions, tiny.manifest.parser, Settings(**settings)
        )
        session.tracker = tracker
        return session

    return make


def test_an_untouched_session_tracks_and_does_nothing_else(open_session, calls):
    session = open_session(lambda index: SEEN)
    for frame in frames(8):
        edited = session.step(frame, AT_REST)
        assert edited.image is frame.image
        assert list(edited.stages_ms) == ["track", "total"]
    assert edited.phase is Phase.TRACKING
    assert len(session.tracker.known) == 8
    assert not calls
    assert session.tracker.second_looks == 0, "the face is there: the sensitive detector rests too"


def test_the_frame_on_which_a_slider_moves_is_edited(open_session, calls):
    session = open_session(lambda index: SEEN)
    for frame in frames(12):
        controls = SMILE if frame.index in (4, 5, 9) else AT_REST
        calls.clear()
        edited = session.step(frame, controls)
        if controls is AT_REST:
            assert not calls
            assert edited.image is frame.image
            continue
        assert not np.array_equal(edited.image, frame.image)
        anchors = 0 if frame.index == 5 else 1
        assert edited.phase is (Phase.ANCHORING if anchors else Phase.TRACKING)
        assert calls["encoder_anchor"] == anchors, "a new anchor from the very frame, and only then"
        assert calls["encoder"] == 1 - anchors
        assert calls["refiner"] == anchors
        assert calls["parser"] == 1, "frame and edit are one batch"
        assert calls["generator"] == (4 if anchors else 1), "inversion and edit are one batch"


def test_without_a_face_the_networks_rest_whatever_the_sliders(open_session, calls):
    session = open_session(lambda index: EMPTY)
    for frame in frames(6):
        session.step(frame, SMILE)
    assert not calls
