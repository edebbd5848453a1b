"""`rigid-live export`: every format is a bundle that runs, verified, written whole or not at all."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from app.cli import main
from engine import likeness
from engine.bundle import open_bundle, read_manifest
from engine.bundle_build import bundle_path
from engine.errors import AssetMissing, BundleError, ExportError, UsageError
from engine.recurrence import advance
from engine.runtimes.base import shape_for
from engine.runtimes.select import open_networks, select
from export import exported
from export.bundle import write_manifest
from export.exported import Order, export
from tests.engine.conftest import tiny, tiny_folder, tiny_networks
from tests.engine.tiny_bundle import build

__all__ = ["tiny", "tiny_folder", "tiny_networks"]

STEPS = 3


@pytest.mark.parametrize(
    ("to", "precision", "runtime", "computed", "limit"),
    [
        ("onnx", "fp32", "onnxruntime", "fp32", 1e-5),
        ("onnx", "fp16", "onnxruntime", "fp32", 5e-3),
        ("openvino", "fp32", "openvino", "fp32", 1e-5),
    ],
)
def test_an_export_is_a_bundle_that_runs(tiny_folder, tiny_networks, tmp_path, to, precision, runtime, computed, limit):
    out = export(tiny_folder, Order(to, precision, steps=STEPS), tmp_path / "new" / "out")
    made = open_bundle(out)
    assert made.directions.keys() == {"age", "smile"}
    networks = open_networks(made, select(runtime, "cpu", computed), "cpu", computed)
    crop = np.random.default_rng(0).uniform(-1, 1, shape_for(networks.parser.spec, "crop", 2)).astype(np.float32)
    offset = np.full((2, 12, 8), 0.3, np.float32)
    found, expected = (advance(each, None, crop, offset)[2] for each in (networks, tiny_networks))
    networks.close()
    assert np.abs(found - expected).mean() < limit
    told = json.loads((out / "verify.json").read_text())
    assert (told["format"], told["precision"], told["steps"]) == (to, precision, STEPS)
    assert all(output["mean"] <= told["tolerance"]["limit"] for output in told["outputs"].values())
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_search_for_a_likeness_goes_along_where_the_cpu_runs_the_encoder(tmp_path):
    folder = build(tmp_path / "tiny")
    (folder / likeness.FILE).write_bytes(b"a graph")
    write_manifest(folder, read_manifest(folder), [likeness.FILE])
    for to in ("onnx", "openvino"):
        out = export(folder, Order(to, "fp32", steps=1), tmp_path / to)
        assert (out / likeness.FILE).read_bytes() == b"a graph"
        assert likeness.FILE in open_bundle(out).manifest.files


def test_the_precision_is_in_the_file(tiny_folder, tmp_path):
    out = export(tiny_folder, Order("onnx", "bf16", steps=1), tmp_path / "out")
    graph = onnx.load(out / "recurrent.onnx").graph
    casts = [node.attribute[0].i for node in graph.node if node.op_type == "Cast"]
    assert onnx.TensorProto.BFLOAT16 in casts


def test_an_older_export_is_replaced(tiny_folder, tmp_path):
    for precision in ("fp32", "fp16"):
        export(tiny_folder, Order("onnx", precision, steps=1), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["precision"] == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_no_export_is_not_replaced(tmp_path):
    folder = build(tmp_path / "tiny")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("a file")
    for out in (folder, tmp_path / "mine", tmp_path / "file"):
        with pytest.raises(UsageError, match="name a"):
            export(folder, Order("onnx", steps=1), out)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert open_bundle(folder)


def test_a_wrong_export_is_not_written(tiny_folder, tmp_path, monkeypatch):
    """A graph that computes something a little else is found by the comparison."""

    def bent(model, precision):
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size > 100:
                tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.01), tensor.name))
        return model

    monkeypatch.setattr(exported, "typed", bent)
    with pytest.raises(ExportError, match="computes something else"):
        export(tiny_folder, Order("onnx", "fp32", steps=1), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    folder = build(tmp_path / "tiny")

    def verified_while_someone_writes(*arguments):
        (folder / "parser.onnx").write_bytes(b"other weights")
        return {}

    monkeypatch.setattr(exported, "_verified", verified_while_someone_writes)
    with pytest.raises(BundleError, match=r"parser\.onnx has sha256"):
        export(folder, Order("onnx", steps=1), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["TINY", "--to", "onnx", "--precision", "int8"], 2, "--precision int8 and --calibrate go together"),
        (["TINY", "--to", "onnx", "--calibrate", "clips"], 2, "--precision int8 and --calibrate go together"),
        (["TINY", "--to", "openvino", "--precision", "int8", "--calibrate", "clips"], 2, "int8 is for --to onnx"),
        (["TINY", "--to", "onnx", "--precision", "int8", "--calibrate", "clips"], 1, "clips does not exist"),
        (["TINY", "--to", "onnx", "--targets", "8.9"], 2, "targets and library are for --to tensorrt"),
        (["TINY", "--to", "tensorrt", "--targets", "1.0"], 2, "targets got 1.0"),
        (["TINY", "--to", "coreml"], 2, "invalid choice"),
        (["TINY", "--to", "onnx", "--steps", "0"], 2, "steps is 0"),
        (["TINY"], 2, "--to"),
        (["nowhere", "--to", "onnx"], 1, "no bundle 'nowhere'"),
    ],
)
def test_a_failure_is_one_line(tiny_folder, tmp_path, monkeypatch, capfd, words, code, reason):
    monkeypatch.chdir(tmp_path)
    words = [str(tiny_folder) if word == "TINY" else word for word in words]
    assert main(["export", *words, "--out", "out"]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert reason in line
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_does(tiny_folder, tmp_path, capfd):
    assert main(["export", str(tiny_folder), "--to", "onnx", "--out", str(tmp_path / "out"), "--steps", "1"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "verify: 1 steps of the ONNX in onnxruntime" in said.out
    assert f"written: {tmp_path / 'out'}" in said.out


@pytest.mark.slow
def test_the_default_bundle_over_fifty_steps(tmp_path):
    """Against torch in float32, within the tolerance of the design."""
    try:
        folder = bundle_path("default")
    except AssetMissing as error:
        pytest.skip(str(error))
    for precision in ("fp32", "fp16"):
        out = export(folder, Order("onnx", precision), tmp_path / precision)
        assert json.loads((out / "verify.json").read_text())["steps"] == 50
