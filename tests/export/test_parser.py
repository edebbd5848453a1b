"""The exported parser equals the trained one; the one that ships scores on held-out faces what its note says."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from engine.bundle import read_manifest, verify_files
from export.parser import export_parser, replace_parser
from models.parsing import CLASSES, OCCLUDER_CLASSES, FaceParser
from models.training.log import save_checkpoint
from models.training.parser import LINEAGE, SCORED, WEIGHTS, confusion, ious_from_confusion, load_split

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


def test_a_parser_is_replaced_alone(tmp_path):
    recipe, trained = tmp_path / "recipe", tmp_path / "trained"
    shutil.copytree(FOLDER, recipe)
    torch.manual_seed(0)
    save_checkpoint(trained / WEIGHTS, weights=FaceParser().eval().state_dict())
    (trained / LINEAGE).write_text('{"miou": 0.5}')
    before, after = read_manifest(recipe), replace_parser(trained, recipe)
    verify_files(recipe, read_manifest(recipe))
    assert after == read_manifest(recipe)
    assert {name for name in before.files if before.files[name] != after.files[name]} == {"parser.onnx"}
    assert after.parser.classes == CLASSES
    assert after.parser.occluder_classes == OCCLUDER_CLASSES
    assert after.graphs["parser"].outputs["logits"] == ("B", len(CLASSES), 128, 128)
    assert after.lineage["parser"] == '{"miou": 0.5}'
    assert after.lineage["encoder"] == before.lineage["encoder"]


def test_note_names_every_class_and_the_licence():
    note = json.loads((FOLDER / "parser.json").read_text())
    assert tuple(note["iou"]) == SCORED
    assert "non-commercial" in note["licence"]


@pytest.mark.skipif("RIGID_TEST_DATA" not in os.environ, reason="RIGID_TEST_DATA names no data folder")
def test_graph_scores_on_held_out_faces_what_its_note_says():
    session = onnxruntime.InferenceSession(FOLDER / "parser.onnx", providers=["CPUExecutionProvider"])
    pairs = load_split(Path(os.environ["RIGID_TEST_DATA"]), "test")
    counts = confusion(lambda crops: session.run(["logits"], {"crop": crops.numpy()})[0], pairs)
    note = json.loads((FOLDER / "parser.json").read_text())
    np.testing.assert_allclose(ious_from_confusion(counts).mean(), note["miou"], atol=0.003)
