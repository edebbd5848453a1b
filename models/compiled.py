"""Networks on OpenVINO, for the many forward passes of trainings and scores on a CPU.

OpenVINO is imported where it is used: a training on a graphics card does without it.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.openvino_core import openvino_core

if TYPE_CHECKING:
    import openvino as ov


def compile_network(
    network: nn.Module, example: Tensor | tuple[Tensor, ...], precision: str = "f32"
) -> Callable[..., NDArray[np.float32]]:
    """`network` on OpenVINO at the example's shape: ten times the speed of eager torch on a CPU."""
    import openvino

    model = openvino.convert_model(network.eval(), example_input=example)
    examples = example if isinstance(example, tuple) else (example,)
    model.reshape({i: tuple(e.shape) for i, e in enumerate(examples)})
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda *arrays: compiled(list(arrays))[0]


def compile_file(path: Path, shape: Sequence[int], threads: int) -> "ov.CompiledModel":
    """A network's file (ONNX, tflite) with an input of that shape, in f32: a bf16 processor would round its scores."""
    core = openvino_core()
    network = core.read_model(path)
    network.reshape(list(shape))
    return core.compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})


def take_turns(calls: Sequence[Callable[[], object]], runs: int = 25) -> list[float]:
    """Median milliseconds of each call, one after another `runs` times, so that noise meets all alike."""
    taken = []
    for _ in range(runs):
        marks = [time.perf_counter()]
        for call in calls:
            call()
            marks.append(time.perf_counter())
        taken.append(np.diff(marks))
    medians: list[float] = (1e3 * np.median(taken, axis=0)).tolist()
    return medians
