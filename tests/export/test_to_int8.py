"""Graphs in int8, calibrated on what they see while the loop runs."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.cli import main
from engine.bundle import open_bundle
from engine.errors import ExportError, UsageError
from engine.fingerprint import read_fingerprint
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks
from export import exported, to_int8
from export.exported import Order, export
from export.to_int8 import Films, quantised, read_films, recorded_inputs
from export.to_tensorrt import TARGETS, build, plan
from tests.engine.conftest import tiny, tiny_folder, tiny_networks

__all__ = ["tiny", "tiny_folder", "tiny_networks"]


def film(seed, steps=4, reach=1.0):
    """Smooth random crops of one "face"."""
    coarse = np.random.default_rng(seed).uniform(-reach, reach, (steps, 1, 3, 8, 8)).astype(np.float32)
    return list(coarse.repeat(32, axis=-1).repeat(32, axis=-2))


@pytest.fixture
def films(monkeypatch):
    """Films in the place of clips."""
    monkeypatch.setattr(exported, "read_films", lambda paths: Films((film(1), film(2)), film(3)))
    # Of the tiny networks' convolutions every one leads straight to an output.
    monkeypatch.setattr(to_int8, "exact_nodes", lambda model: set())


def test_every_call_of_the_loop_is_recorded(tiny):
    feeds = recorded_inputs(tiny, [film(1), film(2)])
    calls = {file: len(calls) for file, calls in feeds.items()}
    # An anchor, what the refiner sees of it and two priming steps, then three steps, and the parser on every frame;
    # twice.
    assert calls == {
        "generator.onnx": 14,
        "encoder_anchor.onnx": 2,
        "refiner.onnx": 2,
        "encoder.onnx": 6,
        "recurrent.onnx": 10,
        "parser.onnx": 8,
    }
    assert {name: array.shape[0] for name, array in feeds["generator.onnx"][1].items()} == {"ws": 2, "noise": 2}


def four_convolutions(bundle, *, bias=False):
    """A parser like no other: a convolution, a depthwise one, another, and the one that gives the logits."""
    spec, rng = bundle.manifest.graphs["parser"], np.random.default_rng(0)
    shapes = [(8, 3, 3, 3), (8, 1, 3, 3), (8, 8, 3, 3), (3, 8, 2, 2)]
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32), f"w{n}")
        for n, shape in enumerate(shapes)
    ]
    weights.append(numpy_helper.from_array(rng.standard_normal(8).astype(np.float32), "bias"))
    nodes = [
        helper.make_node("Conv", ["crop", "w0", "bias"] if bias else ["crop", "w0"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "w3"], ["logits"], strides=[2, 2]),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in side.items()]
        for side in (spec.inputs, spec.outputs)
    ]
    graph = helper.make_graph(nodes, "parser", *ports, weights if bias else weights[:-1])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model, spec


def answer_of(model, spec, folder, crop):
    onnx.save(model, folder / "parser.onnx")
    return OnnxRuntime().open(folder / "parser.onnx", spec, "cpu", "auto")(crop=crop)["logits"]


def test_convolutions_become_int8_but_for_the_thin_and_the_last(tiny, tmp_path):
    model, spec = four_convolutions(tiny)
    made = quantised(model, [{"crop": crop} for crop in (*film(1), *film(2))])
    onnx.checker.check_model(made, full_check=True)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    weights = {array.shape: str(array.dtype) for array in constants.values() if array.ndim == 4}
    assert weights == {(8, 3, 3, 3): "int8", (8, 1, 3, 3): "float32", (8, 8, 3, 3): "int8", (3, 8, 2, 2): "float32"}
    points = [node.input[2] for node in made.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert points
    assert not any(constants[name].any() for name in points), "a zero point that is not 0"
    crop = film(3)[0]
    expected, found = (answer_of(graph, spec, tmp_path, crop) for graph in (model, made))
    assert 0.0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_what_calibration_has_not_seen_is_cut_off(tiny, tmp_path):
    model, spec = four_convolutions(tiny)
    made = quantised(model, [{"crop": crop} for crop in film(1, reach=0.02)])
    crop = film(3)[0]
    expected, found = (answer_of(graph, spec, tmp_path, crop) for graph in (model, made))
    assert np.abs(found - expected).max() > 0.5 * np.abs(expected).max()


def test_an_export_is_verified_with_a_clip_that_was_left_out(films, tiny_folder, tmp_path):
    out = export(tiny_folder, Order("onnx", "int8", calibrate=(tmp_path,)), tmp_path / "out")
    figures = json.loads((out / "verify.json").read_text())
    assert figures["tolerance"] == {"figure": "rms", "limit": pytest.approx(0.0632, abs=1e-4)}
    assert figures["film"] == "crops of a clip that was not calibrated on"
    assert figures["steps"] == 4
    assert 1e-4 < max(output["rms"] for output in figures["outputs"].values()) < 0.0632
    networks = open_networks(open_bundle(out), OnnxRuntime())
    assert np.isfinite(networks.parser(crop=film(5)[0])["logits"]).all()


def test_engines_in_int8_keep_their_biases_in_float(films, tiny_folder, tmp_path):
    """TensorRT for RTX reads no int32; and each pair of QuantizeLinear and DequantizeLinear is a layer of its own."""
    pytest.importorskip("tensorrt_rtx", reason="could not import tensorrt_rtx", exc_type=ImportError)
    out = export(tiny_folder, Order("tensorrt", "int8", calibrate=(tmp_path,)), tmp_path / "out")
    fingerprint = read_fingerprint(out)
    assert (fingerprint.precision, fingerprint.targets) == ("int8", TARGETS)
    assert "the ONNX in onnxruntime" in json.loads((out / "verify.json").read_text())["target"]
    plain_out = export(tiny_folder, Order("tensorrt", "fp32"), tmp_path / "plain")
    layers = [read_fingerprint(folder).engines["generator.engine"].layers for folder in (out, plain_out)]
    # One convolution: its input and its weights are quantised and dequantised.
    assert layers[0] >= layers[1] + 4
    model, spec = four_convolutions(open_bundle(tiny_folder), bias=True)
    feeds, wanted = [{"crop": crop} for crop in film(1)], plan("int8", ("8.9",))
    with pytest.raises(ExportError, match=r"cannot read parser.onnx: DequantizeLinear .*Int32") as caught:
        build(quantised(model, feeds), spec, wanted, (1, 2, 8), "parser.onnx")
    assert "\n" not in str(caught.value)
    made = quantised(model, feeds, float_biases=True)
    assert len(build(made, spec, wanted, (1, 2, 8), "parser.onnx")[1]) > 5_000


def test_an_export_that_is_too_coarse_is_not_written(films, monkeypatch, tiny_folder, tmp_path):
    def coarse(model, feeds, *, float_biases):
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim > 1:
                tensor.CopyFrom(numpy_helper.from_array(np.round(values * 2) / 2, tensor.name))
        return model

    monkeypatch.setattr(exported, "quantised", coarse)
    with pytest.raises(ExportError, match=r"the rms error of .* but int8 allows 0.0632"):
        export(tiny_folder, Order("onnx", "int8", calibrate=(tmp_path,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_clip_is_too_few(tmp_path):
    (tmp_path / "one.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="1 given, name at least two"):
        read_films([tmp_path / "one.mp4"])


@pytest.mark.slow
def test_the_default_bundle_on_real_clips(clips, tmp_path, capfd):
    """30 dB on a clip of a person that was not calibrated on."""
    names = ("grid_lrwp9a.mpg", "grid_bbaf2n.mpg", "Obama_speaking.mp4", "carphone_pristine.mp4", "Twitch1.mp4")
    words = [word for name in names for word in ("--calibrate", str(clips / name))]
    out = tmp_path / "out"
    assert main(["export", "default", "--to", "onnx", "--precision", "int8", *words, "--out", str(out)]) == 0
    assert capfd.readouterr().err == ""
    assert (out / "generator.onnx").stat().st_size < 18e6
