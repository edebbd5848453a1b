"""OpenVINO, the default on the CPU: bf16 where the processor has it, a graph compiled for each batch size.

A static shape is what makes the generator fast here; a session calls each graph with one or two batch sizes, so they
are compiled on first use and kept.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import GraphSpec
from engine.errors import BundleError
from engine.openvino_core import openvino_core
from engine.runtimes.base import Device, FloatArray, Network, Precision, Replay, batch_of, mismatch, shape_for


class OpenVinoRuntime:
    """Runs graphs with OpenVINO's CPU plug-in. threads: 0 takes one for each physical core."""

    name = "openvino"
    stream = None

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Runtime.capture`."""
        return None

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        if importlib.util.find_spec("openvino") is None:
            return ("the package openvino is not installed",)
        found = []
        if device != "cpu":
            found.append(f"it runs on cpu only, not on {device}")
        if precision in ("fp16", "int8"):
            found.append(f"it computes in fp32 or bf16, not in {precision}")
        if precision == "bf16" and not self._has_bf16:
            found.append("this processor has no bf16 instructions (AVX512_BF16 or AMX)")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        return f"openvino {importlib.metadata.version('openvino')} on {device} in {self._resolved(precision)}"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        try:
            graph = openvino_core().read_model(model)
        except RuntimeError as error:
            raise BundleError(f"{model} cannot be read as ONNX: {_first_line(error)}") from error
        wrong = mismatch(spec, _names(graph.inputs), _names(graph.outputs))
        if wrong is not None:
            raise BundleError(f"{model} {wrong}")
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self._resolved(precision)],
        }
        if self._threads:
            options["INFERENCE_NUM_THREADS"] = self._threads
        return _OpenVinoNetwork(graph, spec, options, model)

    @property
    def _has_bf16(self) -> bool:
        return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def _resolved(self, precision: Precision) -> Precision:
        """The precision that `auto` comes to on this processor."""
        if precision != "auto":
            return precision
        return "bf16" if self._has_bf16 else "fp32"


class _OpenVinoNetwork:
    """One graph, with an inference request for every batch size seen so far."""

    def __init__(self, graph: Any, spec: GraphSpec, options: Mapping[str, Any], model: Path) -> None:
        self._graph = graph
        self._spec = spec
        self._options = options
        self._model = model
        self._requests: dict[int, Any] = {}

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        batch = batch_of(self._spec, arrays)
        request = self._requests.get(batch) or self._compile(batch)
        inputs = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        request.infer(inputs, share_inputs=True)
        # The request writes its next answer into the same memory, and the loop keeps these arrays for a frame.
        return {name: request.get_tensor(name).data.copy() for name in self._spec.outputs}

    def close(self) -> None:
        """See `Network.close`."""
        self._requests.clear()
        self._graph = None

    def _compile(self, batch: int) -> Any:
        graph = self._graph.clone()
        try:
            graph.reshape({name: list(shape_for(self._spec, name, batch)) for name in self._spec.inputs})
            compiled = openvino_core().compile_model(graph, "CPU", dict(self._options))
        except RuntimeError as error:
            raise BundleError(f"{self._model} does not run with the manifest's shapes: {_first_line(error)}") from error
        self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]


def _names(ports: Any) -> set[str]:
    return {name for port in ports for name in port.get_names()}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
