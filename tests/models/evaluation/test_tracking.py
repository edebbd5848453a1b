"""The comparison with the published networks: two of a kind score alike, and a worse one worse."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from app.sources import demo_clip
from engine.detection import FaceDetector
from engine.landmarks import FaceMesh, Landmarks
from models.checkpoints.weights import COMMITTED
from models.evaluation import tracking
from models.evaluation.tracking import Boxes, Contender, distance, mean_of, score_clip, score_photographs
from models.training.tracking_samples import Teacher
from tests.models.training.drawn_faces import mesh_points


class Off(FaceMesh):
    """A mesh network whose points lie two pixels too far to the right."""

    def find(self, image_u8, window_from_frame) -> Landmarks:
        seen = super().find(image_u8, window_from_frame)
        moved = (seen.points_px + np.array([2.0, 0, 0])).astype(np.float32)
        return Landmarks(moved, seen.presence, seen.crop_from_frame, seen.look)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """What ships, in the place of the published networks."""
    return Teacher(FaceDetector.open(COMMITTED / "detector.onnx", 1), FaceMesh.open(COMMITTED / "landmarks.onnx", 1))


def test_a_network_beside_itself_and_beside_a_worse_one(teacher: Teacher):
    worse = Contender("worse", teacher.detector, Off.open(COMMITTED / "landmarks.onnx", 1))
    same = Contender("same", teacher.detector, teacher.mesh)
    told = score_clip(demo_clip(), (worse, same), teacher, 4)
    assert told["nme_to_single_same"] == 0.0 < told["nme_same"] < told["nme_worse"]
    assert told["noise_worse"] == pytest.approx(told["noise_same"], rel=1e-3)
    assert told["leap_worse"] == pytest.approx(told["leap_same"], rel=1e-3)
    assert told["recall_same"] == told["precision_same"] == 1.0
    assert {"nme_covered_same", "lost_covered_worse", "recall_same_spoilt"} <= told.keys()


def test_the_report_of_a_clip(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Teacher, "open", lambda threads: teacher)
    monkeypatch.setattr(tracking, "take_turns", lambda calls, runs: [1.0 for call in calls if call() is not None])
    report = tmp_path / "r.json"
    assert main(["tracking", str(demo_clip()), "--frames", "2", "--report", str(report)]) == 0
    written = json.loads(report.read_text())
    assert written["clips"]["demo.mp4"] == written["all_clips"]
    assert written["all_clips"]["nme_ours"] == written["all_clips"]["nme_published"]
    assert set(written["ms"]) == {f"{kind}_{name}" for kind in ("mesh", "detector") for name in ("ours", "published")}


def test_ffhqs_crop_judges_both(teacher: Teacher, clips: Path):
    photographs = sorted((clips.parent / "faces" / "ffhq256").glob("*.jpg"))[:4]
    worse = Contender("worse", teacher.detector, Off.open(COMMITTED / "landmarks.onnx", 1))
    told = score_photographs(photographs, (worse, Contender("same", teacher.detector, teacher.mesh)))
    assert told["photographs"] == 4
    assert told["corners_px_same"] < 12.0
    assert told["corners_px_same"] != told["corners_px_worse"]


def test_distances_are_in_percent_of_the_eyes():
    points = mesh_points((50.0, 50.0), 40.0)
    assert distance(points + np.array([0.0, 4.0, 0.0]), points) == pytest.approx(10.0, rel=1e-5)


def test_boxes_are_counted_over_a_clip():
    box, boxes = np.array([0.0, 0, 10, 10]), Boxes(("ours",))
    boxes.add("ours", [box], [box, box + 50])
    boxes.add("ours", [box], [])
    boxes.add("ours_spoilt", [], [box])
    assert boxes.figures() == {"recall_ours": 0.5, "precision_ours": 0.5, "precision_ours_spoilt": 0.0}


def test_the_mean_is_over_the_clips_that_have_a_figure():
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0, "b": 2.0}
