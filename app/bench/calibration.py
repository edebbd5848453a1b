"""A fixed piece of work for the processor, timed beside everything else, so that figures of two machines compare.

Eight pointwise convolutions, 256 channels to 256 channels at 128 x 128 px, 17.2 GFLOP, by OpenVINO on the CPU.
"""

import time
from typing import Any

import numpy as np

from app.report import Samples
from engine.openvino_core import openvino_core

_CONVOLUTIONS, _CHANNELS, _SIDE_PX = 8, 256, 128
_REPEATS = 5
GFLOP = 2e-9 * _CONVOLUTIONS * _CHANNELS**2 * _SIDE_PX**2


class Calibration:
    """The graph in f32, and in bf16 where the processor has it."""

    def __init__(self) -> None:
        core = openvino_core()
        self._input = np.random.default_rng(0).standard_normal((1, _CHANNELS, _SIDE_PX, _SIDE_PX), np.float32)
        precisions = ["f32"]
        if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            precisions.append("bf16")
        options = {"PERFORMANCE_HINT": "LATENCY"}
        self._requests = {
            name: core.compile_model(
                _graph(), "CPU", options | {"INFERENCE_PRECISION_HINT": name}
            ).create_infer_request()
            for name in precisions
        }
        self._samples = {name: Samples() for name in precisions}
        for name in precisions:
            self.answer(name)  # the first run allocates

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that are timed."""
        return tuple(self._requests)

    def answer(self, precision: str) -> np.ndarray:
        """What the graph makes of its fixed input, float32 [1, 256, 128, 128]."""
        request = self._requests[precision]
        request.infer([self._input], share_inputs=True)
        return np.asarray(request.get_output_tensor(0).data)

    def take(self) -> None:
        """Time the graph a few times in each precision."""
        for name, samples in self._samples.items():
            for _ in range(_REPEATS):
                start_s = time.perf_counter()
                self.answer(name)
                samples.add((time.perf_counter() - start_s) * 1e3)

    def as_json(self) -> dict[str, dict[str, float]]:
        """Percentiles in ms, by precision."""
        return {name: samples.percentiles() for name, samples in self._samples.items()}


def _graph() -> Any:
    """The seeded network; its weights keep the variance of what goes through them."""
    import openvino as ov
    from openvino import opset13 as ops

    rng = np.random.default_rng(1)
    image = ops.parameter([1, _CHANNELS, _SIDE_PX, _SIDE_PX], ov.Type.f32, name="image")
    node = image
    for _ in range(_CONVOLUTIONS):
        weights = rng.standard_normal((_CHANNELS, _CHANNELS, 1, 1), np.float32) / np.float32(_CHANNELS**0.5)
        node = ops.convolution(node, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([node], [image], "calibration")
