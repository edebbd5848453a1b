"""Torch networks to ONNX graphs with named inputs and outputs and a free batch axis, small enough to ship.

`export_graph` writes the graph, `fold_constants` makes its weights plain, `compress` halves the file. All leave either
the old file or the complete new one.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

OPSET = 18
BATCH = "B"
# Below this many numbers an initialiser saves nothing worth a rounding error: biases, norms and scalars stay float32.
_SMALLEST_COMPRESSED = 1024
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
    with _quiet_exporter(), _evaluation_mode(module):
        program = torch.onnx.export(
            module,
            # The exporter takes one tensor given for two inputs for one input.
            tuple(tensor.clone() for tensor in inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_provenance(model)
    _name_batch(model)
    onnx.checker.check_model(model, full_check=True)
    _write(model, path)


def fold_constants(path: Path) -> None:
    """Compute once what depends on weights alone in the ONNX file `path`, whatever its size.

    A transposed weight, or a filter's norm, becomes an initialiser of its own; the exporter itself folds only small
    ones. Every convolution then has the plain constant weights that quantisers and engine builders look for.
    """
    limit = 1 << 40
    model = optimizer.optimize(onnx.load(path), input_size_limit=limit, output_size_limit=limit)
    _strip_provenance(model)
    _write(model, path)


def compress(path: Path) -> None:
    """Store the large float32 initialisers of the ONNX file `path` as float16 followed by a Cast to float32.

    The file halves; runtimes fold the casts when they load it, so the graph still computes in float32 with weights
    rounded to float16. Initialisers under 1024 numbers, beyond float16's range or kept in another file stay as they
    are. Compressing twice changes nothing.
    """
    model = onnx.load(path, load_external_data=False)
    kept: list[TensorProto] = []
    casts: list[NodeProto] = []
    for tensor in model.graph.initializer:
        half = _as_half(tensor)
        if half is None:
            kept.append(tensor)
            continue
        kept.append(half)
        casts.append(
            helper.make_node("Cast", [half.name], [tensor.name], name=f"{tensor.name}.cast", to=TensorProto.FLOAT)
        )
    nodes = casts + list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    _write(model, path)


def _as_half(tensor: TensorProto) -> TensorProto | None:
    """The float16 form of a float32 tensor, or None when it is to stay as it is."""
    if tensor.data_type != TensorProto.FLOAT or tensor.data_location == TensorProto.EXTERNAL:
        return None
    values = numpy_helper.to_array(tensor)
    if values.size < _SMALLEST_COMPRESSED or not np.all(np.abs(values) <= _FP16_MAX):
        return None
    return numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.fp16")


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
