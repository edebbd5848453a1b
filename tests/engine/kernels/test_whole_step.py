"""A step that is taken at once: what it costs, what graphs are recorded for, and that nothing of a frame stays in one.

That it shows what one in pieces shows is in `test_imaging.py`. Nothing here runs on a card: g++ compiles the kernels,
and `remote.py` captures what is done to arrays and replays it.
"""

import cv2
import numpy as np
import pytest

from engine.errors import CardFailed
from engine.frames import CameraFrame, Controls
from engine.kernels import whole_step
from engine.policies import LostFace
from tests.engine.fakes import EMPTY, FRAME_NS, SEEN, UNSURE_OF, crop_at, face, frames, picture
from tests.engine.kernels.remote import DEVICE

SMILE = Controls({"smile": 0.9})
TWO = ((face(1, 90.0), face(2, 230.0)), ())


@pytest.fixture
def counted(kernels, monkeypatch):
    """Counts from 0; gives what was counted since the last call, captures and replays too."""

    def counts():
        found = kernels.counts | {"captures": DEVICE.captures, "replays": DEVICE.replays, "new arrays": kernels.shapes}
        kernels.counts, kernels.shapes = dict.fromkeys(kernels.counts, 0), []
        DEVICE.captures = DEVICE.replays = 0
        return found

    counts()
    return counts


def placed_face(x, y, half_side_px):
    track = face(1, x, y)
    return type(track)(**{**vars(track), "crop_from_frame": crop_at(x, y, half_side_px)})


def is_at_once(edited):
    return "card" in edited.stages_ms and "parse" not in edited.stages_ms


def test_a_steady_frame_is_one_copy_up_one_graph_and_one_copy_down(make_both, counted):
    _, session = make_both(lambda index: TWO, max_faces=2)
    for frame in frames(5):  # an anchor, then a graph for either set of the state, and one with an inversion
        session.step(frame, SMILE)
    assert counted()["captures"] == 3
    for frame in frames(8, first=5):
        assert is_at_once(session.step(frame, SMILE))
        counts = counted()
        assert (counts["captures"], counts["replays"], counts["new arrays"]) == (0, 1, [])
        # No launch but the graph's, which replays 14 kernels.
        assert (counts["uploads"], counts["downloads"], counts["waits"], counts["launches"]) == (1, 1, 1, 0)
        # The frame; of each of two faces how it moved, 3 x 32 x 32 numbers, the zone of its edit, 256 of them, where it
        # lies, and what the sliders do: 12 rows of 8 numbers.
        assert 0 < counts["bytes up"] - frame.image.nbytes - 2 * (3 * 32 * 32 + 256) * 4 < 3000
        assert counts["bytes down"] == frame.image.nbytes + 4


@pytest.mark.parametrize("variant", ["full", "whole_rate", "paper", "per_frame", "no_nm"])
def test_a_replay_knows_where_the_faces_are_now_and_what_the_sliders_say(make_both, variant):
    """Everything moves from frame to frame; a value of an earlier frame that stayed in the graph would show."""

    def look(index):
        return (placed_face(150.0 + 4 * index, 120.0 - 2 * index, 60.0 + index),), ()

    on_cpu, on_card = make_both(look, variant=variant)
    for frame in frames(9):
        controls = Controls({"smile": 0.1 * frame.index, "age": 0.9 - 0.1 * frame.index})
        shown = [session.step(frame, controls) for session in (on_cpu, on_card)]
        assert cv2.absdiff(shown[0].image, shown[1].image).max() <= 1
        assert is_at_once(shown[1]) == (frame.index > 0)


@pytest.mark.parametrize("lost_face", [LostFace.HOLD, LostFace.PASSTHROUGH])
def test_a_face_that_is_lost_and_found_keeps_its_state_while_the_other_goes_on(make_both, lost_face):
    """The held state lies in memory that steps at once would write to."""
    left, right = ((TWO[0][0],), UNSURE_OF[1]), ((TWO[0][1],), UNSURE_OF[1])
    looks = [TWO, TWO, TWO, left, left, left, TWO, TWO, right, right, TWO, TWO, TWO]
    on_cpu, on_card = make_both(looks, lost_face, max_faces=2)
    pieces = []
    for frame in frames(len(looks)):
        shown = [session.step(frame, SMILE) for session in (on_cpu, on_card)]
        assert cv2.absdiff(shown[0].image, shown[1].image).max() <= 1
        pieces.append(not is_at_once(shown[1]))
    # The anchor, the frames without one of them, and those on which it is back.
    assert [index for index, taken in enumerate(pieces) if taken] == [0, 3, 4, 5, 6, 8, 9, 10]


def test_a_step_that_fails_after_a_face_was_found_leaves_its_state_as_it_was(make_both, kernels):
    left = ((TWO[0][0],), UNSURE_OF[1])
    looks = [TWO, TWO, TWO, left, left, TWO, TWO]
    on_cpu, on_card = make_both(looks, max_faces=2)
    for frame in frames(len(looks)):
        if frame.index == 5:
            kernels.fails_in = "composite"  # the last kernel of a step
            with pytest.raises(CardFailed):
                on_card.step(frame, SMILE)
            kernels.fails_in = None
        shown = [session.step(frame, SMILE).image for session in (on_cpu, on_card)]
        assert cv2.absdiff(*shown).max() <= 1


def test_a_face_that_grows_shares_graphs_with_its_likes(make_both, counted):
    """One for each set of state, one for inversions, two for the refiner's looks; and a frame of another size begins
    anew."""

    def look(index):
        return (placed_face(160.0, 120.0, 40.0 + index),), ()

    on_cpu, on_card = make_both(look)
    counted()
    for frame in frames(40):
        shown = [session.step(frame, SMILE).image for session in (on_cpu, on_card)]
        assert cv2.absdiff(*shown).max() <= 1
    assert counted()["captures"] == 5
    for n in range(40, 46):
        frame = CameraFrame(n, n * FRAME_NS, picture(n, 500, 240))
        shown = [session.step(frame, SMILE).image for session in (on_cpu, on_card)]
        assert cv2.absdiff(*shown).max() <= 1
    assert counted()["captures"] == 3


def test_graphs_do_not_pile_up(make_both, monkeypatch, counted):
    """Every size of face needs another graph where the frame is large enough."""
    monkeypatch.setattr(whole_step, "KEPT_GRAPHS", 4)
    sizes = [100.0 * 2.0 ** (n % 5) for n in range(40)]
    _, session = make_both(lambda index: ((placed_face(900.0, 500.0, sizes[index // 2]),), ()))
    image = picture(0, 1800, 1000)
    for n in range(12):
        session.step(CameraFrame(n, n * FRAME_NS, image), SMILE)
    assert DEVICE.captures > 4
    assert len(session._editing.whole._graphs) == 4


@pytest.mark.parametrize("kernel", ["align_bgr", "composite"])
def test_a_graph_that_fails_leaves_the_session_as_it_was(make_both, kernels, kernel):
    expected, session = make_both(lambda index: SEEN)
    for frame in frames(5):
        shown = session.step(frame, SMILE)
        expected.step(frame, SMILE)
    frame = frames(1, first=5)[0]
    kernels.fails_in = kernel
    for _ in range(2):
        with pytest.raises(CardFailed, match="out of memory"):
            session.step(frame, SMILE)
        assert session.policy_frame(frame, SMILE).image is shown.image
    kernels.fails_in = None
    for frame in frames(3, first=5):
        assert cv2.absdiff(session.step(frame, SMILE).image, expected.step(frame, SMILE).image).max() <= 1


def test_networks_that_cannot_be_captured_take_the_same_step(make_both, monkeypatch, counted):
    monkeypatch.setattr(DEVICE, "capture", lambda work: None)
    on_cpu, on_card = make_both(lambda index: SEEN)
    for frame in frames(5):
        shown = [session.step(frame, SMILE) for session in (on_cpu, on_card)]
        assert cv2.absdiff(shown[0].image, shown[1].image).max() <= 1
    assert is_at_once(shown[1])
    assert counted()["captures"] == 0


def test_a_capture_that_fails_is_told_and_the_step_taken_all_the_same(make_both, monkeypatch, caplog):
    def capture(work):
        raise CardFailed("the graphics card failed: cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(DEVICE, "capture", capture)
    on_cpu, on_card = make_both(lambda index: SEEN)
    for frame in frames(6):
        shown = [session.step(frame, SMILE) for session in (on_cpu, on_card)]
        assert cv2.absdiff(shown[0].image, shown[1].image).max() <= 1
    # Once for either set of the state, and for an inversion.
    assert caplog.text.count("cannot be captured as a CUDA graph; it is launched piece by piece: the graphics") == 3


def test_a_result_stays_the_callers(make_both):
    _, session = make_both(lambda index: SEEN)
    shown = [session.step(frame, SMILE).image for frame in frames(6)]
    kept = [image.copy() for image in shown]
    session.step(frames(1, first=6)[0], SMILE)
    np.testing.assert_array_equal(shown, kept)


def test_sliders_at_rest_and_lost_faces_are_as_ever(make_both):
    looks = [SEEN, SEEN, SEEN, UNSURE_OF, SEEN, EMPTY, EMPTY, EMPTY, EMPTY, SEEN, SEEN, SEEN]
    on_cpu, on_card = make_both(looks)
    for frame in frames(len(looks)):
        controls = Controls() if frame.index == 10 else SMILE
        shown = [session.step(frame, controls) for session in (on_cpu, on_card)]
        assert shown[0].phase is shown[1].phase
        assert cv2.absdiff(shown[0].image, shown[1].image).max() <= 1


def test_a_likeness_that_is_set_in_the_middle_of_a_track_is_on_the_card_too(make_both):
    """It changes what the state lies in, so that one step is taken in pieces."""
    sessions = make_both([SEEN] * 6)
    _, without = make_both([SEEN] * 6)
    likeness = np.random.default_rng(4).normal(0.0, 2.0, (12, 8)).astype(np.float32)
    pieces = []
    for frame in frames(6):
        if frame.index == 3:
            for session in sessions:
                session.set_likeness(likeness)
        shown = [session.step(frame, SMILE) for session in (*sessions, without)]
        assert cv2.absdiff(shown[0].image, shown[1].image).max() <= 1
        pieces.append(not is_at_once(shown[1]))
    assert pieces == [True, False, False, True, False, False]
    assert cv2.absdiff(shown[1].image, shown[2].image).max() > 1
