"""Pictures of drawn faces with points on them, for trainings that need no data, and such a training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.cli import main
from engine.landmarks import EYE_CORNER_LEFT, EYE_CORNER_RIGHT
from models.training.log import load_checkpoint
from models.training.tracking_samples import Pictures


def mesh_points(centre: tuple[float, float], radius: float) -> NDArray[np.float32]:
    """468 points on a disc, the corners of the eyes where eyes are; float32 [468, 3]."""
    turns = np.arange(468) * 2.399963
    reach = radius * np.sqrt((np.arange(468) + 0.5) / 468)
    points = np.column_stack([centre[0] + reach * np.cos(turns), centre[1] + reach * np.sin(turns), reach - radius])
    points[EYE_CORNER_LEFT] = centre[0] - 0.5 * radius, centre[1] - 0.3 * radius, -radius
    points[EYE_CORNER_RIGHT] = centre[0] + 0.5 * radius, centre[1] - 0.3 * radius, -radius
    return points.astype(np.float32)


def drawn_pictures(count: int) -> Pictures:
    """Discs with eyes on noise; scenes of the same, whose disc is the box."""
    rng, faces, points, boxes = np.random.default_rng(0), [], [], []
    for _ in range(count):
        centre, radius = rng.uniform(90, 150, 2), rng.uniform(35, 70)
        picture = cv2.resize(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), (240, 240))
        cv2.circle(picture, (round(centre[0]), round(centre[1])), round(radius), (150, 170, 220), -1)
        mesh = mesh_points((centre[0], centre[1]), radius)
        for corner in (EYE_CORNER_LEFT, EYE_CORNER_RIGHT):
            cv2.circle(picture, (round(float(mesh[corner, 0])), round(float(mesh[corner, 1]))), 6, (20, 20, 20), -1)
        faces.append(cv2.imencode(".jpg", picture)[1].tobytes())
        points.append(mesh)
        boxes.append(np.array([[*(centre - radius), *(centre + radius)]], np.float32))
    return Pictures(tuple(faces), np.array(points), tuple(faces), tuple(boxes))


def train_in_two_goes(name: str, batch: int, load: Callable[[Path], nn.Module], folder: Path) -> dict[str, Any]:
    """Trains one step, then resumes to the third: it learns, and leaves weights in `out` and the note that is given."""
    words = ["train", name, "--data", str(folder), "--out", str(folder / "out"), "--batch", str(batch)]
    words += ["--checkpoints", str(folder / "ck"), "--workers", "0", "--threads", "1"]
    assert main([*words, "--steps", "1"]) == 0
    before = load_checkpoint(folder / "ck" / "last.pt")["average"]
    assert main([*words, "--steps", "3", "--resume"]) == 0
    after = load_checkpoint(folder / "ck" / "last.pt")["average"]
    assert any(not torch.equal(before[key], after[key]) for key in before)
    shipped = load(folder / "out").state_dict()
    assert all(torch.equal(shipped[key], after[key].half().float()) for key in after)
    note: dict[str, Any] = json.loads((folder / "out" / f"{name}.json").read_text())
    assert note["steps"] == 3
    return note
