"""The tracker on real faces: steadiness, lag, alignment, identities, and the frames that cameras really send."""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.detection import FaceDetector, box_iou
from engine.frames import ImageU8
from engine.geometry import align, crop_corners_px, invert_affine, transform_points
from engine.landmarks import EYE_CORNER_LEFT, EYE_CORNER_RIGHT, FaceMesh
from engine.tracking import SEARCH_INTERVAL_NS, FaceTrack, Tracker
from tests.engine.moving_photographs import clip_frames, noisy, photograph_frame, placed, through_h264

FPS = 30
PHOTOGRAPHS = ("00000.jpg", "00150.jpg", "00450.jpg")
GRID = ("grid_bbaf2n.mpg", "grid_brbk7n.mpg", "grid_lwbsza.mpg", "grid_swiz3n.mpg")


@pytest.fixture(scope="session")
def tracker() -> Tracker:
    return Tracker.open()


@pytest.fixture(scope="session")
def photographs(clips: Path) -> Path:
    return clips.parent / "faces" / "ffhq256"


def read(path: Path) -> ImageU8:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def follow(tracker: Tracker, frames: list[ImageU8], wanted: int = 1) -> list[tuple[FaceTrack, ...]]:
    history: list[tuple[FaceTrack, ...]] = []
    for n, frame in enumerate(frames):
        before = history[-1] if history else ()
        history.append(tracker.track(before, frame, n * 1_000_000_000 // FPS, wanted))
    return history


def corner_rms_px(history: list[tuple[FaceTrack, ...]]) -> float:
    """Root mean square distance of the crop's corners from their mean places, in crop pixels."""
    reference = history[len(history) // 2][0].crop_from_frame
    corners = np.array([transform_points(reference, crop_corners_px(face.crop_from_frame)) for (face,) in history])
    return float(np.sqrt(((corners - corners.mean(axis=0)) ** 2).sum(axis=-1).mean()))


def lag_frames(truth: np.ndarray, followed: np.ndarray) -> float:
    """By how many frames `followed` comes after `truth`: where their cross-correlation is largest."""
    frames = np.arange(len(truth))
    inner = np.arange(4.0, len(truth) - 5.0, 0.02)
    lags = np.arange(-3.0, 3.01, 0.02)
    expected = np.interp(inner, frames, truth)
    matches = [np.corrcoef(expected, np.interp(inner + lag, frames, followed))[0, 1] for lag in lags]
    return float(lags[int(np.argmax(matches))])


def triangle(speed: float, amplitude: float, count: int) -> np.ndarray:
    """A signal that runs to and fro between +-amplitude at a constant speed per second."""
    phase = 0.5 * np.pi * speed * np.arange(count) / FPS / amplitude
    return amplitude * 2.0 / np.pi * np.arcsin(np.sin(phase))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_still_photograph_stands_still(tracker: Tracker, photographs: Path, name: str):
    still = photograph_frame(read(photographs / name), placed(320, 180, 110), (640, 360))
    history = follow(tracker, through_h264(noisy([still] * 150)))
    assert all(len(faces) == 1 for faces in history)
    assert corner_rms_px(history) < 0.3


@pytest.mark.parametrize("motion", ["roll", "shift"])
def test_a_moving_photograph_is_followed_within_a_frame(tracker: Tracker, photographs: Path, motion: str):
    """20 degrees a second of roll; 200 pixels a second of shift."""
    truth = triangle(20.0, 15.0, 120) if motion == "roll" else triangle(200.0, 150.0, 120)
    photograph = read(photographs / "00000.jpg")
    places = [placed(320, 180, 90, v) if motion == "roll" else placed(320 + v, 180, 90) for v in truth]
    history = follow(tracker, through_h264(noisy([photograph_frame(photograph, at, (640, 360)) for at in places])))
    assert all(len(faces) == 1 for faces in history)
    assert len({face.track_id for (face,) in history}) == 1
    frame_from_crop = np.array([invert_affine(face.crop_from_frame) for (face,) in history])
    angles = np.rad2deg(np.arctan2(frame_from_crop[:, 1, 0], frame_from_crop[:, 0, 0]))
    centres = (frame_from_crop @ [127.5, 127.5, 1.0])[:, 0]
    followed = angles if motion == "roll" else centres
    assert -0.5 < lag_frames(truth, followed) < 1.0
    assert np.ptp(followed) > 0.8 * np.ptp(truth)


def test_the_crop_of_an_ffhq_image_is_that_image(tracker: Tracker, photographs: Path):
    """Without bias; one image's corners scatter, since FFHQ was aligned by another landmark detector."""
    target = crop_corners_px(np.eye(2, 3))
    errors = []
    for path in sorted(photographs.glob("*.jpg"))[:100]:
        faces = tracker.track((), read(path), 0, 1)
        if faces:
            errors.append(crop_corners_px(faces[0].crop_from_frame) - target)
    assert len(errors) >= 97
    assert np.abs(np.median(errors, axis=0)).max() < 2.0
    assert np.linalg.norm(errors, axis=-1).mean() < 7.0


def test_faces_keep_their_identities(tracker: Tracker, clips: Path):
    name = "intel_face-demographics-walking-and-pause.gif"
    history = follow(tracker, clip_frames(clips / name, 41), wanted=3)
    assert [len(faces) for faces in history] == [3] * 41
    for before, after in itertools.pairwise(history):
        assert [face.track_id for face in after] == [face.track_id for face in before]
        for old, new in zip(before, after, strict=True):
            moved = np.abs(np.array(new.box_px) - old.box_px).max()
            assert moved < 0.5 * (old.box_px[2] - old.box_px[0])


def test_the_largest_face_is_followed_when_one_is_wanted(tracker: Tracker, photographs: Path):
    small = photograph_frame(read(photographs / "00000.jpg"), placed(150, 180, 60), (320, 360))
    large = photograph_frame(read(photographs / "00300.jpg"), placed(160, 180, 130), (320, 360))
    for frame, first_x in ((np.hstack([small, large]), 320), (np.hstack([large, small]), 0)):
        assert len(tracker.track((), frame, 0, 2)) == 2
        (one,) = tracker.track((), frame, 0, 1)
        assert first_x < one.box_px[0] < one.box_px[2] < first_x + 320


def test_a_cut_to_another_person_is_another_identity(tracker: Tracker, clips: Path):
    """One studio, one framing: the hardest cuts there are."""
    people = [clip_frames(clips / name, 4, first=20) for name in GRID]
    for first in people:
        for second in people:
            if first is second:
                continue
            history = follow(tracker, first + second)
            assert [len(faces) for faces in history] == [1] * 8
            ids = [faces[0].track_id for faces in history]
            assert len(set(ids[:4])) == 1
            assert ids[4] > ids[3]
            assert len(set(ids[4:])) == 1


def test_a_face_that_goes_is_absent_and_one_that_comes_is_found(tracker: Tracker, clips: Path):
    frame = clip_frames(clips / GRID[0], 1)[0]
    empty = np.full_like(frame, 90)
    history = follow(tracker, [frame, frame, empty, frame])
    assert [len(faces) for faces in history] == [1, 1, 0, 1]
    assert history[3][0].track_id > history[1][0].track_id


def test_tracking_is_a_function_of_its_arguments(tracker: Tracker, clips: Path):
    frames = clip_frames(clips / GRID[0], 6)
    once = follow(tracker, frames)
    follow(tracker, clip_frames(clips / GRID[1], 3))
    again = tracker.track(once[4], frames[5], 5 * 1_000_000_000 // FPS, 1)
    np.testing.assert_array_equal(again[0].crop_from_frame, once[5][0].crop_from_frame)
    np.testing.assert_array_equal(again[0].landmarks_px, once[5][0].landmarks_px)


def test_the_detector_runs_only_when_it_may_find_something(
    tracker: Tracker, clips: Path, monkeypatch: pytest.MonkeyPatch
):
    searched: list[int] = []
    detect = tracker._detector.detect
    monkeypatch.setattr(tracker._detector, "detect", lambda *given: (searched.append(1), detect(*given))[1])
    frame = clip_frames(clips / GRID[0], 1)[0]
    follow(tracker, [frame] * 20, wanted=1)
    assert len(searched) == 1
    searched.clear()
    follow(tracker, [frame] * 46, wanted=2)
    assert len(searched) == 1 + 45 * 1_000_000_000 // FPS // SEARCH_INTERVAL_NS
    searched.clear()
    follow(tracker, [np.zeros_like(frame)] * 5)
    assert len(searched) == 5


def test_a_new_frame_size_drops_the_tracks_and_finds_the_face_again(tracker: Tracker, clips: Path):
    frame = clip_frames(clips / GRID[0], 1)[0]
    larger = cv2.resize(frame, None, fx=1.5, fy=1.5)
    history = follow(tracker, [frame, frame, larger, larger])
    ids = [faces[0].track_id for faces in history]
    assert ids[0] == ids[1] < ids[2] == ids[3]
    assert history[3][0].frame_size == (larger.shape[1], larger.shape[0])
    np.testing.assert_allclose(history[2][0].box_px, 1.5 * np.array(history[1][0].box_px), atol=12)


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (3840, 2160), (360, 1280)])
def test_frames_of_any_size(tracker: Tracker, photographs: Path, size: tuple[int, int]):
    photograph = read(photographs / "00000.jpg")
    half_side = 0.45 * min(size)
    frame = photograph_frame(photograph, placed(size[0] / 2, size[1] / 2, half_side), size)
    history = follow(tracker, [frame] * 3)
    assert [len(faces) for faces in history] == [1, 1, 1]
    crop = align(frame, history[2][0].crop_from_frame)
    if min(size) > 300:
        assert np.abs(crop.astype(float) - photograph)[32:-32, 32:-32].mean() < 25.0


def test_grey_content(tracker: Tracker, clips: Path):
    frame = clip_frames(clips / GRID[0], 1)[0]
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert len(follow(tracker, [grey] * 3)[-1]) == 1


@pytest.mark.parametrize("shown", [0.75, 0.6])
def test_a_face_half_outside_is_still_followed(tracker: Tracker, photographs: Path, shown: float):
    """It walks out over the left edge until `shown` of its photograph is left."""
    photograph = read(photographs / "00000.jpg")
    end = 2.0 * 100.0 * shown - 100.0
    places = np.linspace(140.0, end, 30)
    history = follow(tracker, [photograph_frame(photograph, placed(x, 180, 100), (640, 360)) for x in places])
    assert all(len(faces) == 1 for faces in history)
    centre = transform_points(invert_affine(history[-1][0].crop_from_frame), np.array([[127.5, 127.5]]))[0]
    assert abs(centre[0] - end) < 15.0


@pytest.mark.parametrize("size", [(64, 64), (640, 360), (1, 1), (2, 500)])
def test_nothing_is_found_in_nothing(tracker: Tracker, size: tuple[int, int]):
    rng = np.random.default_rng(0)
    for frame in (np.zeros((size[1], size[0], 3), np.uint8), rng.integers(0, 256, (size[1], size[0], 3), np.uint8)):
        assert tracker.track((), frame, 0, 3) == ()


@pytest.mark.parametrize(
    "name", ["pyfeat_single_face.mp4", "liveportrait_d13.mp4", "grid_id2.mpg", "carphone_pristine.mp4"]
)
def test_detection_is_deterministic_and_finds_the_face_at_any_aspect(tracker: Tracker, clips: Path, name: str):
    frame = clip_frames(clips / name, 1, first=5)[0]
    found, again = tracker.detect(frame), tracker.detect(frame)
    assert len(found) == 1
    assert found[0].score == again[0].score
    assert found[0].box_px == again[0].box_px
    padded = cv2.copyMakeBorder(frame, 0, frame.shape[0], 0, 0, cv2.BORDER_CONSTANT)
    assert len(tracker.detect(padded)) == 1
    assert len(tracker.detect(frame, 0.2)) >= 1
    x0, y0, x1, y1 = found[0].box_px
    eyes_left, eyes_right = found[0].keypoints_px[:2]
    assert x0 < eyes_left[0] < eyes_right[0] < x1
    assert y0 < eyes_left[1] < y1


DEMO = Path(__file__).parents[2] / "app" / "demo.mp4"


def test_what_ships_follows_the_demos_face_through_the_clip(tracker: Tracker):
    history = follow(tracker, clip_frames(DEMO, 40))
    assert all(len(faces) == 1 for faces in history)
    assert len({faces[0].track_id for faces in history}) == 1
    assert min(faces[0].score for faces in history) > 0.9


def test_what_ships_agrees_with_the_published_networks(tracker: Tracker, pinned: Callable[[str], Path]):
    """On the demo: boxes overlap by four fifths, points lie within 3 % of the eyes' distance."""
    detector = FaceDetector.open(pinned("face_detector_full"))
    mesh = FaceMesh.open(pinned("face_mesh"))
    for frame in clip_frames(DEMO, 40)[::8]:
        (theirs,), (ours,) = detector.detect(frame), tracker.detect(frame)
        assert box_iou(np.array(theirs.box_px), np.array([ours.box_px])) > 0.8
        (track,) = tracker.track((), frame, 0, 1)
        wanted = mesh.find(frame, track.window_from_frame).points_px[:, :2]
        away = np.linalg.norm(track.landmarks_px[:, :2] - wanted, axis=1).mean()
        assert away < 0.03 * np.linalg.norm(wanted[EYE_CORNER_LEFT] - wanted[EYE_CORNER_RIGHT])
