"""ONNX Runtime, the one that runs everywhere: its CPU provider, or on a card whichever of its CUDA providers is there.

A provider computes a graph in the types that the graph has: a bundle exported in fp16 or bf16 stays so.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.bundle import GraphSpec
from engine.errors import BundleError, RuntimeUnavailable
from engine.runtimes.base import Device, FloatArray, Network, Precision, batch_of, mismatch

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
    """Runs graphs with ONNX Runtime. threads: 0 takes one for each physical core."""

    name = "onnxruntime"

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

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
            providers = [(wanted, dict(CUDA_PROVIDERS[wanted])), *providers]
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
        return _OnnxNetwork(session, spec)


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
