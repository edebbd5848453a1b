"""Samples of the tracking networks: geometry, what is pasted over faces, and the answers that are kept."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.sources import demo_clip
from engine.geometry import invert_affine, transform_points
from engine.landmarks import EYE_CORNER_LEFT, EYE_CORNER_RIGHT, window_of_landmarks
from models.training import tracking_samples
from models.training.splits import Split
from models.training.tracking_samples import (
    Pictures,
    covered,
    empty_window,
    load_pictures,
    moved_window,
    points_in_window,
    spoiled,
    training_clips,
)
from tests.models.training.drawn_faces import drawn_pictures, mesh_points

RNG = np.random.default_rng


def test_a_window_that_is_not_moved_is_the_trackers():
    points = mesh_points((120.0, 130.0), 40.0)
    np.testing.assert_allclose(moved_window(points, RNG(0), 0.0), window_of_landmarks(points), atol=1e-9)


def test_points_in_a_window_lie_where_the_network_counts_from():
    """The network has the window's area from 0 to 192, the geometry pixel centres from 0."""
    points = mesh_points((120.0, 130.0), 40.0)
    window = moved_window(points, RNG(3), 1.0)
    inside = points_in_window(points, window)
    back = transform_points(invert_affine(window), inside[:, :2].astype(np.float64) - 0.5)
    np.testing.assert_allclose(back, points[:, :2], atol=1e-3)
    ratio = np.ptp(inside[:, 0]) / np.ptp(points[:, 0])
    assert np.ptp(inside[:, 2]) == pytest.approx(np.ptp(points[:, 2]) * ratio, rel=0.2)


def test_what_is_pasted_hides_the_share_that_it_says():
    picture, outline = np.full((256, 256, 3), 90, np.uint8), mesh_points((128.0, 128.0), 60.0)[:, :2].astype(np.float64)
    texture = np.full((256, 256, 3), 250, np.uint8)
    shares = []
    for seed in range(30):
        hidden, share = covered(picture, outline, texture, RNG(seed))
        mask = np.zeros((256, 256), np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline.astype(np.int32)), 1)
        # Grey and no lighter than the picture: bare, or under the shadow of what was pasted.
        bare = (np.ptp(hidden, axis=2) <= 1) & (hidden[..., 0] <= 91)
        assert share == pytest.approx(1.0 - bare[mask == 1].mean(), abs=0.12)
        shares.append(share)
    assert min(shares) < 0.05 < 0.5 < max(shares)


def test_spoiled_pictures_differ_and_keep_their_size():
    picture = RNG(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    made = [spoiled(picture, RNG(seed)) for seed in range(12)]
    assert all(image.shape == picture.shape and image.dtype == np.uint8 for image in made)
    assert sum(np.array_equal(image, picture) for image in made) < 6


def test_an_empty_window_shows_a_tenth_of_a_face_at_most():
    """The scene's colours say where a window lies: red grows to the right, green downwards, one level a pixel."""
    scene = np.zeros((200, 200, 3), np.uint8)
    scene[..., 2], scene[..., 1] = np.meshgrid(np.arange(200), np.arange(200))
    box = np.array([60.0, 60.0, 160.0, 160.0], np.float32)
    file, points = cv2.imencode(".png", scene)[1].tobytes(), np.empty((0, 468, 3), np.float32)
    pictures = Pictures((), points, (file,), (box[None],))
    shares = []
    for seed in range(40):
        window = empty_window(pictures, RNG(seed))
        low, high = window[0, 0, :2].astype(float), window[-1, -1, :2].astype(float)
        if window[..., 2].any():
            continue  # no place was found: a texture
        shares.append(np.prod(np.clip(np.minimum(high, 160) - np.maximum(low, 60), 0, None)) / 100**2)
    assert len(shares) > 20
    assert max(shares) < 0.12


@dataclass
class OneFace:
    """In the place of the published networks: a face of known points in every picture."""

    asked: int = 0

    @property
    def detector(self):
        return self

    def detect(self, bgr, threshold):
        return []

    def faces(self, bgr, rng):
        self.asked += 1
        yield mesh_points((bgr.shape[1] / 2, bgr.shape[0] / 2), bgr.shape[0] / 5)


def test_the_teachers_answers_are_kept(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    teacher, made = OneFace(), drawn_pictures(3)
    folder = tmp_path / "data" / "faces" / "few"
    folder.mkdir(parents=True)
    for number, file in enumerate(made.faces):
        (folder / f"{number}.jpg").write_bytes(file)
    monkeypatch.setattr(tracking_samples, "checkpoint_dir", lambda name: empty_cache / name)
    monkeypatch.setattr(tracking_samples.Teacher, "open", lambda: teacher)
    monkeypatch.setattr(tracking_samples, "load_splits", lambda: Few(folder))
    first = load_pictures(tmp_path / "data", Split.TRAIN)
    again = load_pictures(tmp_path / "data", Split.TRAIN)
    assert teacher.asked == len(first.faces) > 3
    assert first.faces == again.faces
    assert first.faces[:3] == made.faces
    assert len(first.scenes) == len(first.boxes) == len(first.faces) - 3
    assert first.scenes == again.scenes
    np.testing.assert_array_equal(first.points, again.points)
    eyes = first.points[:, EYE_CORNER_RIGHT] - first.points[:, EYE_CORNER_LEFT]
    assert (eyes[:, 0] > 10).all()


@dataclass
class Few:
    """In the place of the table of splits: one folder of stills, and the program's own clip."""

    folder: Path

    def stills(self, data: Path, name: str, split: Split) -> list[Path]:
        return sorted(self.folder.glob("*.jpg")) if name == tracking_samples.STILLS[0] else []

    def clips(self, data: Path, split: Split) -> list[Path]:
        return [demo_clip()]


def test_clips_kept_for_scores_are_not_trained_on(clips: Path):
    names = [path.name for path in training_clips(clips.parent, Split.TRAIN)]
    assert "Obama_speaking.mp4" in names
    assert not any(name.startswith("asl_") for name in names)
