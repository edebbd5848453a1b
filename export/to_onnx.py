"""Torch networks to ONNX graphs with named inputs and outputs and a free batch axis, small enough to ship.

`export_graph` writes the graph, `fold_constants` makes its weights plain, `compress` makes the file small. All leave
either the old file or the complete new one.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

OPSET = 18
BATCH = "B"
# Below this many numbers an initialiser saves nothing worth a rounding error: biases, norms and scalars stay float32.
_SMALLEST_COMPRESSED = 1024
_SMALLEST_QUANTIZED = 1 << 19
_SCALES = (".row_scale", ".column_scale")
_FP16_MAX = float(np.finfo(np.float16).max)


def export_graph(
    module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int = OPSET
) -> None:
    """Write `module` in evaluation mode as the ONNX file `path`, weights inside.

    `inputs`: example tensors by graph input name, in the order of forward's arguments. All have the batch first, of
    the same size >= 2 (torch takes a size of 1 for a constant); that axis becomes the free dimension "B", every other
    one is fixed. `outputs`: graph output names in the order of forward's results.
    The modes of the module and its parts are put back. Raises ValueError when the inputs do not share such a batch.
    """
    sizes = {name: tensor.shape[0] for name, tensor in inputs.items()}
    if len(set(sizes.values())) != 1 or min(sizes.values()) < 2:
        raise ValueError(f"example inputs must share one batch size of at least 2, found {sizes}")
    batch = torch.export.Dim(BATCH)
    model = _exported(module, inputs, outputs, opset, tuple({0: batch} for _ in inputs))
    _name_batch(model)
    onnx.checker.check_model(model, full_check=True)
    _write(model, path)


def export_fixed(module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """As `export_graph`, but for the very shapes of the examples, batch included, and with each weight there once.

    What is made of a weight, such as its transpose, is computed anew when a runtime loads the graph.
    """
    model = _exported(module, inputs, outputs, OPSET, None, fold=False)
    onnx.checker.check_model(model, full_check=True)
    _write(model, path)


def _exported(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], opset: int, free: Any, fold: bool = True
) -> ModelProto:
    """free: the free axes of each input, as torch takes them, or None."""
    with _quiet_exporter(), _evaluation_mode(module):
        program = torch.onnx.export(
            module,
            # The exporter takes one tensor given for two inputs for one input.
            tuple(tensor.clone() for tensor in inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=free,
            optimize=fold,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_provenance(model)
    return model


def fold_constants(path: Path) -> None:
    """Compute once what depends on weights alone in the ONNX file `path`, whatever its size.

    A transposed weight, or a filter's norm, becomes an initialiser of its own; the exporter itself folds only small
    ones. Every convolution then has the plain constant weights that quantisers and engine builders look for.
    """
    limit = 1 << 40
    model = optimizer.optimize(onnx.load(path), input_size_limit=limit, output_size_limit=limit)
    _strip_provenance(model)
    _write(model, path)


def compress(path: Path, quantize: bool = False) -> None:
    """Store the large float32 initialisers of the ONNX file `path` small; the graph still computes in float32.

    They are rounded to float16, followed by a Cast that runtimes fold when they load the graph. quantize: matrices of
    half a million numbers or more become int8 instead, with a scale for each row and column, which
    `engine.bundle_build` carries out. Initialisers under 1024 numbers, beyond float16's range or kept in another
    file stay as they are. Compressing twice changes nothing.
    """
    model = onnx.load(path, load_external_data=False)
    kept: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for tensor in model.graph.initializer:
        small, node = _smaller(tensor, quantize)
        kept.extend(small)
        nodes.extend(node)
    nodes.extend(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    _write(model, path)


def _smaller(tensor: TensorProto, quantize: bool) -> tuple[list[TensorProto], list[NodeProto]]:
    """What is stored for a tensor, and the nodes, if any, that make the tensor of it."""
    name = tensor.name
    inline = tensor.data_location != TensorProto.EXTERNAL
    if tensor.data_type != TensorProto.FLOAT or not inline or name.endswith(_SCALES):
        return [tensor], []
    values = numpy_helper.to_array(tensor)
    if quantize and values.ndim == 2 and values.size >= _SMALLEST_QUANTIZED:
        stored = _quantized(values, name)
        *codes, columns = stored
        nodes = [
            helper.make_node("DequantizeLinear", codes, [f"{name}.rows_scaled"], name=f"{name}.rows", axis=0),
            helper.make_node("Mul", [f"{name}.rows_scaled", columns], [name], name=f"{name}.columns"),
        ]
    elif values.size >= _SMALLEST_COMPRESSED and np.all(np.abs(values) <= _FP16_MAX):
        stored = {f"{name}.fp16": values.astype(np.float16)}
        nodes = [helper.make_node("Cast", list(stored), [name], name=f"{name}.cast", to=TensorProto.FLOAT)]
    else:
        return [tensor], []
    return [numpy_helper.from_array(array, key) for key, array in stored.items()], nodes


def _quantized(matrix: NDArray[np.float32], name: str) -> dict[str, NDArray[np.generic]]:
    """int8 codes [O, I], a scale for each row [O] and one for each column [1, I]: their product is the matrix.

    A column's scale is the root of its reach. With none, small columns would come to a few steps; with all of it, every
    column's rounding would be as large beside it as the next one's, those that count most no finer.
    """
    tiny = np.finfo(np.float32).tiny
    columns = np.sqrt(np.maximum(np.abs(matrix).max(axis=0, keepdims=True), tiny))
    rows = np.maximum(np.abs(matrix / columns).max(axis=1), tiny) / 127.0
    codes = np.rint(matrix / columns / rows[:, None]).astype(np.int8)
    return {f"{name}.int8": codes, name + _SCALES[0]: rows, name + _SCALES[1]: columns}


def _strip_provenance(model: ModelProto) -> None:
    """Drop the exporter's notes: stack traces with the exporting machine's paths, larger than small graphs."""
    graph = model.graph
    for owner in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        owner.ClearField("metadata_props")
        owner.ClearField("doc_string")
    # Shapes between nodes follow from the inputs; runtimes infer them anew.
    del graph.value_info[:]


def _name_batch(model: ModelProto) -> None:
    """Call the first axis of every graph output "B" as well, whatever expression the exporter found for it."""
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = BATCH


def _write(model: ModelProto, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(model.SerializeToString())
    partial.replace(path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hold back what torch's exporter says about itself: deprecations within torch and torchvision's absence."""
    noisy = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # Several inputs share the one batch axis on purpose.
            warnings.filterwarnings("ignore", message="# The axis name: B will not be used")
            yield
    finally:
        noisy.setLevel(level)


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
