"""The kernels on each device there is: compiled for the CPU by g++, and on a card through CuPy."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from engine.kernels.load import CudaKernels, Kernels
from tests.engine.kernels.host_kernels import HostKernels


@dataclass(frozen=True)
class Bench:
    """Kernels, and the way of NumPy arrays to their device and back; views stay views."""

    kernels: Kernels

    def put(self, array: np.ndarray) -> Any:
        placed = self.kernels.empty(array.shape, array.dtype)
        self.kernels.upload(placed, np.ascontiguousarray(array))
        return placed

    def get(self, array: Any) -> np.ndarray:
        if isinstance(array, np.ndarray):
            return array
        self.kernels.stream.synchronize()
        return array.get(blocking=True)


@pytest.fixture(scope="session")
def open_bench():
    """Gives the bench of a device and a type of the networks' arrays; compiles once."""

    @cache
    def opened(device: str, real: type = np.float32) -> Bench:
        if device == "cuda":
            return Bench(CudaKernels.open(real))
        return Bench(HostKernels(real))

    return opened


@pytest.fixture
def bench(device, open_bench):
    """The bench with float32 networks."""
    return open_bench(device)
