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


def test_meshes_are_compared_in_the_picture_where_there_is_a_face(monkeypatch: pytest.MonkeyPatch):
    class Mesh(torch.nn.Module):
        """The outer corners of the eyes 50 px apart; all points lie further right in a brighter picture, by 20 px for
        white; black is no face."""

        def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert rgb.shape[1:] == (192, 192, 3)
            level = rgb.mean(dim=(1, 2, 3))
            points = torch.zeros(len(rgb), POINTS, 3)
            points[:, EYE_CORNER_RIGHT, 0] = 50.0
            points = points + torch.tensor([20.0, 0.0, 1000.0]) * level[:, None, None]
            return points.flatten(1), (level - 0.01)[:, None]

    monkeypatch.setattr(landmarks, "load_landmarks", Mesh)
    distance = landmarks.mesh_distance(torch.device("cpu"))
    levels = torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    real = torch.tensor([0.5, 0.75, 0.0], requires_grad=True)
    made, wanted = ((2.0 * x - 1.0).view(3, 1, 1, 1).expand(-1, 3, 256, 256) for x in (levels, real))
    away = distance(made, wanted)
    away.sum().backward()
    assert away.tolist() == pytest.approx([0.3 / 50, 5.0 / 50, 0.0], rel=0.01)
    assert levels.grad is not None
    assert levels.grad[1].item() == pytest.approx(-20.0 / 50, rel=0.01)
    assert real.grad is None
