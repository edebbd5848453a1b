"""A session on tiny networks and a tracker that follows a script."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from engine.compositing import Patch, blend
from engine.errors import BundleError, NotFinite, UnknownAttribute, UsageError
from engine.faces import exposed
from engine.frames import CameraFrame, Controls, Phase
from engine.policies import LostFace, blurred
from engine.recurrence import Switches
from engine.session import Session, Settings
from engine.state import HOLD_NS, shown_values
from engine.tracking import SEARCH_INTERVAL_NS
from tests.engine.fakes import (
    EMPTY,
    FRAME_NS,
    FULL_STRENGTH,
    SEEN,
    UNSURE_OF,
    ScriptedTracker,
    crop_at,
    detection,
    face,
    frames,
    overflowing,
    picture,
)

SMILE, NEUTRAL = Controls({"smile": 0.9}), Controls()
S, A, T, H = Phase.SEARCHING, Phase.ANCHORING, Phase.TRACKING, Phase.HOLDING


@pytest.fixture
def open_session(tiny, tiny_networks):
    """Make a session for a script; the script is one look a frame, or a function of the frame's index."""

    def make(looks, lost_face=LostFace.HOLD, max_faces=1, **settings):
        tracker = ScriptedTracker(looks)
        session = Session(
            tiny_networks,
            tracker,
            tiny.directions,
            tiny.manifest.parser,
            Settings(lost_face, max_faces, **settings),
        )
        session.tracker = tracker
        return session

    return make


def play(session, count, controls=SMILE, first=0):
    """The results for so many frames."""
    choose = controls if callable(controls) else lambda index: controls
    return [session.step(frame, choose(frame.index)) for frame in frames(count, first)]


def kinds(results, first=0):
    """What each image is: the frame itself, a copy of the frame before it, a blur of it, grey, or edited."""
    names, last = [], None
    for frame, result in zip(frames(len(results), first), results, strict=True):
        image = result.image
        if np.array_equal(image, frame.image):
            names.append("frame")
        elif last is not None and image is last:
            names.append("held")
        elif np.array_equal(image, blurred(frame.image)):
            names.append("blurred")
        elif np.ptp(image) == 0:
            names.append("blank")
        else:
            names.append("edited")
            last = image
    return names


def test_an_edit_changes_the_face_and_nothing_outside_it(open_session):
    (result,) = play(open_session([SEEN]), 1)
    frame = frames(1)[0]
    x0, y0, x1, y1 = 90, 50, 231, 191
    inside = np.zeros(frame.image.shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(result.image[~inside], frame.image[~inside])
    assert np.abs(result.image[120, 160].astype(int) - frame.image[120, 160]).max() > 3
    assert (result.index, result.captured_ns) == (frame.index, frame.captured_ns)
    assert frame.image is not result.image


class ClothOnAFace:
    """A parser that sees skin and, asked about a crop alone, before its edit is drawn, cloth all over it."""

    def __init__(self, spec):
        self.spec = spec

    def __call__(self, crop):
        logits = np.zeros((len(crop), 3, 128, 128), np.float32)
        logits[:, 1] = 3.0
        logits[:, 2] = 9.0 if len(crop) == 1 else 0.0
        return {"logits": logits}


def test_below_0_a_slider_takes_off_what_the_parser_sees(tiny, tiny_networks):
    """Of the tiny bundle's age, that is cloth."""
    networks = replace(tiny_networks, parser=ClothOnAFace(tiny_networks.parser.spec))

    def shown(value):
        session = Session(networks, ScriptedTracker([SEEN] * 3), tiny.directions, tiny.manifest.parser)
        return play(session, 3, Controls({"age": value, "smile": 0.2}))[-1]

    kept, off = shown(0.0), shown(-0.3)
    assert "worn" in off.stages_ms
    assert np.abs(off.image.astype(int) - kept.image).max() > 20
    assert "worn" not in kept.stages_ms
    assert "worn" not in shown(0.3).stages_ms


def test_every_stage_is_timed(open_session):
    results = play(open_session([SEEN, SEEN]), 2)
    stages = "track motion align encode recur generate steady restore parse blend total".split()
    assert list(results[1].stages_ms) == stages
    parts = sum(ms for name, ms in results[1].stages_ms.items() if name != "total")
    assert 0 < parts <= results[1].stages_ms["total"]
    assert list(play(open_session([SEEN]), 1, NEUTRAL)[0].stages_ms) == ["track", "total"]


@pytest.mark.parametrize("controls", [NEUTRAL, Controls({"smile": 0.0, "age": 0.0})])
@pytest.mark.parametrize("policy", LostFace)
def test_neutral_gives_the_very_frame(open_session, policy, controls):
    session = open_session([SEEN, EMPTY, UNSURE_OF, SEEN], policy)
    for frame in frames(4):
        assert session.step(frame, controls).image is frame.image


def test_phases_of_a_life(open_session):
    looks = [UNSURE_OF, SEEN, SEEN, UNSURE_OF, SEEN, EMPTY, EMPTY, EMPTY, EMPTY, SEEN]
    assert [result.phase for result in play(open_session(looks), len(looks))] == [S, A, T, H, T, H, H, S, S, A]


def test_single_steps_are_the_same_after_a_reset(open_session):
    session = open_session([SEEN] * 4)
    first = play(session, 4)
    session.reset()
    for before, again in zip(first, play(session, 4), strict=True):
        np.testing.assert_array_equal(before.image, again.image)
    for before, fresh in zip(first, play(open_session([SEEN] * 4), 4), strict=True):
        np.testing.assert_array_equal(before.image, fresh.image)


def test_a_new_track_is_edited_at_full_strength_and_sliders_are_ramped(open_session):
    session = open_session([SEEN] * 9)
    shown = []
    for frame, value in zip(frames(9), [0.9, 0.9, 0.3, 0.3, 0.3, 0.0, 0.6, 0.6, 0.6], strict=True):
        session.step(frame, Controls({"smile": value}))
        shown.append(shown_values(session._faces[0].track.ramp).get("smile", 0.0))
    assert shown == pytest.approx([0.9, 0.9, 0.7, 0.5, 0.3, 0.0, 0.2, 0.4, 0.6])


def test_after_neutral_the_edit_takes_a_new_anchor(open_session, tiny_networks):
    calls = []
    session = open_session([SEEN] * 6)
    session._editing = replace(session._editing, networks=counted(tiny_networks, calls))
    results = play(session, 6, lambda index: SMILE if index not in (2, 3) else NEUTRAL)
    assert [result.phase for result in results] == [A, T, T, T, A, T]
    assert calls == ["encoder_anchor", "encoder", "encoder_anchor", "encoder"]


def counted(networks, calls):
    """The networks, with the encoders' calls written down."""
    from dataclasses import replace

    class Encoder:
        def __init__(self, name):
            self._network, self._name = getattr(networks, name), name

        def __call__(self, **arrays):
            calls.append(self._name)
            return self._network(**arrays)

    return replace(networks, encoder=Encoder("encoder"), encoder_anchor=Encoder("encoder_anchor"))


class TestLostFace:
    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            (LostFace.HOLD, ["edited", "held", "held", "edited"]),
            (LostFace.FREEZE, ["edited", "held", "held", "edited"]),
            (LostFace.BLANK, ["edited", "blank", "blank", "edited"]),
            (LostFace.PASSTHROUGH, ["edited", "frame", "frame", "edited"]),
        ],
    )
    def test_lost_and_found(self, open_session, policy, expected):
        session = open_session([SEEN, UNSURE_OF, UNSURE_OF, SEEN], policy)
        assert kinds(play(session, 4)) == expected

    def test_another_policy_is_in_force_from_the_next_frame_on(self, open_session):
        session = open_session([SEEN, UNSURE_OF, UNSURE_OF, SEEN])
        first = play(session, 2)
        session.set_lost_face("blank")
        assert kinds(first + play(session, 2, first=2)) == ["edited", "held", "blank", "edited"]
        assert session.settings.lost_face is LostFace.BLANK
        with pytest.raises(UsageError, match="hold, freeze"):
            session.set_lost_face("wave")

    @pytest.mark.parametrize(("policy", "later"), [(LostFace.HOLD, "blurred"), (LostFace.FREEZE, "held")])
    def test_after_a_second(self, open_session, policy, later):
        session = open_session(lambda index: SEEN if index == 0 else UNSURE_OF, policy)
        names = kinds(play(session, 30))
        held = HOLD_NS // FRAME_NS
        assert names == ["edited", *["held"] * held, *[later] * (29 - held)]

    def test_surely_gone_after_three_clear_frames_in_a_row(self, open_session):
        looks = [SEEN, EMPTY, EMPTY, UNSURE_OF, EMPTY, EMPTY, EMPTY, EMPTY]
        results = play(open_session(looks), len(looks))
        assert kinds(results) == ["edited", "held", "held", "held", "held", "held", "frame", "frame"]
        assert [result.phase for result in results] == [A, H, H, H, H, H, S, S]

    def test_start_up_without_a_face_shows_nothing_at_first(self, open_session):
        looks = [EMPTY] * 4
        assert kinds(play(open_session(looks), 4)) == ["blurred", "blurred", "frame", "frame"]

    def test_start_up_with_a_face_that_cannot_be_tracked(self, open_session):
        assert kinds(play(open_session([UNSURE_OF] * 4), 4)) == ["blurred"] * 4

    def test_a_doubtful_face_in_an_empty_room_brings_the_last_clear_frame_back(self, open_session):
        looks = [EMPTY, EMPTY, EMPTY, UNSURE_OF, EMPTY, EMPTY, EMPTY]
        results = play(open_session(looks), 7)
        assert kinds(results)[:3] == ["blurred", "blurred", "frame"]
        assert [results[n].image is results[2].image for n in (3, 4, 5, 6)] == [True, True, True, False]
        assert kinds(results)[6] == "frame"

    def test_what_was_shown_unedited_is_never_held(self, open_session):
        session = open_session([SEEN, SEEN, UNSURE_OF])
        results = play(session, 3, lambda index: NEUTRAL if index == 1 else SMILE)
        assert kinds(results) == ["edited", "frame", "blurred"]

    def test_a_cut_to_another_face_is_edited_at_once(self, open_session):
        looks = [SEEN, ((face(2, 220.0, 130.0),), ()), ((face(2, 220.0, 130.0),), ())]
        results = play(open_session(looks), 3)
        assert [result.phase for result in results] == [A, A, T]
        assert kinds(results) == ["edited"] * 3

    def test_an_anchor_does_not_outlive_its_face_for_long(self, open_session):
        gone_for = HOLD_NS // FRAME_NS
        for missing, phase in ((gone_for, T), (gone_for + 3, A)):
            session = open_session(lambda index, missing=missing: UNSURE_OF if 1 <= index <= missing else SEEN)
            assert play(session, missing + 2)[-1].phase is phase

    def test_the_tracker_is_told_of_the_lost_face(self, open_session):
        session = open_session([SEEN, UNSURE_OF, SEEN])
        play(session, 3)
        assert session.tracker.known == [(), (1,), (1,)]

    def test_a_larger_face_takes_the_slot_of_a_passer_by(self, open_session):
        passer_by, user = face(1, 60.0, size_px=30.0), face(2, 200.0, size_px=60.0)
        both = ((passer_by, user), (detection(60.0, score=FULL_STRENGTH), detection(200.0, score=FULL_STRENGTH)))
        session = open_session(lambda index: ((passer_by,), ()) if index == 0 else both)
        results = play(session, 2 + SEARCH_INTERVAL_NS // FRAME_NS)
        original = frames(1, first=len(results) - 1)[0].image
        assert results[-1].phase is A
        assert np.abs(results[-1].image[120, 200].astype(int) - original[120, 200]).max() > 3
        assert session.tracker.second_looks == 1

    def test_faces_of_like_size_do_not_take_turns(self, open_session):
        both = ((face(1, 60.0), face(2, 200.0)), (detection(60.0, score=0.9), detection(200.0, score=0.9)))
        session = open_session(lambda index: both)
        play(session, 30)
        assert set(session.tracker.known[1:]) == {(1,)}

    def test_no_second_look_while_the_face_was_just_found(self, open_session):
        session = open_session([SEEN] * 3)
        play(session, 3)
        assert session.tracker.second_looks == 0


class TestSeveralFaces:
    BOTH = ((face(1, 90.0), face(2, 230.0)), ())

    def test_both_are_edited(self, open_session):
        (result,) = play(open_session([self.BOTH], max_faces=2), 1)
        original = frames(1)[0].image
        for x in (90, 230):
            assert np.abs(result.image[120, x].astype(int) - original[120, x]).max() > 3

    def test_together_as_alone(self, open_session):
        together = play(open_session([self.BOTH] * 3, max_faces=2), 3)
        left = play(open_session([((face(1, 90.0),), ())] * 3), 3)
        np.testing.assert_allclose(together[2].image[:, :160].astype(int), left[2].image[:, :160], atol=1)

    def test_one_joins_later(self, open_session):
        looks = [((face(1, 90.0),), ()), self.BOTH, self.BOTH]
        results = play(open_session(looks, max_faces=2), 3)
        assert kinds(results) == ["edited"] * 3
        original = frames(3)[1].image
        assert np.abs(results[1].image[120, 230].astype(int) - original[120, 230]).max() > 3

    def test_one_lost_holds_the_frame(self, open_session):
        alone = (face(1, 90.0),)
        looks = [self.BOTH, (alone, (detection(90.0), detection(230.0))), *[(alone, (detection(90.0),))] * 3]
        results = play(open_session(looks, max_faces=2), 5)
        assert kinds(results) == ["edited", "held", "held", "held", "edited"]

    def test_one_face_needs_one_slot_only(self, open_session):
        assert kinds(play(open_session([SEEN] * 3, max_faces=2), 3)) == ["edited"] * 3


def test_another_frame_size_starts_over(open_session):
    session = open_session(lambda index: SEEN if index != 2 else UNSURE_OF)
    play(session, 1)
    small = CameraFrame(1, FRAME_NS, picture(0, 200, 220))
    assert session.step(small, SMILE).phase is A
    assert session.tracker.known == [(), ()]
    lost = CameraFrame(2, 2 * FRAME_NS, picture(0, 300, 200))
    np.testing.assert_array_equal(session.step(lost, SMILE).image, blurred(lost.image))


@pytest.mark.parametrize("size", [(64, 64), (33, 500), (3840, 2160)])
def test_frames_of_any_size(open_session, size):
    frame = CameraFrame(0, 0, np.tile(picture(), (9, 12, 1))[: size[1], : size[0]])
    result = open_session([((face(1, size[0] / 2, size[1] / 2),), ())]).step(frame, SMILE)
    assert result.image.shape == frame.image.shape
    assert not np.array_equal(result.image, frame.image)


def test_a_failed_step_changes_nothing_and_the_policy_is_at_hand(open_session):
    session = open_session([SEEN] * 4)
    (shown,) = play(session, 1)
    before, track = session._faces, session.tracker.track
    frame = frames(1, first=1)[0]

    def fail(*arguments):
        raise RuntimeError("the driver is gone")

    session.tracker.track = fail
    with pytest.raises(RuntimeError, match="driver"):
        session.step(frame, SMILE)
    assert session._faces is before
    safe = session.policy_frame(frame, SMILE)
    assert safe.image is shown.image
    assert (safe.phase, safe.index) == (H, 1)
    assert session.policy_frame(frame, NEUTRAL).image is frame.image
    session.tracker.track = track
    assert session.step(frame, SMILE).phase is T


@pytest.mark.parametrize("output", ["noise", "h_out", "c_out"])
def test_numbers_that_are_not_finite_are_not_carried_on(open_session, tiny_networks, output):
    """The very frame takes a new anchor, as if the face had been seen for the first time."""
    expected = play(open_session([SEEN] * 9), 2)
    fresh = open_session([SEEN] * 9)
    expected += play(fresh, 3, first=2)
    session = open_session([SEEN] * 9)
    # Two calls prime the first frame; the third is the second frame's, the fourth the third's.
    session._editing = replace(session._editing, networks=overflowing(tiny_networks, {3}, output))
    for result, wanted in zip(play(session, 5), expected, strict=True):
        np.testing.assert_array_equal(result.image, wanted.image)


def test_a_face_that_is_never_finite_is_an_error_and_changes_nothing(open_session, tiny_networks):
    session = open_session([SEEN] * 4)
    (shown,) = play(session, 1)
    before = session._faces
    session._editing = replace(session._editing, networks=overflowing(tiny_networks, range(99)))
    frame = frames(1, first=1)[0]
    with pytest.raises(NotFinite, match="--precision fp32"):
        session.step(frame, SMILE)
    assert session._faces is before
    assert session.policy_frame(frame, SMILE).image is shown.image


def test_frames_finished_in_another_thread_while_the_next_are_begun_are_the_same(open_session):
    """The look that holds, the fourth, needs a frame that nobody has finished yet."""
    looks = [SEEN, SEEN, SEEN, UNSURE_OF, SEEN, EMPTY]
    expected = play(open_session(looks), len(looks))
    session = open_session(looks)
    finishes = [session.begin(frame, SMILE) for frame in frames(len(looks))]
    with ThreadPoolExecutor(2) as pool:
        finished = list(pool.map(lambda finish: finish(), reversed(finishes)))[::-1]
    assert finished[3].image is finished[2].image
    for early, late in zip(expected, finished, strict=True):
        np.testing.assert_array_equal(early.image, late.image)
        assert (early.index, early.phase) == (late.index, late.phase)


def test_frames_that_were_expected_come_out_the_same_and_are_tracked_once(open_session):
    looks = [SEEN, SEEN, SEEN, UNSURE_OF, SEEN, SEEN, EMPTY]
    expected = play(open_session(looks), len(looks))
    session, results = open_session(looks), []
    film = frames(len(looks))
    for frame, following in zip(film, (*film[1:], film[-1]), strict=True):
        finish = session.begin(frame, SMILE)
        session.expect(following)
        results.append(finish())
    for usual, told in zip(expected, results, strict=True):
        np.testing.assert_array_equal(usual.image, told.image)
        assert usual.phase == told.phase
    assert len(session.tracker.known) == len(looks)


def test_a_frame_that_cannot_be_finished_is_not_held_and_the_session_goes_on(open_session, tiny_networks):
    session = open_session([SEEN, SEEN, UNSURE_OF, SEEN])
    first, second, third, fourth = frames(4)
    session.begin(first, SMILE)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.imaging.paste", lambda *_: 1 / 0)
        finish = session.begin(second, SMILE)
        with pytest.raises(ZeroDivisionError):
            finish()
    np.testing.assert_array_equal(session.policy_frame(second, SMILE).image, blurred(second.image))
    np.testing.assert_array_equal(session.begin(third, SMILE)().image, blurred(third.image))
    assert kinds([session.step(fourth, SMILE)]) == ["edited"]


def test_before_any_frame_the_policy_blurs(open_session):
    frame = frames(1)[0]
    np.testing.assert_array_equal(open_session([]).policy_frame(frame, SMILE).image, blurred(frame.image))


def test_frames_are_never_written_to(open_session):
    session = open_session([SEEN, SEEN, UNSURE_OF, EMPTY])
    for frame in frames(4):
        frame.image.flags.writeable = False
        before = frame.image.copy()
        session.step(frame, SMILE)
        np.testing.assert_array_equal(frame.image, before)


def test_an_unknown_attribute_is_refused_by_name(open_session):
    with pytest.raises(UnknownAttribute, match=r"'wings'.*age, smile"):
        play(open_session([SEEN]), 1, Controls({"wings": 0.5}))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("lost_face", "wave", "hold, freeze"), ("variant", "no_such", "per_frame"), ("max_faces", 0, "max_faces")],
)
def test_open_refuses_what_does_not_exist(option, value, message):
    with pytest.raises(UsageError, match=message):
        Session.open(**{option: value})


def test_an_open_session_says_what_it_runs_on(tiny_folder):
    with Session.open(tiny_folder, runtime="onnxruntime", precision="fp32") as session:
        assert re.fullmatch(r"onnxruntime .* on cpu .* in fp32.*", session.runtime)


def test_open_refuses_a_damaged_bundle(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "damaged")
    path = folder / "recurrent.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BundleError, match=r"recurrent\.onnx"):
        Session.open(folder)


def test_attributes_have_labels_and_ranges(open_session):
    attributes = open_session([]).attributes
    assert list(attributes) == ["age", "smile"]
    assert (attributes["age"].label, attributes["age"].lo, attributes["age"].hi) == ("Age", -1.0, 2.0)


def test_nothing_exposed_is_ever_shown(open_session):
    """Whatever the tracker does, a frame goes out untouched only when nobody can be in it."""
    rng = np.random.default_rng(0)
    looks = [(SEEN, UNSURE_OF, EMPTY)[n] for n in rng.choice(3, 80, p=[0.3, 0.3, 0.4])]
    session = open_session(looks)
    clear = 0
    for frame, look in zip(frames(80), looks, strict=True):
        clear = clear + 1 if look is EMPTY else 0
        untouched = np.array_equal(session.step(frame, SMILE).image, frame.image)
        assert untouched == (clear >= 3)
        assert exposed(session._faces) == (look is not SEEN and clear < 3)


def test_blend_is_what_a_session_shows(open_session):
    """The image is the loop's edit through the mask at the track's crop, nothing else where the edit paints anew."""
    session = open_session([SEEN], switches=Switches(surrounded=False))
    (result,) = play(session, 1)
    edit = session._faces[0].recurrent.edit[0]
    painted = blend(frames(1)[0].image, [Patch(edit, np.ones((256, 256), np.float32), crop_at(160, 120))])
    np.testing.assert_array_equal(result.image[115:125, 155:165], painted[115:125, 155:165])
