"""A session whose pixels are the kernels' work shows what one on the CPU shows.

There is no card here: g++ compiles the kernels, and arrays that refuse to mix with NumPy's stand for CuPy's.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.errors import CardFailed
from engine.frames import CameraFrame, Controls, Phase
from tests.engine.fakes import EMPTY, FRAME_NS, SEEN, UNSURE_OF, crop_at, face, frames, picture

SMILE = Controls({"smile": 0.9})
TWO = ((face(1, 90.0), face(2, 230.0)), ())
LEFT = ((face(1, 90.0),), ())


@pytest.fixture(params=["in pieces", "at once"])
def both(request, make_both):
    """Makes two sessions for a script: one on the CPU, one whose pixels are the kernels' work."""
    return lambda *given, **more: make_both(*given, at_once=request.param == "at once", **more)


@pytest.fixture
def in_pieces(make_both):
    """The same, and no step is taken at once."""
    return lambda *given, **more: make_both(*given, at_once=False, **more)


def differences(sessions, count, shown=frames, controls=SMILE):
    """The largest difference in grey levels at every frame; both must be in the same phase."""
    found = []
    for frame in shown(count):
        on_cpu, on_card = (session.step(frame, controls) for session in sessions)
        assert on_cpu.phase is on_card.phase
        found.append(int(cv2.absdiff(on_cpu.image, on_card.image).max()))
    return found


@pytest.mark.parametrize("variant", ["full", "paper", "per_frame"])
def test_frame_by_frame_it_is_the_cpus(both, variant):
    sessions = both([SEEN] * 6, variant=variant)
    assert max(differences(sessions, 6)) <= 1
    image = sessions[1].step(frames(1, first=5)[0], SMILE).image
    assert cv2.absdiff(image, frames(1, first=5)[0].image).max() > 20


def test_what_is_taken_off_and_how_far_an_edit_is_moved_is_the_cpus(both):
    """The tiny bundle's age is moved within its crop and, below 0, takes off what the parser calls cloth."""
    sessions = both(lambda index: TWO, max_faces=2)
    for value in (-1.0, -0.1, 1.0):
        assert max(differences(sessions, 3, controls=Controls({"age": value, "smile": 0.3}))) <= 1


def test_several_faces_one_joins_one_is_lost(both):
    looks = [LEFT, TWO, TWO, (LEFT[0], UNSURE_OF[1]), TWO, TWO]
    assert max(differences(both(looks, max_faces=2), 6)) <= 1


def test_the_whole_life_of_a_face(both):
    looks = [EMPTY, EMPTY, EMPTY, EMPTY, SEEN, SEEN, UNSURE_OF, SEEN, EMPTY, EMPTY, EMPTY, EMPTY, SEEN]
    assert max(differences(both(looks), len(looks))) <= 1


def test_warming_up_takes_nothing_from_the_first_frame(both):
    sessions = both(lambda index: TWO, max_faces=2)
    sessions[1].warm_up()
    assert max(differences(sessions, 2)) <= 1


@pytest.mark.parametrize("size", [(64, 48), (33, 200), (1280, 720)])
@pytest.mark.parametrize("half_side_px", [20.0, 90.0, 400.0])
def test_any_size_of_frame_and_face(both, size, half_side_px):
    """Crops of the very picture, so that faces reach over every edge.

    Where the parser's margin is as good as 0, a level in the crop tells on which side of the mask's edge a pixel lies.
    """
    track = face(1, size[0] * 0.4, size[1] * 0.6)
    track = type(track)(**{**vars(track), "crop_from_frame": crop_at(size[0] * 0.4, size[1] * 0.6, half_side_px)})

    def shown(count):
        return [CameraFrame(n, n * FRAME_NS, picture(n, *size)) for n in range(count)]

    sessions = both([((track,), ())] * 2)
    for frame in shown(2):
        on_cpu, on_card = (session.step(frame, SMILE).image for session in sessions)
        assert (cv2.absdiff(on_cpu, on_card) > 1).mean() < 5e-4


def test_another_frame_size_and_a_view(both):
    sessions = both(lambda index: SEEN)
    whole = picture(1, 500, 400)
    images = [whole, whole[::-1], whole[:300, :320], whole[:, ::-1, ::-1], whole]
    for n, image in enumerate(images):
        before = image.copy()
        shown = [session.step(CameraFrame(n, n * FRAME_NS, image), SMILE).image for session in sessions]
        assert cv2.absdiff(*shown).max() <= 1
        np.testing.assert_array_equal(image, before)


def test_a_result_is_the_callers(both):
    _, session = both(lambda index: SEEN)
    first = session.step(frames(1)[0], SMILE).image
    kept = first.copy()
    session.step(frames(1, first=1)[0], SMILE)
    np.testing.assert_array_equal(first, kept)


def test_the_frame_crosses_once_up_and_once_down(in_pieces, kernels):
    _, session = in_pieces(lambda index: TWO, max_faces=2)
    for frame in frames(3):
        session.step(frame, SMILE)
    kernels.counts = dict.fromkeys(kernels.counts, 0)
    frame = frames(1, first=3)[0]
    session.step(frame, SMILE)
    counts = kernels.counts
    assert counts["bytes down"] == frame.image.nbytes
    assert 0 < counts["bytes up"] - frame.image.nbytes < 1000  # and where the faces lie
    # Faces make no more launches: align, 2 that hold steady, 8 for what is given back, 8 for masks, 10 for what is laid
    # bare, 7 for the blend.
    assert (counts["uploads"], counts["launches"]) == (3, 36)
    assert counts["waits"] == 2


def test_no_memory_of_a_size_that_follows_the_frame_is_asked_for_again(in_pieces, kernels):
    """Buffers of the frame are made for its size once; the loop's own arrays are all that is asked for later."""
    _, session = in_pieces(lambda index: SEEN)
    for frame in frames(2):
        session.step(frame, SMILE)
    kernels.shapes.clear()
    session.step(frames(1, first=2)[0], SMILE)
    assert sorted(kernels.shapes) == [(1, 3, 256, 256)] * 5 + [(1, 256, 256)]


def test_a_neutral_frame_does_not_go_there(both, kernels):
    _, session = both([SEEN])
    kernels.counts = dict.fromkeys(kernels.counts, 0)
    frame = frames(1)[0]
    assert session.step(frame, Controls()).image is frame.image
    assert not any(kernels.counts.values())


@pytest.mark.parametrize("kernel", ["align_bgr", "give_back", "unite", "composite"])
def test_a_card_that_fails_leaves_the_session_as_it_was(both, kernels, kernel):
    expected, session = both(lambda index: SEEN)
    for frame in frames(2):
        shown = session.step(frame, SMILE)
        expected.step(frame, SMILE)
    kernels.fails_in = kernel
    frame = frames(1, first=2)[0]
    with pytest.raises(CardFailed, match="out of memory"):
        session.step(frame, SMILE)
    safe = session.policy_frame(frame, SMILE)
    assert safe.image is shown.image
    assert safe.phase is Phase.HOLDING
    kernels.fails_in = None
    assert cv2.absdiff(session.step(frame, SMILE).image, expected.step(frame, SMILE).image).max() <= 1


class Overflowing:
    """A recurrent encoder that gives a value that is no number while `now` is set, but not on a track's first frame."""

    def __init__(self, network):
        self.network, self.spec, self.now = network, network.spec, False

    def __call__(self, **arrays):
        answer = dict(self.network(**arrays))
        if self.now and (arrays["crop_prev"] != arrays["crop"]).any():
            answer["noise"] = answer["noise"].copy()
            answer["noise"].flat[0] = np.nan
        return answer


@pytest.mark.parametrize("at", [2, 6])
def test_numbers_that_are_not_finite_are_not_carried_on(both, tiny_networks, at):
    """Their frame takes a new anchor, as a session does that was begun there."""
    clean, _ = both([SEEN] * (at + 4))
    recurrent = Overflowing(tiny_networks.recurrent)
    _, overflowed = both([SEEN] * (at + 4), networks=replace(tiny_networks, recurrent=recurrent))
    for frame in frames(at):
        clean.step(frame, SMILE), overflowed.step(frame, SMILE)
    clean.reset()
    for frame in frames(4, first=at):
        recurrent.now = frame.index == at
        shown = [session.step(frame, SMILE).image for session in (clean, overflowed)]
        assert cv2.absdiff(*shown).max() <= 1
