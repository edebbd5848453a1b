"""The parser that ships: the committed graph against its own note and the held-out faces."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models.parsing import CLASSES
from models.training.parser import confusion, ious_from_confusion, load_split

FOLDER = Path(__file__).parents[2] / "models" / "bundles" / "default"


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
