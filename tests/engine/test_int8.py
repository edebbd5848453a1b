"""Convolutions in int8: near the float ones however differently their channels reach, and only those measured."""

import numpy as np
import onnx
import onnxruntime
import pytest

from engine.errors import BundleError
from engine.int8 import Reach, giver, in_int8, read_reaches, write_reaches
from tests.engine.tiny_bundle import Graph

WIDE = 8
UNEVEN = np.float32(10.0) ** np.linspace(-1, 1, WIDE, dtype=np.float32)


def uneven_graph(path, tapped=False):
    """x -> a (channels of very different size) -> leaky ReLU -> b -> c -> y; tapped: somebody else sees what b sees."""
    rng = np.random.default_rng(0)
    graph = Graph(rng)
    first = graph.constant(rng.standard_normal((WIDE, 3, 3, 3)).astype(np.float32) * UNEVEN[:, None, None, None])
    bias = graph.constant(UNEVEN)
    seen = graph.add("LeakyRelu", graph.add("Conv", "x", first, bias, name="a", pads=[1, 1, 1, 1]), alpha=0.2)
    second = graph.constant(rng.standard_normal((WIDE, WIDE, 1, 1)).astype(np.float32) / UNEVEN[:, None, None])
    made = graph.add("Conv", seen, second, name="b")
    made = graph.add("Conv", made, graph.weight(WIDE, WIDE, 1, 1), name="c")
    if tapped:
        made = graph.add("Add", made, seen)
    graph.add("Identity", made, name="y")
    graph.save(path, {"x": ("B", 3, 16, 16)}, {"y": ("B", WIDE, 16, 16)})
    return onnx.load(path)


def picture():
    return np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)


def run(model, *names):
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([*names, "y"], {"x": picture()})


def reaches_of(model, *convolutions):
    nodes = {node.output[0]: node for node in model.graph.node}
    *seen, _ = run(model, *(nodes[name].input[0] for name in convolutions))
    return {
        name: Reach(np.abs(array).max(axis=(0, 2, 3)), signed=True)
        for name, array in zip(convolutions, seen, strict=True)
    }


def error(model, quantised):
    (expected,), (found,) = run(model), run(quantised)
    return float(np.sqrt(np.square(found - expected).mean()) / expected.std())


def test_channels_of_very_different_reach_all_keep_their_levels(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx")
    reaches = reaches_of(model, "b", "c")
    even = error(model, in_int8(model, reaches))
    one_for_all = {name: Reach(reach.channels.max(keepdims=True), reach.signed) for name, reach in reaches.items()}
    assert even < 0.02
    assert error(model, in_int8(model, one_for_all)) > 10 * even


def test_it_really_computes_in_int8(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx")
    quantised = in_int8(model, reaches_of(model, "b", "c"))
    kernels = {
        tensor.name: tensor.data_type for tensor in quantised.graph.initializer if tensor.name.endswith(".kernel")
    }
    assert kernels == {"b.kernel": onnx.TensorProto.INT8, "c.kernel": onnx.TensorProto.INT8}
    codes = run(quantised, "b.coded")[0]
    assert codes.dtype == np.int8
    assert (np.abs(codes).max(axis=(0, 2, 3)) == 127).all()
    assert 0.0 < error(model, quantised)


def test_what_reaches_further_than_measured_is_cut_off_and_not_wrapped(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx")
    halves = {name: Reach(reach.channels / 2, True) for name, reach in reaches_of(model, "b").items()}
    codes, _ = run(in_int8(model, halves), "b.coded")
    assert codes.max() == 127
    assert codes.min() >= -128


def test_what_others_see_too_is_not_scaled(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx", tapped=True)
    nodes = {node.output[0]: node for node in model.graph.node}
    assert giver(model, nodes["b"]) is None
    assert giver(model, nodes["c"]).output[0] == "b"
    seen = reaches_of(model, "b")["b"]
    one = in_int8(model, {"b": Reach(seen.channels.max(keepdims=True), True)})
    np.testing.assert_array_equal(run(one, nodes["b"].input[0])[0], run(model, nodes["b"].input[0])[0])
    with pytest.raises(BundleError, match="measure anew"):
        in_int8(model, {"b": seen})


def test_stale_reaches_are_refused(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx")
    with pytest.raises(BundleError, match="no convolution 'elsewhere'"):
        in_int8(model, {"elsewhere": Reach(np.ones(1, np.float32), True)})
    with pytest.raises(BundleError, match=f"{WIDE} channels, not 3"):
        in_int8(model, {"b": Reach(np.ones(3, np.float32), True)})


def test_reaches_are_read_as_written(tmp_path):
    written = {"g.onnx": {"b": Reach(np.array([0.5, 12.25], np.float32), False)}}
    write_reaches(tmp_path / "reach.json", written)
    found = read_reaches(tmp_path / "reach.json")["g.onnx"]["b"]
    np.testing.assert_array_equal(found.channels, written["g.onnx"]["b"].channels)
    assert found.signed is False
    (tmp_path / "reach.json").write_text('{"g.onnx": {"b": [1, 2]}}')
    with pytest.raises(BundleError, match="cannot be read"):
        read_reaches(tmp_path / "reach.json")
