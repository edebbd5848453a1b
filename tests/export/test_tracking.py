"""The tracking networks as files: what was trained, small, and in the engine's form."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engine.detection import FaceDetector, compile_network
from engine.landmarks import FaceMesh, window_of_landmarks
from export.tracking import export_tracking
from models.checkpoints import weights
from models.checkpoints.weights import COMMITTED, save_fresh
from models.tracking import DetectorNet, LandmarkNet
from models.training.detector import load_detector
from models.training.landmarks import load_landmarks
from tests.models.training.drawn_faces import mesh_points


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    save_fresh("detector", DetectorNet().state_dict(), folder)
    save_fresh("landmarks", LandmarkNet().state_dict(), folder)
    (folder / "landmarks.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def shipped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    export_tracking(trained, folder)
    return folder


def test_a_file_answers_as_the_network_that_was_trained(trained: Path, shipped: Path):
    rgb = np.random.default_rng(0).random((1, 192, 192, 3), np.float32)
    found = {array.size: array.ravel() for array in compile_network(shipped / "landmarks.onnx", 1)([rgb]).values()}
    with torch.no_grad():
        for answer in load_landmarks(trained)(torch.from_numpy(rgb)):
            np.testing.assert_allclose(found[answer.numel()], answer.numpy().ravel(), atol=1e-4)


def test_the_engine_reads_the_files(shipped: Path):
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    FaceDetector.open(shipped / "detector.onnx", 1).detect(image, 0.01)
    window = window_of_landmarks(mesh_points((80.0, 60.0), 30.0))
    seen = FaceMesh.open(shipped / "landmarks.onnx", 1).find(image, window)
    assert np.isfinite(seen.points_px).all()
    assert 0.0 <= seen.presence <= 1.0


def test_a_file_is_small_and_its_note_lies_beside_it(shipped: Path):
    for name in ("detector", "landmarks"):
        assert (shipped / f"{name}.onnx").stat().st_size < 1_000_000
    assert [path.name for path in shipped.glob("*.json")] == ["landmarks.json"]


def test_training_can_start_from_what_ships(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
):
    monkeypatch.setattr(weights, "COMMITTED", shipped)
    for load in (load_detector, load_landmarks):
        stored, original = load(tmp_path).state_dict(), load(trained).state_dict()
        for name, tensor in original.items():
            torch.testing.assert_close(stored[name], tensor, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["detector", "landmarks"])
def test_what_ships_is_ours(name: str, pinned):
    """No large tensor of a published file is in it as it was published."""
    published = pinned({"detector": "face_detector_full", "landmarks": "face_mesh"}[name]).read_bytes()
    for tensor in onnx.load(COMMITTED / f"{name}.onnx").graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.size >= 256:
            forms = (values, np.moveaxis(values, 1, -1)) if values.ndim == 4 else (values,)
            kinds = [form.astype(kind).tobytes() for form in forms for kind in (np.float16, np.float32)]
            assert not any(form in published for form in kinds), tensor.name
