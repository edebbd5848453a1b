"""The detector's training on a few drawn faces."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.tracking import BOTTLENECKS, NARROW_BOTTLENECKS, DetectorNet
from models.training import detector
from models.training.detector import Objective, agreement, load_detector, matched, scene
from tests.models.training.drawn_faces import drawn_pictures, train_in_two_goes


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of drawn faces, and a seeded network in the place of the published one."""
    torch.manual_seed(0)
    published = DetectorNet(BOTTLENECKS).eval()
    monkeypatch.setattr(detector, "load_pictures", lambda data, split, most=None: drawn_pictures(4))
    monkeypatch.setattr(detector, "published_detector", lambda: published)
    monkeypatch.setattr(detector, "START_SCENES", 2)
    monkeypatch.setattr(detector, "VALIDATION_SCENES", 2)


def test_it_trains_resumes_and_leaves_weights_and_a_note(few: None, tmp_path: Path):
    note = train_in_two_goes("detector", 2, load_detector, tmp_path)
    assert {"recall", "precision", "teacher_recall", "clean_recall"} <= note["validation"].keys()


def test_a_scene_is_seen_as_it_is_or_spoilt():
    pictures, alike = drawn_pictures(4), 0
    for seed in range(16):
        clean, seen = scene(pictures, np.random.default_rng(seed))
        assert clean.shape == seen.shape == (192, 192, 3)
        np.testing.assert_array_equal(seen, scene(pictures, np.random.default_rng(seed))[1])
        alike += np.array_equal(clean, seen)
    assert 1 <= alike <= 12


def test_nothing_is_left_to_learn_where_student_and_teacher_agree():
    torch.manual_seed(0)
    teacher = DetectorNet(NARROW_BOTTLENECKS).eval()
    with torch.no_grad():
        teacher.logits.bias += 1.0
        pictures = torch.randint(0, 255, (2, 192, 192, 3), dtype=torch.uint8)
        loss, _ = Objective(teacher, teacher)((pictures, pictures))
        assert abs(loss.item()) < 1e-3
        other = DetectorNet(NARROW_BOTTLENECKS).eval()
        assert Objective(other, teacher)((pictures, pictures))[0] > 1e-2


def test_each_wanted_box_needs_one_of_its_own():
    a, b = np.array([0.0, 0, 10, 10]), np.array([20.0, 0, 30, 10])
    near = a + 1.0
    assert matched([a, b], [near]) == 1
    assert matched([a, a], [near]) == 1
    assert matched([a], [b]) == 0
    assert matched([a], []) == matched([], [a]) == 0
    assert agreement([[a, b], []], [[near], [b]]) == (0.5, 0.5)
