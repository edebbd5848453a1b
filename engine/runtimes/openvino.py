"""OpenVINO, the default on the CPU: in what this processor is best at, the images of a batch side by side.

A frame mostly has two things to do at once: inversion and edit, two masks, the two encoders. Each gets half of the
threads and a graph compiled for one image. Threads that share one image wait for each other after every layer, and
wait long where another program takes a core: on two busy cores two images took half as long this way. A single image
that somebody waits for, an edit whose inversion is estimated, has all threads all the same.
"""

import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import GraphSpec
from engine.errors import BundleError
from engine.openvino_core import openvino_core
from engine.runtimes.base import Answer, Device, FloatArray, Network, Precision, Replay, batch_of, mismatch, shape_for

SIDE_BY_SIDE = 2
"""Images that go through a graph at the same time, where there are as many threads."""

MANY_CHANNELS = 128
"""From so many on, what goes in and comes out lies channels last in memory, as the plug-in's convolutions have it.

Its axes are the graph's all the same. A noise map that lies channel after channel makes OpenVINO turn not only itself
but every array around it. Fewer channels are faster turned by the plug-in.
"""


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
        if precision == "fp16":
            found.append("it computes in fp32, bf16 or int8, not in fp16")
        if precision == "bf16" and not self._can("BF16"):
            found.append("this processor has no bf16 instructions (AVX512_BF16 or AMX)")
        if precision == "int8" and not self._can("INT8"):
            found.append("it has no int8 on this processor")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        resolved = self._resolved(precision)
        words = f"int8 or {self._float}" if resolved == "int8" else resolved
        return f"openvino {importlib.metadata.version('openvino')} on {device} in {words}"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        resolved = self._resolved(precision)
        if resolved == "int8":
            # What is not int8 in such a graph, and a graph that there is not in int8, is computed as without it.
            model, resolved = model.with_name(spec.int8 or spec.file), self._float
        try:
            graph = openvino_core().read_model(model)
        except RuntimeError as error:
            raise BundleError(f"{model} cannot be read as ONNX: {_first_line(error)}") from error
        wrong = mismatch(spec, _names(graph.inputs), _names(graph.outputs))
        if wrong is not None:
            raise BundleError(f"{model} {wrong}")
        options: dict[str, Any] = {
            # Streams of two graphs would be pinned to the same core.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[resolved],
        }
        if self._threads:
            options["INFERENCE_NUM_THREADS"] = self._threads
        try:
            graph.reshape({name: list(shape_for(spec, name, 1)) for name in spec.inputs})
            graph = _with_channels_last(graph, spec)
            return _OpenVinoNetwork(
                partial(_Compiled, graph, options), importlib.import_module("openvino").Tensor, spec
            )
        except RuntimeError as error:
            raise BundleError(f"{model} does not run with the manifest's shapes: {_first_line(error)}") from error

    def _can(self, capability: str) -> bool:
        return capability in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    @property
    def _float(self) -> Precision:
        """What it computes in that is not int8."""
        return "bf16" if self._can("BF16") else "fp32"

    def _resolved(self, precision: Precision) -> Precision:
        """The precision that `auto` comes to on this processor.

        int8 but on a processor with AMX, where the light generator takes as long in int8 as in bf16 or longer.
        """
        if precision != "auto":
            return precision
        return "int8" if self._can("INT8") and _is_x86() and not _has_amx() else self._float


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _has_amx() -> bool:
    """Whether the processor says so; only Linux tells, and hardly another system runs on such a one."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class _Compiled:
    """A graph for one image, with an inference request for every one that is under way at the same time."""

    def __init__(self, graph: Any, options: Mapping[str, Any], streams: int) -> None:
        self._compiled = openvino_core().compile_model(graph, "CPU", {**options, "NUM_STREAMS": streams})
        self.idle: list[Any] = []

    def request(self) -> Any:
        """One that is idle, or a new one."""
        return self.idle.pop() if self.idle else self._compiled.create_infer_request()


class _OpenVinoNetwork:
    """One graph, compiled for images side by side and, when one is first waited for, for one that has all threads."""

    def __init__(self, compiled: Callable[[int], _Compiled], tensor: Callable[..., Any], spec: GraphSpec) -> None:
        """compiled: for so many streams. tensor: `openvino.Tensor`."""
        self._compiled = cache(compiled)
        self._compiled(SIDE_BY_SIDE)
        self._tensor = tensor
        self._spec = spec
        # What OpenVINO reads and writes until an answer is fetched, even when nobody fetches it.
        self._in_use: dict[int, object] = {}

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        batch = batch_of(self._spec, arrays)
        return self._begun(self._compiled(1 if batch == 1 else SIDE_BY_SIDE), batch, arrays)()

    def begin(self, **arrays: FloatArray) -> Answer:
        """See `SideBySide.begin`."""
        return self._begun(self._compiled(SIDE_BY_SIDE), batch_of(self._spec, arrays), arrays)

    def _begun(self, compiled: _Compiled, batch: int, arrays: Mapping[str, FloatArray]) -> Answer:
        inputs = {name: np.ascontiguousarray(_as_it_lies(array)) for name, array in arrays.items()}
        answer = {name: _room(shape_for(self._spec, name, batch)) for name in self._spec.outputs}
        outputs = {name: _as_it_lies(array) for name, array in answer.items()}
        requests = [compiled.request() for _ in range(batch)]
        self._in_use[id(answer)] = (inputs, answer, requests)
        for row, request in enumerate(requests):
            for name, array in (inputs | outputs).items():
                request.set_tensor(name, self._tensor(array[row : row + 1], shared_memory=True))
            request.start_async()

        def fetched() -> Mapping[str, FloatArray]:
            for request in requests:
                request.wait()
            del self._in_use[id(answer)]
            compiled.idle.extend(requests)
            return answer

        return fetched

    def close(self) -> None:
        """See `Network.close`."""
        self._compiled.cache_clear()


def _with_channels_last(graph: Any, spec: GraphSpec) -> Any:
    """The graph with what has many channels channels last on its outside.

    Inside, it goes through a convolution that changes nothing. Where an int8 convolution's answer and such an input are
    added, the plug-in would else turn both, and what comes after them too.
    """
    for port in graph.inputs:
        if _has_many_channels(tuple(port.shape)):
            _convolve_with_ones(port)
    preprocess = importlib.import_module("openvino.preprocess").PrePostProcessor(graph)
    layout = importlib.import_module("openvino").Layout
    for names, port in ((spec.inputs, preprocess.input), (spec.outputs, preprocess.output)):
        for name in names:
            if _has_many_channels(shape_for(spec, name, 1)):
                port(name).model().set_layout(layout("NCHW"))
                port(name).tensor().set_layout(layout("NHWC"))
    return preprocess.build()


def _convolve_with_ones(port: Any) -> None:
    """Gives those who see this input [B, C, H, W] the same numbers from a depthwise convolution."""
    operators = importlib.import_module("openvino.opset15")
    users = port.get_target_inputs()
    ones = np.ones((port.shape[1], 1, 1, 1, 1), np.float32)
    same = operators.group_convolution(port, ones, [1, 1], [0, 0], [0, 0], [1, 1])
    for user in users:
        user.replace_source_output(same.output(0))


def _has_many_channels(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] >= MANY_CHANNELS


def _as_it_lies(array: FloatArray) -> FloatArray:
    """The array with its axes in the order of memory: [B, H, W, C] where there are many channels."""
    return array.transpose(0, 2, 3, 1) if _has_many_channels(array.shape) else array


def _room(shape: tuple[int, ...]) -> FloatArray:
    """An empty array of this shape, channels last in memory where there are many."""
    if not _has_many_channels(shape):
        return np.empty(shape, np.float32)
    batch, channels, height, width = shape
    return np.empty((batch, height, width, channels), np.float32).transpose(0, 3, 1, 2)


def _names(ports: Any) -> set[str]:
    return {name for port in ports for name in port.get_names()}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
