"""A likeness: found by what a graph says of codes, offered to every track, faded in and out."""

from dataclasses import replace

import numpy as np
import pytest

from engine.bundle import Bundle
from engine.errors import BundleError, UsageError
from engine.frames import Controls
from engine.geometry import align
from engine.likeness import AT_ONCE, FILE, STEPS, TAKEN, find, likeness_of
from engine.runtimes.select import select
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
    likeness = np.full(session._editing.code_shape, 0.25, np.float32)
    session.set_likeness(likeness)
    play(session, 1)
    state = session._faces[0].recurrent
    np.testing.assert_array_equal(state.aim[0], likeness)
    np.testing.assert_array_equal(state.added, state.correction + state.aim)


def test_a_likeness_is_faded_into_a_track_and_out_again(open_session):
    session = open_session([SEEN] * 12)
    play(session, 2)
    before = session._faces[0].recurrent.added
    likeness = np.full(session._editing.code_shape, 0.25, np.float32)
    session.set_likeness(likeness)
    play(session, 1, first=2)
    state = session._faces[0].recurrent
    np.testing.assert_array_equal(state.aim[0], likeness)
    assert 0 < (state.added - before).max() < 0.25
    session.set_likeness(None)
    assert not session._faces[0].recurrent.aim.any()


def test_a_likeness_of_another_shape_or_with_nan_is_refused(open_session):
    session = open_session([SEEN])
    rows, width = session._editing.code_shape
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


class Valley:
    """Says that a code [1, L, D] is the unlike the further it is from what its crop stands for."""

    def __init__(self, wanted: np.ndarray) -> None:
        self.wanted, self.seen = wanted, []

    def __call__(self, ws: np.ndarray, crop: np.ndarray) -> dict[str, np.ndarray]:
        self.seen.append(int(crop.flat[0]))
        away = ws - self.wanted[self.seen[-1]]
        return {"unlike": np.square(away).sum(axis=(1, 2)), "slope": 2.0 * away}


@pytest.fixture
def lacking() -> np.ndarray:
    return 0.2 * np.sign(np.random.default_rng(2).standard_normal((3, 4))).astype(np.float32)


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 3, 4)).astype(np.float32)


CROPS = np.arange(3, dtype=np.float32)[:, None, None, None]
"""Each stands for the frame of its number."""


def test_one_offset_for_all_frames_is_found_and_a_share_of_it_taken(codes, lacking) -> None:
    found = find(Valley(codes + lacking), CROPS, codes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TAKEN * lacking, atol=0.02)


def test_what_the_frames_lack_each_for_itself_cancels(codes, lacking) -> None:
    apart = np.stack([lacking, -lacking, 0.0 * lacking])
    assert np.abs(find(Valley(codes + apart), CROPS, codes)).max() < 0.05


def test_all_frames_are_looked_at_in_turn(codes, lacking) -> None:
    valley = Valley(codes + lacking)
    find(valley, CROPS, codes)
    assert valley.seen == [n % 3 for n in range(AT_ONCE * STEPS)]


def test_the_search_says_how_far_it_is_and_can_be_broken_off(codes, lacking) -> None:
    told: list[float] = []
    find(Valley(codes + lacking), CROPS, codes, told.append)
    assert told == [(step + 1) / STEPS for step in range(STEPS)]

    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        find(Valley(codes + lacking), CROPS, codes, stop)


def test_a_bundle_without_the_graph_is_refused(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match=FILE):
        likeness_of(np.zeros((1, 256, 256, 3), np.uint8), tiny, select("onnxruntime"))


def test_a_graph_that_is_another_is_refused(tiny: Bundle, tmp_path) -> None:
    (tmp_path / FILE).write_bytes(tiny.graph_path("generator").read_bytes())
    files = {**tiny.manifest.files, FILE: ""}
    other = replace(tiny, folder=tmp_path, manifest=replace(tiny.manifest, files=files))
    with pytest.raises(BundleError, match="slope"):
        likeness_of(np.zeros((1, 256, 256, 3), np.uint8), other, select("onnxruntime"))
