"""Compiles the kernels for the card that is there and launches them; nothing here imports CuPy before it is asked to.

What the kernels compute is defined by the CPU's code, which they must match within one grey level:

| kernels | definition |
|---|---|
| `warp.cu` | `geometry.align`, then `compositing.image_from_u8` |
| `steady.cu` | `steadying.steadied` |
| `restore.cu` | `restoring.give_back` |
| `mask.cu` | `masks.face_mask` |
| `surroundings.cu` | `surroundings.cut_out` |
| `blend.cu` | `compositing.blend` |

`whole_step.py` puts all of a step on the card as one CUDA graph.

Colour conversion has no file of its own: it is part of reading a pixel (`image.cuh`), so no converted frame is made.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.card import card_errors, card_obstacles, first_line
from engine.errors import RuntimeUnavailable

FOLDER = Path(__file__).parent
SOURCES = ("warp", "steady", "restore", "mask", "surroundings", "blend")
HEADER = "image.cuh"

REALS = {np.dtype(np.float32): "float", np.dtype(np.float16): "__half"}
"""Types of the networks' arrays and what CUDA calls them."""

BLOCK = (32, 8, 1)
"""Threads of one block: a warp writes neighbours of one row."""

Array = Any
"""An array on the kernels' device: CuPy's, or NumPy's where the same source is compiled for the CPU."""


class Kernels(Protocol):
    """The kernels on one device. Whatever is asked for happens in the order asked, all of it on one stream.

    Nothing but `empty`, `put` and `staging` allocates memory, and nothing but `wait` waits for the device.
    """

    @property
    def real(self) -> np.dtype[Any]:
        """The type of the networks' arrays, float32 or float16."""
        ...

    def at_work(self) -> AbstractContextManager[None]:
        """What array code computes on the device inside is in the same order; a failing device raises CardFailed."""
        ...

    def set_apart(self) -> AbstractContextManager[None]:
        """Memory that is asked for inside is nobody else's later, also when it is not in use."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """A new array on the device, not set to anything."""
        ...

    def put(self, array: NDArray[Any]) -> Array:
        """A copy of the array on the device; the array may be changed at once."""
        ...

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array of the host that the device reads and writes fast, not set to anything."""
        ...

    def upload(self, destination: Array, source: NDArray[Any]) -> None:
        """Copy from the host to an array of the same shape and type; `source` must stay as it is until it is done."""
        ...

    def download(self, destination: NDArray[Any], source: Array) -> None:
        """Copy to an array of the host of the same shape and type, which holds it once `wait` has returned."""
        ...

    def wait(self) -> None:
        """Return when all that was asked for is done."""
        ...

    def launch(
        self, source: str, name: str, outputs: tuple[int, int, int], *arguments: Array | int | np.float32
    ) -> None:
        """Run a kernel of a `SOURCES` file with one thread for each of (width, height, faces) outputs."""
        ...


def source_code(name: str) -> str:
    """The text of a kernel file with its header in place, so that a compiler's cache sees a change of either."""
    code = (FOLDER / f"{name}.cu").read_text(encoding="utf-8")
    return code.replace(f'#include "{HEADER}"', (FOLDER / HEADER).read_text(encoding="utf-8"))


def grid_of(outputs: tuple[int, int, int]) -> tuple[int, int, int]:
    """How many blocks of `BLOCK` threads hold so many outputs."""
    x, y, z = (-(-count // threads) for count, threads in zip(outputs, BLOCK, strict=True))
    return x, y, z


def frame_arguments(frame: Array) -> tuple[Array | int, ...]:
    """What a kernel takes of a frame on the device: the array and its strides in bytes.

    frame: uint8 BGR [H, W, 3], any view, or uint8 NV12 [H * 3 / 2, W] with H and W even and rows in one piece.
    """
    assert frame.dtype == np.uint8, f"a frame of {frame.dtype}"
    if frame.ndim == 3:
        assert frame.shape[2] == 3, f"a frame of {frame.shape}"
        return frame, *(int(step) for step in frame.strides)
    rows, width = frame.shape
    assert rows % 3 == 0, f"NV12 of {frame.shape}"
    assert width % 2 == 0, f"NV12 of {frame.shape}"
    assert frame.strides[1] == 1, f"NV12 with strides {frame.strides}"
    return frame, int(frame.strides[0])


def frame_size(frame: Array) -> tuple[int, int]:
    """(width, height) of a frame in either layout."""
    return (frame.shape[1], frame.shape[0]) if frame.ndim == 3 else (frame.shape[1], frame.shape[0] * 2 // 3)


def check(array: Array, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """An assertion fails when a kernel would misread the array, which must lie in one piece."""
    assert array.dtype == np.dtype(dtype), f"{array.dtype} where {np.dtype(dtype)} was expected"
    assert array.shape == shape, f"{array.shape} where {shape} was expected"
    assert array.flags.c_contiguous, f"strides {array.strides}"


class CudaKernels:
    """The kernels on the current NVIDIA card; see `Kernels`."""

    def __init__(self, cupy: Any, modules: dict[str, Any], real: np.dtype[Any], stream: Any) -> None:
        self._cupy = cupy
        self._modules = modules
        self._real = real
        self._stream = stream

    @classmethod
    def open(cls, real: DTypeLike = np.float32, stream: Any = None) -> Self:
        """Compile all kernels; seconds the first time on a machine, then CuPy's cache has them.

        real: float32 or float16. stream: a CuPy stream, by default a new one. Raises RuntimeUnavailable.
        """
        reasons = card_obstacles()
        if reasons:
            raise RuntimeUnavailable(f"the CUDA kernels cannot be used: {'; '.join(reasons)}")
        import cupy

        kind = np.dtype(real)
        options = (f"-DREAL={REALS[kind]}", "--std=c++17")
        modules = {name: cupy.RawModule(code=source_code(name), options=options) for name in SOURCES}
        try:
            for module in modules.values():
                module.compile()
        except (ImportError, OSError, RuntimeError, cupy.cuda.compiler.CompileException) as error:
            raise RuntimeUnavailable(
                f"the CUDA kernels do not compile here: {first_line(error)}; CuPy needs the CUDA toolkit's NVRTC and "
                "headers (pip install 'cupy-cuda13x[ctk]')"
            ) from error
        return cls(cupy, modules, kind, cupy.cuda.Stream(non_blocking=True) if stream is None else stream)

    @property
    def real(self) -> np.dtype[Any]:
        """See `Kernels.real`."""
        return self._real

    @property
    def stream(self) -> Any:
        """The CuPy stream that everything is put on."""
        return self._stream

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Kernels.at_work`."""
        with card_errors(self._cupy), self._stream:
            yield

    @contextmanager
    def set_apart(self) -> Iterator[None]:
        """See `Kernels.set_apart`: a memory pool of its own."""
        with self._cupy.cuda.using_allocator(self._apart.malloc):
            yield

    @cached_property
    def _apart(self) -> Any:
        return self._cupy.cuda.MemoryPool()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See `Kernels.empty`."""
        with self._stream:  # memory belongs to the stream that it was asked for on
            return self._cupy.empty(shape, dtype)

    def put(self, array: NDArray[Any]) -> Array:
        """See `Kernels.put`."""
        with self._stream:
            return self._cupy.array(array)

    def staging(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Kernels.staging`: page-locked memory."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape))
        memory = self._cupy.cuda.alloc_pinned_memory(count * kind.itemsize)
        return np.frombuffer(memory, kind, count).reshape(shape)

    def upload(self, destination: Array, source: NDArray[Any]) -> None:
        """See `Kernels.upload`."""
        destination.set(source, stream=self._stream)

    def download(self, destination: NDArray[Any], source: Array) -> None:
        """See `Kernels.download`."""
        source.get(stream=self._stream, out=destination, blocking=False)

    def wait(self) -> None:
        """See `Kernels.wait`."""
        self._stream.synchronize()

    def launch(
        self, source: str, name: str, outputs: tuple[int, int, int], *arguments: Array | int | np.float32
    ) -> None:
        """See `Kernels.launch`."""
        kernel = self._modules[source].get_function(name)
        packed = tuple(np.int32(value) if isinstance(value, int) else value for value in arguments)
        with self._stream:
            kernel(grid_of(outputs), BLOCK, packed)
