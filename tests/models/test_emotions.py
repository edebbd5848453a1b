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


def test_scores_are_finite_log_odds_of_three_emotions() -> None:
    if not is_cached("emotions"):
        pytest.skip("the emotion network is not in the cache")
    crops = np.random.default_rng(1).integers(0, 255, (3, 256, 256, 3), dtype=np.uint8)
    crops[2] = 0
    scores = EmotionScorer.open(threads=1).score(crops, np.stack([points_in(50.0, 60.0, 200.0, 230.0)] * 3))
    assert set(scores) == {"angry", "sad", "surprised"}
    for values in scores.values():
        assert values.shape == (3,)
        assert np.abs(values).max() < 7.0
    assert len({round(float(value), 3) for value in scores["angry"]}) == 3
