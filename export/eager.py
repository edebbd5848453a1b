"""The `eager` runtime: a bundle's graphs run by torch, one operator after the other.

It is the second opinion that `export.verify` compares every other runtime with, because it shares no code with them,
and it runs on any device that torch knows. On the CPU a half-precision graph is computed as a graphics card does it:
every operator in float32 inside, its result rounded to the type that the graph gives it. On a GPU, the operators of a
batch size are captured as one CUDA graph, which reads and writes the same memory every time; arrays of CuPy are copied
there on the card, and what comes out is a copy. Within `EagerRuntime.capture` they become part of the larger graph.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper
from torch import Tensor

from engine.bundle import GraphSpec
from engine.card import LESS, card_obstacles, first_line
from engine.errors import BundleError, CardFailed
from engine.graphs import plain
from engine.runtimes.base import Device, FloatArray, Network, Precision, Replay, batch_of, mismatch, shape_for
from export.onnx_ops import OPERATORS, TORCH_TYPES, Attributes, Operator
from export.precision import HALF_TYPES, typed

_NONE: Mapping[str, np.ndarray] = MappingProxyType({})
_HALVES = (torch.float16, torch.bfloat16)


class EagerRuntime:
    """Runs graphs with torch, as they are typed; fp16 and bf16 type a float32 graph first."""

    name = "eager"

    @cached_property
    def stream(self) -> Any:
        """See `Runtime.stream`."""
        return importlib.import_module("cupy").cuda.Stream(non_blocking=True)

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Runtime.capture`; raises CardFailed."""
        graph = torch.cuda.CUDAGraph()
        with card_errors(), torch.inference_mode(), on_stream(self.stream) as same:
            # Relaxed, because CuPy may have to ask for memory. One pool for all graphs: none is at work beside another.
            with torch.cuda.graph(graph, pool=self._pool, stream=same, capture_error_mode="relaxed"):
                work()

        def replay() -> None:
            with card_errors(), on_stream(self.stream):
                graph.replay()

        return replay

    @cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        found = []
        if device == "cuda" and not torch.cuda.is_available():
            found.append(f"torch {torch.__version__} sees no CUDA device")
        if device == "cuda":
            found += card_obstacles()
        if precision == "int8":
            found.append("it computes in fp32, fp16 or bf16, not in int8")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        how = "the bundle's own precision" if precision == "auto" else precision
        return f"eager torch {torch.__version__} on {device} in {how}"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        graph = read_graph(model, spec, precision)
        if device == "cpu":
            return EagerNetwork(graph, spec, torch.device(device))
        return _CardNetwork(
            graph, spec, torch.device(device), self.stream if importlib.util.find_spec("cupy") else None
        )


def read_graph(model: Path, spec: GraphSpec, precision: Precision) -> onnx.ModelProto:
    """An ONNX file as plain operators that torch has, in the precision; raises BundleError."""
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
    return graph


@dataclass(frozen=True)
class _Step:
    """One node: what it does, and the tensors it reads and writes by name; an input left out is ''."""

    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    casts: bool


class EagerNetwork:
    """One graph as a list of steps. device: where its weights lie."""

    def __init__(self, model: onnx.ModelProto, spec: GraphSpec, device: torch.device) -> None:
        self._spec = spec
        self.device = device
        self._weights = _weights(model, device)
        self._steps = tuple(_step(node) for node in model.graph.node)

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        batch_of(self._spec, arrays)
        inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with torch.inference_mode():
            # An answer may share memory with a weight or an input.
            return {name: tensor.clone().numpy() for name, tensor in self.run(inputs).items()}

    def close(self) -> None:
        """See `Network.close`."""
        self._weights.clear()

    def numbers(self, inputs: Mapping[str, Tensor]) -> Mapping[str, np.ndarray]:
        """Shapes, indices and scales on the way from inputs of these sizes to the outputs: the same for any content."""
        values = self._values(inputs, {})
        names = {name for name, value in values.items() if value is not None and not value.dtype.is_floating_point}
        names |= {
            name for step in self._steps if step.operator is OPERATORS["Resize"] for name in step.inputs[1:] if name
        }
        return {name: values[name].cpu().numpy() for name in names}

    def run(self, inputs: Mapping[str, Tensor], numbers: Mapping[str, np.ndarray] = _NONE) -> dict[str, Tensor]:
        """The outputs. numbers: what `numbers` gave; then nothing is asked of tensors but what their sizes are."""
        values = self._values(inputs, numbers)
        return {name: values[name] for name in self._spec.outputs}

    def _values(self, inputs: Mapping[str, Tensor], numbers: Mapping[str, np.ndarray]) -> dict[str, Any]:
        values: dict[str, Any] = {**self._weights, **inputs, "": None, **numbers}
        for step in self._steps:
            if all(name in numbers for name in step.outputs):
                continue
            given = [values[name] for name in step.inputs]
            half = next((x.dtype for x in given if x is not None and x.dtype in _HALVES), None)
            if half is None or step.casts or self.device.type != "cpu":
                made = step.operator(given, step.attributes)
            else:
                wide = [x.float() if x is not None and x.dtype == half else x for x in given]
                made = [x.to(half) if x.dtype == torch.float32 else x for x in step.operator(wide, step.attributes)]
            values.update(zip(step.outputs, made, strict=True))
        return values


class _CardNetwork(EagerNetwork):
    """One graph on a card, with a CUDA graph for every batch size seen so far. stream: of CuPy."""

    def __init__(self, model: onnx.ModelProto, spec: GraphSpec, device: torch.device, stream: Any) -> None:
        super().__init__(model, spec, device)
        self._stream = stream
        self._captured: dict[int, _Capture] = {}

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`; raises CardFailed."""
        batch = batch_of(self._spec, arrays)
        from_host = isinstance(next(iter(arrays.values())), np.ndarray)
        with card_errors(), torch.inference_mode(), on_stream(self._stream):
            captured = self._captured.get(batch) or self._capture(batch)
            for name, array in arrays.items():
                if from_host:
                    captured.inputs[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))
                else:
                    captured.arrays[name][...] = array
            if torch.cuda.is_current_stream_capturing():
                # The graph of a whole step holds these operators, and cannot hold another graph's launch.
                with _exact():
                    for name, tensor in self.run(captured.inputs).items():
                        captured.outputs[name].copy_(tensor)
            else:
                captured.graph.replay()
            if from_host:
                return {name: tensor.to("cpu", copy=True).numpy() for name, tensor in captured.outputs.items()}
            return {name: captured.arrays[name].copy() for name in captured.outputs}

    def close(self) -> None:
        """See `Network.close`."""
        self._captured.clear()
        super().close()

    def _capture(self, batch: int) -> "_Capture":
        shapes = {name: shape_for(self._spec, name, batch) for name in self._spec.inputs}
        fixed = {name: torch.zeros(shape, device=self.device) for name, shape in shapes.items()}
        graph = torch.cuda.CUDAGraph()
        with _exact():
            torch.cuda.synchronize(self.device)  # the weights were sent on another stream
            self.run(fixed)  # libraries choose their kernels on the first run, which cannot be captured
            # Other threads may ask for memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = self.run(fixed)
        cupy = importlib.import_module("cupy")
        arrays = {name: cupy.from_dlpack(tensor) for name, tensor in {**fixed, **outputs}.items()}
        self._captured[batch] = _Capture(graph, fixed, outputs, arrays)
        return self._captured[batch]


@dataclass(frozen=True)
class _Capture:
    """The graph of one batch size and the memory it reads and writes. arrays: the same memory as CuPy sees it."""

    graph: torch.cuda.CUDAGraph
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    arrays: Mapping[str, Any]


@contextmanager
def on_stream(stream: Any) -> Iterator[Any]:
    """What torch and CuPy do inside is put on the one stream that both know; gives torch's name for it."""
    same = torch.cuda.ExternalStream(stream.ptr)  # type: ignore[no-untyped-call]
    with stream, torch.cuda.stream(same):
        yield same


def _exact() -> AbstractContextManager[None]:
    """fp32 means fp32: TF32 keeps ten bits of it."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    return flags


@contextmanager
def card_errors() -> Iterator[None]:
    """What torch raises of the card inside becomes CardFailed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CardFailed(f"the graphics card is out of memory ({first_line(error)}); {LESS}") from error
    except torch.AcceleratorError as error:
        raise CardFailed(f"the graphics card failed: {first_line(error)}") from error


def _step(node: onnx.NodeProto) -> _Step:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    operator = OPERATORS[node.op_type]
    return _Step(operator, tuple(node.input), tuple(node.output), attributes, node.op_type == "Cast")


def _weights(model: onnx.ModelProto, device: torch.device) -> dict[str, Tensor]:
    """By name. What a picture is enlarged by stays with the host, which cannot ask a card that captures."""
    host = torch.device("cpu")
    read = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    return {weight.name: _tensor(weight, host if weight.name in read else device) for weight in model.graph.initializer}


def _tensor(weight: onnx.TensorProto, device: torch.device) -> Tensor:
    kind = TORCH_TYPES[weight.data_type]
    values = numpy_helper.to_array(weight)
    if kind not in (torch.int64, torch.int32):
        # Through float32, because torch does not know NumPy's bfloat16.
        return torch.from_numpy(values.astype(np.float32)).to(device, kind)
    return torch.from_numpy(values.copy())
