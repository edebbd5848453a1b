"""Loading the kernels: lazily, and with a reason where it cannot be."""

import subprocess
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from engine.card import card_obstacles
from engine.errors import CardFailed, RuntimeUnavailable
from engine.kernels.load import BLOCK, SOURCES, CudaKernels, grid_of, source_code


class CompileError(Exception):
    """Stands for `cupy.cuda.compiler.CompileException`."""


class CudaError(Exception):
    """Stands for `cupy.cuda.runtime.CUDARuntimeError` and `cupy.cuda.driver.CUDADriverError`."""


class Kernel:
    """Stands for a compiled kernel; remembers its launches."""

    def __init__(self, cupy):
        self.cupy = cupy

    def __call__(self, grid, block, arguments):
        self.cupy.launches.append((grid, block, arguments, self.cupy.current))


class Module:
    """Stands for `cupy.RawModule`."""

    def __init__(self, cupy, code, options, fails):
        self.cupy, self.code, self.options, self.fails = cupy, code, options, fails

    def compile(self):
        if self.fails:
            raise CompileError("kernel.cu(3): error: no such thing\nmore")

    def get_function(self, name):
        assert f"void {name}(" in self.code
        return Kernel(self.cupy)


class Stream:
    """Stands for `cupy.cuda.Stream`."""

    def __init__(self, cupy):
        self.cupy = cupy

    def __enter__(self):
        self.cupy.current = self

    def __exit__(self, *error):
        self.cupy.current = None


@pytest.fixture
def fake_cupy(monkeypatch):
    """A CuPy with as many cards as its attribute `cards` says."""
    cupy = ModuleType("cupy")
    cupy.__spec__ = SimpleNamespace(name="cupy")
    cupy.cards, cupy.fails, cupy.current, cupy.launches, cupy.modules = 1, False, None, [], []

    def count():
        if cupy.cards is None:
            raise CudaError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        return cupy.cards

    def module(code, options):
        cupy.modules.append(Module(cupy, code, options, cupy.fails))
        return cupy.modules[-1]

    cupy.RawModule = module
    cupy.cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CudaError),
        driver=SimpleNamespace(CUDADriverError=CudaError),
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        compiler=SimpleNamespace(CompileException=CompileError),
        Stream=lambda non_blocking: Stream(cupy),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def test_the_engine_does_not_import_cupy():
    code = "import sys, engine.session, engine.kernels.warp, engine.kernels.blend; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_cupy_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeUnavailable, match="cupy is not installed"):
        CudaKernels.open()


@pytest.mark.parametrize(("cards", "reason"), [(0, "no NVIDIA card"), (None, "cudaErrorInsufficientDriver")])
def test_without_a_card_the_reason_says_so(fake_cupy, cards, reason):
    fake_cupy.cards = cards
    with pytest.raises(RuntimeUnavailable, match=reason) as caught:
        CudaKernels.open()
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails_is_one_line(fake_cupy):
    fake_cupy.fails = True
    with pytest.raises(RuntimeUnavailable, match="no such thing") as caught:
        CudaKernels.open()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("real", "word"), [(np.float32, "-DREAL=float"), (np.float16, "-DREAL=__half")])
def test_every_source_is_compiled_when_opened(fake_cupy, real, word):
    kernels = CudaKernels.open(real)
    assert kernels.real == real
    assert [module.code for module in fake_cupy.modules] == [source_code(name) for name in SOURCES]
    assert all(word in module.options for module in fake_cupy.modules)


def test_a_launch_covers_its_outputs_on_the_given_stream(fake_cupy):
    assert card_obstacles() == ()
    stream = Stream(fake_cupy)
    kernels = CudaKernels.open(stream=stream)
    array = object()
    kernels.launch("mask", "erode_rows", (33, 8, 2), array, 7, np.uint32(3_000_000_000))
    ((grid, block, arguments, on),) = fake_cupy.launches
    assert (grid, block) == ((2, 1, 2), BLOCK)
    assert arguments == (array, 7, 3_000_000_000)
    assert [type(value) for value in arguments[1:]] == [np.int32, np.uint32]
    assert on is stream


def test_blocks_hold_every_output_and_no_more_than_they_must():
    assert grid_of((1, 1, 1)) == (1, 1, 1)
    assert grid_of((256, 256, 3)) == (8, 32, 3)
    assert grid_of((257, 9, 1)) == (9, 2, 1)


def test_sources_stand_alone():
    for name in SOURCES:
        assert '#include "' not in source_code(name)
        assert "struct BgrImage" in source_code(name)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Out of memory allocating 1 GB\nmore"), r"out of memory \(Out of memory allocating 1 GB\); close"),
        (CudaError("cudaErrorIllegalAddress: an illegal access"), "the graphics card failed: cudaErrorIllegalAddress"),
    ],
)
def test_what_goes_wrong_at_work_is_one_line(fake_cupy, error, message):
    kernels = CudaKernels.open()

    def work():
        with kernels.at_work():
            assert fake_cupy.current is kernels.stream
            raise error

    with pytest.raises(CardFailed, match=message) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert fake_cupy.current is None


def test_memory_that_is_set_apart_comes_from_a_pool_of_its_own(fake_cupy):
    """The same one every time, and the usual one again afterwards."""
    allocators = ["the usual one"]

    @contextmanager
    def using_allocator(allocator):
        allocators.append(allocator)
        yield
        allocators.pop()

    pools = []

    class Pool:
        def __init__(self):
            pools.append(self)

        def malloc(self, size):
            pass

    fake_cupy.cuda.using_allocator, fake_cupy.cuda.MemoryPool = using_allocator, Pool
    kernels = CudaKernels.open()
    for _ in range(2):
        with kernels.set_apart():
            assert allocators[-1] == pools[0].malloc
        assert allocators == ["the usual one"]
    assert len(pools) == 1


def test_a_mistake_of_ours_is_not_the_cards(fake_cupy):
    with pytest.raises(AssertionError, match="ours"), CudaKernels.open().at_work():
        raise AssertionError("ours")
