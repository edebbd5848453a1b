"""The exported parser equals the trained one; the one that ships scores on held-out faces what its note says."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from export.parser import export_parser
from models.parsing import CLASSES, FaceParser
from models.training.log import save_checkpoint
from models.training.parser import LINEAGE, WEIGHTS, confusion, ious_from_confusion, load_split

FOLDER = Path(__file__).parents[2] / "models" / "bundles" / "default"


def test_exported_graph_equals_the_trained_network(tmp_path):
    torch.manual_seed(0)
    parser = FaceParser().eval()
    save_checkpoint(tmp_path / WEIGHTS, weights=parser.state_dict())
    (tmp_path / LINEAGE).write_text("{}")
    graph = export_parser(tmp_path, tmp_path / "bundle")
    crop = np.random.default_rng(0).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"crop": crop})
    with torch.inference_mode():
        wanted = parser(torch.from_numpy(crop)).numpy()
    assert np.abs(found - wanted).max() < 5e-3 * np.abs(wanted).max()
    assert (tmp_path / "bundle" / "parser.json").read_text() == "{}"


def test_note_names_every_class_and_the_licence():
    note = json.loads((FOLDER / "parser.json").read_text())
    assert set(note["iou"]) == set(CLASSES)
    assert "non-commercial" in note["licence"]


@pytest.mark.skipif("RIGID_TEST_DATA" not in os.environ, reason="RIGID_TEST_DATA names no data folder")
def test_graph_scores_on_held_out_faces_what_its_note_says():
    session = onnxruntime.InferenceSession(FOLDER / "parser.onnx", providers=["CPUExecutionProvider"])
    pairs = load_split(Path(os.environ["RIGID_TEST_DATA"]), "test")
    counts = confusion(lambda crops: session.run(["logits"], {"crop": crops.numpy()})[0], pairs)
    note = json.loads((FOLDER / "parser.json").read_text())
    np.testing.assert_allclose(ious_from_confusion(counts).mean(), note["miou"], atol=0.003)
