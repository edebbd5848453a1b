"""Typing a graph: which nodes stay float32, what the casts do to the numbers, and what is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import GraphSpec
from engine.errors import ExportError
from engine.graphs import plain
from export.eager import EagerRuntime
from export.precision import typed, without_dense
from export.to_onnx import compress
from tests.engine.tiny_bundle import Graph

SPEC = GraphSpec("g.onnx", {"ws": ("B", 64), "x": ("B", 64, 8, 8)}, {"image": ("B", 3, 8, 8)})


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """Two modulated convolutions, the first demodulated, and an RGB head; weights stored as float16."""
    graph = Graph(np.random.default_rng(0))
    x = "x"
    for _ in range(2):
        style = graph.add("Gemm", "ws", graph.weight(64, 64), graph.constant(np.ones(64, np.float32)), transB=1)
        squares = graph.add("Pow", style, graph.constant(np.float32(2.0)))
        energies = graph.constant(np.random.default_rng(1).uniform(0.5, 1.5, (64, 64)).astype(np.float32))
        sums = graph.add("Add", graph.add("Gemm", squares, energies, transB=1), graph.constant(np.float32(1e-8)))
        scale = graph.add("Reciprocal", graph.add("Sqrt", sums))
        axes = graph.constant(np.array([2, 3]))
        x = graph.add("Mul", x, graph.add("Unsqueeze", style, axes))
        x = graph.add("Mul", graph.conv(x, 64, 64, scale=8.0), graph.add("Unsqueeze", scale, axes))
        x = graph.add("LeakyRelu", x, alpha=0.2)
    graph.add("Tanh", graph.conv(x, 3, 64), name="image")
    path = tmp_path_factory.mktemp("onnx") / "g.onnx"
    graph.save(path, SPEC.inputs, SPEC.outputs)
    compress(path)
    return onnx.load(path)


def feeds():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((2, *shape[1:])).astype(np.float32) for name, shape in SPEC.inputs.items()}


def run_onnxruntime(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds())[0]


def kinds_of(model):
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}


def test_plain_has_no_halves_and_the_same_numbers(generator):
    model = plain(generator)
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in generator.graph.initializer}
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in model.graph.initializer}
    np.testing.assert_array_equal(run_onnxruntime(model), run_onnxruntime(generator))


@pytest.mark.parametrize(("precision", "half"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_demodulation_and_the_last_layer_stay_float32(generator, precision, half):
    model = typed(plain(generator), precision)
    kinds = kinds_of(model)
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}
    of = {kind: [n for n in model.graph.node if n.op_type == kind] for kind in ("Pow", "Sqrt", "Reciprocal", "Conv")}
    for kind in ("Pow", "Sqrt", "Reciprocal"):
        assert of[kind]
        assert {kinds[node.output[0]] for node in of[kind]} == {TensorProto.FLOAT}
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in of["Sqrt"]:
        add = producers[node.input[0]]
        summed = next(producers[name] for name in add.input if name in producers)
        assert (add.op_type, summed.op_type) == ("Add", "Gemm")
        assert kinds[summed.output[0]] == TensorProto.FLOAT
    assert [kinds[node.output[0]] for node in of["Conv"]] == [half, half, TensorProto.FLOAT]
    assert kinds["image"] == TensorProto.FLOAT


def test_halves_round_and_no_more(generator, tmp_path):
    expected = run_onnxruntime(plain(generator))
    errors = {}
    for precision in ("fp16", "bf16"):
        path = tmp_path / f"{precision}.onnx"
        onnx.save(typed(plain(generator), precision), path)
        found = EagerRuntime().open(path, SPEC, "cpu", "auto")(**feeds())["image"]
        errors[precision] = np.abs(found - expected).mean() / np.abs(expected).max()
    assert 1e-6 < errors["fp16"] < 5e-4
    assert 4 * errors["fp16"] < errors["bf16"] < 4e-3


def test_fp32_is_the_same_graph(generator):
    model = plain(generator)
    assert typed(model, "fp32") == model


def test_products_as_convolutions_are_the_same_function(generator):
    model = without_dense(plain(generator))
    assert "Gemm" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run_onnxruntime(model), run_onnxruntime(generator), atol=1e-6)


def test_halved_products_stay_products(generator):
    """Turing has those; only the float32 ones have to go."""
    model = typed(plain(generator), "fp16")
    kinds = kinds_of(model)
    floats = sum(kinds[n.output[0]] == TensorProto.FLOAT for n in model.graph.node if n.op_type == "Gemm")
    before = sum(n.op_type == "Gemm" for n in model.graph.node)
    assert 0 < floats < before
    assert sum(n.op_type == "Gemm" for n in without_dense(model).graph.node) == before - floats


def weighted(weight):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 4]) for name in ("x", "y")]
    nodes = [helper.make_node("Mul", ["x", "w"], ["t"]), helper.make_node("Relu", ["t"], ["u"])]
    nodes.append(helper.make_node("Gemm", ["u", "m"], ["y"]))
    weights = [numpy_helper.from_array(np.full(4, weight, np.float32), "w")]
    weights.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "m"))
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_weight_beyond_fp16_is_refused():
    with pytest.raises(ExportError, match="weight w does not fit float16"):
        typed(weighted(1e6), "fp16")
    assert typed(weighted(1e6), "bf16").graph.node


def test_a_product_that_is_not_transposed_turns_right():
    model = weighted(1.0)
    matrix = np.arange(16, dtype=np.float32).reshape(4, 4)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(matrix, "m"))
    session = onnxruntime.InferenceSession(without_dense(model).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[1.0, 2.0, 3.0, 5.0]], np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ matrix)


def test_int8_is_refused():
    with pytest.raises(ExportError, match="int8"):
        typed(weighted(1.0), "int8")
