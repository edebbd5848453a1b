"""The face mesh's training on a few drawn faces."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.landmarks import EYE_CORNER_LEFT, EYE_CORNER_RIGHT
from models.tracking import POINTS, LandmarkNet
from models.training import landmarks
from models.training.landmarks import Objective, held_out, load_landmarks, sample, scores
from tests.models.training.drawn_faces import drawn_pictures, train_in_two_goes


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of drawn faces, and a seeded network in the place of the published one."""
    torch.manual_seed(0)
    published = LandmarkNet(rank=None).eval()
    monkeypatch.setattr(landmarks, "load_pictures", lambda data, split, most=None: drawn_pictures(70))
    monkeypatch.setattr(landmarks, "published_landmarks", lambda: published)
    monkeypatch.setattr(landmarks, "VALIDATION_FACES", 4)


def test_it_trains_resumes_and_leaves_weights_and_a_note(few: None, tmp_path: Path):
    note = train_in_two_goes("landmarks", 3, load_landmarks, tmp_path)
    assert {"nme_clean", "nme_covered", "teacher_nme_covered", "false_empty"} <= note["validation"].keys()
    lines = [json.loads(line) for line in (tmp_path / "ck" / "log.jsonl").read_text().splitlines()]
    assert any("validation_nme_clean" in line for line in lines)


def test_the_same_number_gives_the_same_sample_and_all_kinds_come():
    pictures, kinds = drawn_pictures(5), set()
    for seed in range(60):
        window, points, presence = sample(pictures, np.random.default_rng(seed))
        again = sample(pictures, np.random.default_rng(seed))
        np.testing.assert_array_equal(window, again[0])
        assert window.shape == (192, 192, 3)
        assert points.shape == (POINTS, 3)
        kinds.add(presence)
        if seed < 5 and presence == 1.0:
            eye = points[[EYE_CORNER_LEFT, EYE_CORNER_RIGHT], :2]
            assert ((eye > 0) & (eye < 192)).all()
    assert kinds >= {0.0, 1.0}


def test_the_loss_is_least_at_the_points_and_leaves_empty_windows_alone():
    class Answer(torch.nn.Module):
        def __init__(self, points: torch.Tensor, logit: float) -> None:
            super().__init__()
            self.points, self.logit = points, logit

        def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.points.flatten(1), torch.full((len(rgb), 1), self.logit)

    windows, (points,) = torch.zeros(2, 192, 192, 3, dtype=torch.uint8), drawn_pictures(1).points
    wanted = torch.from_numpy(np.stack([points, points]))

    def loss(shift: float, logit: float, presence: list[float]) -> float:
        objective = Objective(Answer(wanted + shift, logit))  # type: ignore[arg-type]
        return float(objective((windows, wanted, torch.tensor(presence, dtype=torch.float32)))[0])

    assert loss(0.0, 3.0, [1, 1]) < loss(1.0, 3.0, [1, 1]) < loss(2.0, 3.0, [1, 1])
    assert loss(0.0, -3.0, [0, 0]) == pytest.approx(loss(9.0, -3.0, [0, 0]))
    assert loss(0.0, 3.0, [0, 0]) > loss(0.0, -3.0, [0, 0])
    assert loss(0.0, 3.0, [-1, -1]) == pytest.approx(loss(0.0, -3.0, [-1, -1]))
    assert loss(1.0, 3.0, [-1, -1]) > loss(0.0, 3.0, [-1, -1])


def test_scores_are_zero_for_a_network_that_knows():
    batches = held_out(drawn_pictures(4), 4)

    class Knows(torch.nn.Linear):
        def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            number = next(n for n, (w, _, _) in enumerate(batches.values()) if torch.equal(w.float() / 255.0, rgb))
            _, points, presence = list(batches.values())[number]
            return points.flatten(1), presence[:, None] * 2 - 1

    told = scores(Knows(1, 1), batches)
    assert told["nme_clean"] == told["missed_clean"] == told["false_empty"] == 0.0
    assert {"nme_clean", "missed_clean", "false_empty"} <= told.keys()
