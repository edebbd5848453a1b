"""The `eager` runtime: a bundle's graphs run by torch, one operator after the other.

It is the second opinion that `export.verify` compares every other runtime with, because it shares no code with them,
and it runs on any device that torch knows. On the CPU a half-precision graph is computed as a graphics card does it:
every operator in float32 inside, its result rounded to the type that the graph gives it. On a GPU, the operators of a
batch size are captured as one CUDA graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper
from torch import Tensor

from engine.bundle import GraphSpec
from engine.errors import BundleError
from engine.runtimes.base import Device, FloatArray, Network, Precision, batch_of, mismatch
from export.onnx_ops import OPERATORS, TORCH_TYPES, Attributes, Operator
from export.precision import HALF_TYPES, plain, typed

_HALVES = (torch.float16, torch.bfloat16)


class EagerRuntime:
    """Runs graphs with torch, as they are typed; fp16 and bf16 type a float32 graph first."""

    name = "eager"

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        found = []
        if device == "cuda" and not torch.cuda.is_available():
            found.append(f"torch {torch.__version__} sees no CUDA device")
        if precision == "int8":
            found.append("it computes in fp32, fp16 or bf16, not in int8")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        how = "the bundle's own precision" if precision == "auto" else precision
        return f"eager torch {torch.__version__} on {device} in {how}"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        try:
            graph = plain(onnx.load(model))
        except DecodeError as error:
            raise BundleError(f"{model} cannot be read as ONNX: {error}") from error
        wrong = mismatch(spec, {port.name for port in graph.graph.input}, {port.name for port in graph.graph.output})
        if wrong is not None:
            raise BundleError(f"{model} {wrong}")
        if precision in HALF_TYPES:
            graph = typed(graph, precision)
        unknown = sorted({node.op_type for node in graph.graph.node} - OPERATORS.keys())
        if unknown:
            raise BundleError(f"{model} has operators that the eager runtime does not know: {', '.join(unknown)}")
        return _EagerNetwork(graph, spec, torch.device(device))


@dataclass(frozen=True)
class _Step:
    """One node: what it does, and the tensors it reads and writes by name; an input left out is ''."""

    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    casts: bool


class _EagerNetwork:
    """One graph as a list of steps."""

    def __init__(self, model: onnx.ModelProto, spec: GraphSpec, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        self._weights = {tensor.name: _tensor(tensor, device) for tensor in model.graph.initializer}
        self._steps = tuple(_step(node) for node in model.graph.node)
        self._captured: dict[int, _Capture] = {}

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        batch = batch_of(self._spec, arrays)
        inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with torch.inference_mode():
            if self._device.type == "cuda":
                outputs = self._replay(batch, inputs)
            else:
                outputs = self._run(inputs)
            # An answer may share memory with a weight or an input.
            return {name: tensor.to("cpu", copy=True).numpy() for name, tensor in outputs.items()}

    def close(self) -> None:
        """See `Network.close`."""
        self._captured.clear()
        self._weights.clear()

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values: dict[str, Any] = {**self._weights, **inputs, "": None}
        for step in self._steps:
            given = [values[name] for name in step.inputs]
            half = next((x.dtype for x in given if x is not None and x.dtype in _HALVES), None)
            if half is None or step.casts or self._device.type != "cpu":
                made = step.operator(given, step.attributes)
            else:
                wide = [x.float() if x is not None and x.dtype == half else x for x in given]
                made = [x.to(half) if x.dtype == torch.float32 else x for x in step.operator(wide, step.attributes)]
            values.update(zip(step.outputs, made, strict=True))
        return {name: values[name] for name in self._spec.outputs}

    def _replay(self, batch: int, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if batch not in self._captured:
            self._captured[batch] = self._capture(inputs)
        captured = self._captured[batch]
        for name, tensor in inputs.items():
            captured.inputs[name].copy_(tensor)
        captured.graph.replay()
        return captured.outputs

    def _capture(self, inputs: Mapping[str, Tensor]) -> "_Capture":
        fixed = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._run(fixed)  # libraries choose their kernels on the first run, which cannot be captured
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._run(fixed)
        return _Capture(graph, fixed, outputs)


@dataclass(frozen=True)
class _Capture:
    """The graph of one batch size and the memory it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def _step(node: onnx.NodeProto) -> _Step:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    operator = OPERATORS[node.op_type]
    return _Step(operator, tuple(node.input), tuple(node.output), attributes, node.op_type == "Cast")


def _tensor(weight: onnx.TensorProto, device: torch.device) -> Tensor:
    kind = TORCH_TYPES[weight.data_type]
    values = numpy_helper.to_array(weight)
    if kind not in (torch.int64, torch.int32):
        # Through float32, because torch does not know NumPy's bfloat16.
        return torch.from_numpy(values.astype(np.float32)).to(device, kind)
    return torch.from_numpy(values.copy())
