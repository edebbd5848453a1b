"""What the emotion network is shown, and that its scores are finite log odds."""

import numpy as np
import pytest

from engine.assets import is_cached
from engine.geometry import transform_points
from models.emotions import EmotionScorer, face_square_from_crop


def points_in(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """468 points inside a box, with some at its corners."""
    points = np.random.default_rng(0).uniform((x0, y0, 0), (x1, y1, 1), (468, 3)).astype(np.float32)
    points[:2, :2] = [[x0, y0], [x1, y1]]
    return points


def test_the_square_around_the_face_fills_the_input() -> None:
    affine = face_square_from_crop(points_in(60.0, 80.0, 180.0, 240.0))
    ends = transform_points(affine, np.array([[60.0, 80.0], [180.0, 240.0], [120.0, 160.0]]))
    assert ends[:, 1] == pytest.approx([-0.5, 63.5, 31.5])
    assert ends[:, 0] == pytest.approx([31.5 - 24, 31.5 + 24, 31.5])


def test_sure_answers_are_finite_log_odds_of_the_right_classes() -> None:
    shown = []

    def network(image: np.ndarray) -> list[np.ndarray]:
        shown.append(image)
        return [np.array([[0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]], dtype=np.float32)]

    crops = np.full((2, 256, 256, 3), 255, dtype=np.uint8)
    scores = EmotionScorer(network).score(crops, np.stack([points_in(50.0, 60.0, 200.0, 230.0)] * 2))
    assert set(scores) == {"angry", "sad", "surprised"}
    assert scores["angry"] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert scores["sad"] == pytest.approx([-6.9, -6.9], abs=0.1)
    assert scores["surprised"] == pytest.approx([6.9, 6.9], abs=0.1)
    assert shown[0].shape == (1, 64, 64, 1)
    assert np.unique(shown[0]).tolist() == [1.0]


def test_the_network_tells_faces_apart() -> None:
    if not is_cached("emotions"):
        pytest.skip("the emotion network is not in the cache")
    crops = np.random.default_rng(1).integers(0, 255, (2, 256, 256, 3), dtype=np.uint8)
    crops[1] = 0
    scores = EmotionScorer.open(threads=1).score(crops, np.stack([points_in(50.0, 60.0, 200.0, 230.0)] * 2))
    assert abs(scores["angry"][0] - scores["angry"][1]) > 0.1
