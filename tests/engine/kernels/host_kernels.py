"""The CUDA sources compiled for the CPU by g++, behind the same interface as on a card."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from engine.kernels.load import BLOCK, REALS, grid_of, source_code

SHIM = Path(__file__).parent / "host"
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(')

Edit = Callable[[str], str]
"""Changes a source before it is compiled, so that a test can plant a mistake."""


class HostKernels:
    """`engine.kernels.load.Kernels` on NumPy arrays; a source is compiled when its first kernel is launched."""

    def __init__(self, real=np.float32, edit: Edit = str) -> None:
        self.real = np.dtype(real)
        self.threads: dict[str, int] = {}
        self._library = cache(lambda name: _compiled(edit(source_code(name)), self.real))

    def at_work(self):
        return nullcontext()

    def set_apart(self):
        return nullcontext()

    def empty(self, shape, dtype):
        """Filled with a pattern that no test takes for a result."""
        array = np.empty(shape, dtype)
        array.view(np.uint8)[...] = 0xA5
        return array

    def put(self, array):
        return np.array(array)

    def staging(self, shape, dtype):
        return np.zeros(shape, dtype)

    def upload(self, destination, source):
        assert destination.shape == source.shape
        assert destination.dtype == source.dtype
        destination[...] = source

    def download(self, destination, source):
        self.upload(destination, source)

    def wait(self):
        pass

    def launch(self, source, name, outputs, *arguments):
        """Also counts the threads of each kernel."""
        values = [_value(argument) for argument in arguments]
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        triple = ctypes.c_uint * 3
        grid = grid_of(outputs)
        getattr(self._library(source), f"run_{name}")(triple(*grid), triple(*BLOCK), places)
        self.threads[name] = int(np.prod(grid)) * int(np.prod(BLOCK))


@cache
def _compiled(code: str, real: np.dtype) -> ctypes.CDLL:
    """The source with an entry `run_NAME` for each kernel, which takes grid, block and arguments as the driver does."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    entries = (
        f'extern "C" void run_{kernel}(const unsigned* grid, const unsigned* block, void** arguments) '
        f"{{ launch({kernel}, grid, block, arguments); }}\n"
        for kernel in KERNEL.findall(code)
    )
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wno-unknown-pragmas", "-Werror", "-shared", "-fPIC"]
    command += [f"-I{SHIM}", f"-DREAL={REALS[real]}"]
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        text.write_text('#include "host.h"\n' + code + "".join(entries))
        done = subprocess.run([*command, "-o", library, text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


def _value(argument):
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, np.float32):
        return ctypes.c_float(argument)
    return (ctypes.c_uint if isinstance(argument, np.uint32) else ctypes.c_int)(int(argument))


def planted(source: str, right: str, wrong: str) -> HostKernels:
    """The host's kernels with a mistake in one place of one of them."""
    assert source_code(source).count(right) == 1
    assert right != wrong
    return HostKernels(edit=lambda code: code.replace(right, wrong))
