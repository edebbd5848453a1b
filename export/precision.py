"""Sets the precision of an ONNX graph by typing it: TensorRT for RTX computes each node in the types it finds.

`typed` moves a graph to fp16 or bf16 but for the places that do not bear it, `without_dense` rewrites fp32 matrix
products for graphics cards that have none. Inputs and outputs stay float32, so that a graph in any precision keeps the
interface that the manifest promises.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from engine.errors import ExportError
from engine.graphs import replace_nodes
from engine.runtimes.base import Precision

HALF_TYPES: Mapping[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

_BF16_OPSET = 22
"""The first one whose convolutions may be bf16."""

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SUMS = frozenset({"Add", "Gemm", "MatMul", "ReduceSum", "ReduceMean"})
_FLOAT_ONLY = frozenset({"Sqrt", "Reciprocal", "Pow", "ReduceMean", "ReduceSum"})
"""Squares overflow fp16, and a sum of thousands of numbers loses its digits in bf16."""


def typed(model: ModelProto, precision: Precision) -> ModelProto:
    """A copy of a plain float32 graph that computes in `precision`: fp32, fp16 or bf16.

    Kept in float32: what leads from the last weighted layer to an output, the sums of squares under a square root
    (demodulation, norms) and global means. Raises ExportError when the graph has parts that cannot be typed.
    """
    fresh = ModelProto()
    fresh.CopyFrom(model)
    if precision == "fp32":
        return fresh
    if precision not in HALF_TYPES:
        raise ExportError(f"a graph cannot be typed as {precision}; expected fp32, fp16 or bf16")
    if precision == "bf16" and _opset(fresh) < _BF16_OPSET:
        fresh = version_converter.convert_version(fresh, _BF16_OPSET)
    kinds = _element_types(fresh)
    exact = exact_nodes(fresh)
    _retype(fresh, kinds, exact, HALF_TYPES[precision])
    _check(fresh)
    return fresh


def without_dense(model: ModelProto) -> ModelProto:
    """A copy with every float32 Gemm of constant weights as the 1x1 convolution that is the same function.

    TensorRT for RTX has no fp32 matrix product for compute capability 7.5, but it has fp32 convolutions.
    """
    fresh = ModelProto()
    fresh.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in fresh.graph.initializer}
    added: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for node in fresh.graph.node:
        matrix = weights.get(node.input[1]) if node.op_type == "Gemm" else None
        simple = matrix is not None and matrix.data_type == TensorProto.FLOAT and _is_plain_product(node)
        if matrix is None or not simple:
            nodes.append(node)
            continue
        made, tensors = _as_convolution(node, numpy_helper.to_array(matrix))
        nodes += made
        added += tensors
    replace_nodes(fresh, nodes, [*fresh.graph.initializer, *added])
    _check(fresh)
    return fresh


def _is_plain_product(gemm: NodeProto) -> bool:
    return all(_attribute(gemm, name, default) == default for name, default in (("alpha", 1.0), ("beta", 1.0))) and (
        _attribute(gemm, "transA", 0) == 0
    )


def _as_convolution(gemm: NodeProto, matrix: np.ndarray) -> tuple[list[NodeProto], list[TensorProto]]:
    """[B, K] -> [B, K, 1, 1] -> convolution -> [B, N]."""
    rows = matrix if _attribute(gemm, "transB", 0) else matrix.T
    name = gemm.output[0]
    kernel = numpy_helper.from_array(np.ascontiguousarray(rows)[:, :, None, None], f"{name}.kernel")
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), f"{name}.axes")
    seen, made = f"{name}.pixel", f"{name}.made"
    nodes = [
        helper.make_node("Unsqueeze", [gemm.input[0], axes.name], [seen], name=f"{name}.unsqueeze"),
        helper.make_node("Conv", [seen, kernel.name, *gemm.input[2:]], [made], name=f"{name}.conv"),
        helper.make_node("Squeeze", [made, axes.name], [name], name=f"{name}.squeeze"),
    ]
    return nodes, [kernel, axes]


def exact_nodes(model: ModelProto) -> set[str]:
    """The nodes that compute in float32, by their first output."""
    producers = {name: node for node in model.graph.node for name in node.output}
    exact = {node.output[0] for node in model.graph.node if node.op_type in _FLOAT_ONLY}
    for output in model.graph.output:
        exact |= _back_from(output.name, producers, lambda node: node.op_type not in _WEIGHTED)
    for node in model.graph.node:
        if node.op_type == "Sqrt":
            exact |= _back_from(node.input[0], producers, lambda node: node.op_type in _SUMS)
    return exact


def _back_from(name: str, producers: Mapping[str, NodeProto], goes_on: Callable[[NodeProto], bool]) -> set[str]:
    """What a tensor is computed from, up to and with the first nodes at which `goes_on` says no."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.output[0] in found:
            continue
        found.add(node.output[0])
        if goes_on(node):
            waiting += node.input
    return found


def _retype(model: ModelProto, kinds: Mapping[str, int], exact: set[str], half: int) -> None:
    """Sets the type of every float32 node but the exact ones to `half`, with casts where the two meet."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    types: dict[str, int] = {name: TensorProto.FLOAT for name, kind in kinds.items() if kind == TensorProto.FLOAT}
    made: dict[str, TensorProto] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        keeps = node.op_type in ("Cast", "Constant") or node.output[0] in exact
        wanted = TensorProto.FLOAT if keeps else half
        for place in _float_inputs(node, kinds):
            name = node.input[place]
            if types[name] == wanted:
                continue
            other = f"{name}.{_suffix(wanted)}"
            if other not in types:
                types[other] = wanted
                if name in weights:
                    made[other] = _rounded(weights[name], other, half)
                else:
                    nodes.append(helper.make_node("Cast", [name], [other], name=other, to=wanted))
            node.input[place] = other
        nodes.append(node)
        if not keeps:
            types |= {name: half for name in node.output if kinds.get(name) == TensorProto.FLOAT}
    replace_nodes(model, nodes, [*weights.values(), *made.values()])


def _float_inputs(node: NodeProto, kinds: Mapping[str, int]) -> list[int]:
    """The places of the inputs that must have the node's own type."""
    if node.op_type in ("Cast", "Shape"):
        return []
    # The scales of a Resize are float32 whatever it resizes.
    places = range(1 if node.op_type == "Resize" else len(node.input))
    return [place for place in places if kinds.get(node.input[place]) == TensorProto.FLOAT]


def _suffix(kind: int) -> str:
    return str(helper.tensor_dtype_to_string(kind)).rpartition(".")[2].lower()


def _rounded(tensor: TensorProto, name: str, half: int) -> TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(half))
    if not np.isfinite(values.astype(np.float32)).all():
        raise ExportError(f"the weight {tensor.name} does not fit {_suffix(half)}; export with --precision fp32")
    return numpy_helper.from_array(values, name)


def _element_types(model: ModelProto) -> Mapping[str, int]:
    """The element type of every tensor of the graph, by name."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)
    }
    unknown = [name for node in graph.node for name in node.output if name and not kinds.get(name)]
    if unknown:
        raise ExportError(f"the type of {', '.join(unknown[:3])} cannot be inferred; export with --precision fp32")
    return kinds


def _check(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the rewritten graph is no valid ONNX: {str(error).splitlines()[0]}") from error


def _opset(model: ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _attribute(node: NodeProto, name: str, default: float | int = 0) -> float | int:
    for attribute in node.attribute:
        if attribute.name == name:
            value: float | int = helper.get_attribute_value(attribute)
            return value
    return default
