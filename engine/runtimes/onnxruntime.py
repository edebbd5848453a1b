"""ONNX Runtime, the one that runs everywhere; its CPU provider in fp32."""

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import GraphSpec
from engine.errors import BundleError
from engine.runtimes.base import Device, FloatArray, Network, Precision, batch_of, mismatch


class OnnxRuntime:
    """Runs graphs with ONNX Runtime's CPU provider. threads: 0 takes one for each physical core."""

    name = "onnxruntime"

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        if importlib.util.find_spec("onnxruntime") is None:
            return ("the package onnxruntime is not installed",)
        found = []
        if device != "cpu":
            found.append(f"its {device} provider is not supported by this version of the program")
        if precision not in ("auto", "fp32"):
            found.append(f"its cpu provider computes in fp32, not in {precision}")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        return f"onnxruntime {importlib.metadata.version('onnxruntime')} on {device} in fp32"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Between two frames a spinning pool would take the cores from the tracker.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # The package's own exceptions have no common base.
            raise BundleError(f"{model} cannot be read as ONNX: {str(error).splitlines()[0]}") from error
        wrong = mismatch(spec, {port.name for port in session.get_inputs()}, {p.name for p in session.get_outputs()})
        if wrong is not None:
            raise BundleError(f"{model} {wrong}")
        return _OnnxNetwork(session, spec)


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
