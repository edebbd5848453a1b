"""ONNX Runtime, the one that runs everywhere: its CPU provider, or on a card whichever of its CUDA providers is there.

A provider computes a graph in the types that the graph has: a bundle exported in fp16 or bf16 stays so. On a card,
arrays of CuPy are bound by name and never copied, and so are the results; everything is put on `OnnxRuntime.stream`.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.bundle import GraphSpec
from engine.card import Import, card_errors, card_obstacles, first_line
from engine.errors import BundleError, CardFailed, RuntimeUnavailable
from engine.runtimes.base import Device, FloatArray, Network, Precision, Replay, batch_of, mismatch, shape_for

_CPU_PROVIDER = "CPUExecutionProvider"

CUDA_PROVIDERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "NvTensorRTRTXExecutionProvider": {},
        "TensorrtExecutionProvider": {},
        # fp32 means fp32: TF32 keeps ten bits of it.
        "CUDAExecutionProvider": {"use_tf32": "0"},
    }
)
"""What runs graphs on a card, best first, with the options it is given: TensorRT for RTX, TensorRT, plain CUDA."""


class OnnxRuntime:
    """Runs graphs with ONNX Runtime.

    threads: 0 takes one for each physical core. load: imports CuPy by its name; tests hand in stand-ins.
    """

    name = "onnxruntime"

    def __init__(self, threads: int = 0, load: Import = importlib.import_module) -> None:
        self._threads = threads
        self._load = load

    @cached_property
    def stream(self) -> Any:
        """See `Runtime.stream`."""
        return self._load("cupy").cuda.Stream(non_blocking=True)

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Runtime.capture`: its sessions wait for the card at the end of every run, which a graph cannot hold."""
        return None

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        if importlib.util.find_spec("onnxruntime") is None:
            return ("the package onnxruntime is not installed",)
        found = []
        if device == "cuda" and _cuda_provider() is None:
            found.append(
                f"its cuda providers are missing ({', '.join(CUDA_PROVIDERS)}): "
                f"install the extra gpu-ort, which takes the place of onnxruntime"
            )
        if device == "cuda":
            found += card_obstacles(self._load)
        if precision not in ("auto", "fp32"):
            found.append(
                f"its {device} provider computes in the types of the graph, not in {precision}: "
                f"`rigid-live export BUNDLE --to onnx --precision {precision}` types one"
            )
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        import onnxruntime

        provider = _cuda_provider() if device == "cuda" else _CPU_PROVIDER
        return f"onnxruntime {onnxruntime.__version__} on {device} ({provider}) in fp32 or the graph's own types"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Between two frames a spinning pool would take the cores from the tracker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = _CPU_PROVIDER
        providers: list[tuple[str, dict[str, str]]] = [(_CPU_PROVIDER, {})]
        if device == "cuda":
            # The CPU stands second for operators that the card's provider lacks.
            wanted = _cuda_provider() or _CPU_PROVIDER
            there = {**CUDA_PROVIDERS[wanted], "user_compute_stream": str(self.stream.ptr)}
            providers = [(wanted, there), *providers]
        try:
            session = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:
            # The package's own exceptions have no common base.
            raise BundleError(f"{model} cannot be read as ONNX: {str(error).splitlines()[0]}") from error
        if session.get_providers()[0] != wanted:
            # The package goes on without a provider that does not load, and only prints why.
            raise RuntimeUnavailable(
                f"onnxruntime has {wanted}, but it does not load here (driver, CUDA or cuDNN libraries); "
                f"use --device cpu or another runtime"
            )
        wrong = mismatch(spec, {port.name for port in session.get_inputs()}, {p.name for p in session.get_outputs()})
        if wrong is not None:
            raise BundleError(f"{model} {wrong}")
        if device == "cpu":
            return _OnnxNetwork(session, spec)
        return _CardNetwork(session, spec, self._load("cupy"), self.stream)


def _cuda_provider() -> str | None:
    """The best provider for a card that this installation was built with; None without any."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    return next((name for name in CUDA_PROVIDERS if name in there), None)


class _OnnxNetwork:
    """One graph in an inference session; the batch axis is free."""

    def __init__(self, session: Any, spec: GraphSpec) -> None:
        self._session = session
        self._spec = spec
        self._outputs = list(spec.outputs)

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        batch_of(self._spec, arrays)
        inputs = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def close(self) -> None:
        """See `Network.close`."""
        self._session = None


class _CardNetwork(_OnnxNetwork):
    """One graph in an inference session on a card."""

    def __init__(self, session: Any, spec: GraphSpec, cupy: Any, stream: Any) -> None:
        super().__init__(session, spec)
        self._cupy = cupy
        self._stream = stream

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`; raises CardFailed."""
        if not isinstance(next(iter(arrays.values())), self._cupy.ndarray):
            return super().__call__(**arrays)
        with card_errors(self._cupy), self._stream:
            return self._bound(batch_of(self._spec, arrays), arrays)

    def _bound(self, batch: int, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        binding, card = self._session.io_binding(), self._cupy.cuda.runtime.getDevice()
        inputs = {name: self._cupy.ascontiguousarray(array) for name, array in arrays.items()}
        outputs = {name: self._cupy.empty(shape_for(self._spec, name, batch), np.float32) for name in self._outputs}
        for name, array in inputs.items():
            binding.bind_input(name, "cuda", card, np.float32, array.shape, array.data.ptr)
        for name, array in outputs.items():
            binding.bind_output(name, "cuda", card, np.float32, array.shape, array.data.ptr)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            # The package's own exceptions have no common base.
            raise CardFailed(f"onnxruntime failed on the card: {first_line(error)}") from error
        return outputs
