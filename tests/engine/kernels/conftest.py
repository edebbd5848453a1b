"""The kernels on each device there is: compiled for the CPU by g++, and on a card through CuPy."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from engine.errors import CardFailed
from engine.kernels.load import CudaKernels, Kernels
from engine.kernels.whole_step import open_card
from engine.policies import LostFace
from engine.recurrence import VARIANTS
from engine.session import Session, Settings
from tests.engine.fakes import ScriptedTracker
from tests.engine.kernels.host_kernels import HostKernels
from tests.engine.kernels.remote import DEVICE, RemoteKernels, remote


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


class CountedKernels(RemoteKernels):
    """The host's kernels, with everything counted that a card pays for; `at_work` can fail as a card does."""

    def __init__(self):
        super().__init__()
        self.counts = dict.fromkeys(("uploads", "downloads", "bytes up", "bytes down", "waits", "launches"), 0)
        self.shapes = []
        self.fails_in = None

    def empty(self, shape, dtype):
        self.shapes.append(tuple(shape))
        return super().empty(shape, dtype)

    def upload(self, destination, source):
        self.counts["uploads"] += 1
        self.counts["bytes up"] += source.nbytes
        super().upload(destination, source)

    def download(self, destination, source):
        self.counts["downloads"] += 1
        self.counts["bytes down"] += source.nbytes
        super().download(destination, source)

    def wait(self):
        self.counts["waits"] += 1
        super().wait()

    def launch(self, source, name, outputs, *arguments):
        self.counts["launches"] += 1
        super().launch(source, name, outputs, *arguments)

    def run(self, source, name, outputs, *arguments):
        if name == self.fails_in:
            raise CardFailed("the graphics card is out of memory (1 GB wanted)")
        super().run(source, name, outputs, *arguments)


@pytest.fixture
def kernels():
    """Counted ones."""
    return CountedKernels()


@pytest.fixture
def make_both(tiny, tiny_networks, kernels):
    """Makes two sessions for a script: one on the CPU, one whose pixels are the kernels' work."""

    def make(looks, lost_face=LostFace.HOLD, max_faces=1, variant="full", networks=tiny_networks, *, at_once=True):
        settings, parser = Settings(lost_face, max_faces, VARIANTS[variant]), tiny.manifest.parser
        there, switches = remote(networks), settings.switches
        imaging, whole = open_card(kernels, there, parser, settings.mask, switches, max_faces, DEVICE.capture)
        given = ScriptedTracker(looks), tiny.directions, parser, settings
        on_card = Session(there, *given, imaging=imaging, whole=whole if at_once else None)
        return Session(networks, *given), on_card

    return make
