"""A signal after OpenVINO has been used and put away does not end the process."""

import subprocess
import sys

PROGRAM = """
import ctypes, gc, signal
import numpy as np, openvino as ov
from openvino import opset8 as ops
from engine.openvino_core import openvino_core

def infer(core):
    x = ops.parameter([1, 64, 64, 64], np.float32)
    weight = np.zeros((64, 64, 3, 3), np.float32)
    model = ov.Model([ops.convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1])], [x])
    core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})([np.zeros((1, 64, 64, 64))])

heard = []
signal.signal(signal.SIGINT, lambda *received: heard.append(received))
# Two users, who go in the order in which they came.
first = openvino_core()
infer(first)
second = openvino_core()
infer(second)
del first
gc.collect()
del second
gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # what was freed is no memory of the process any more
signal.raise_signal(signal.SIGINT)
assert len(heard) == 1
"""


def test_a_signal_after_an_inference_is_heard():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
