"""A computer with a graphics card, made up: stand-ins for CuPy and TensorRT for RTX as far as the runtime uses them.

An "engine" is an ONNX file. It is read and written at the addresses that were bound by name, so a wrong name, shape or
address gives wrong numbers. Nothing here knows how a card computes.
"""

import ctypes
from enum import Enum, IntEnum
from types import SimpleNamespace

import numpy as np
import onnxruntime

from engine.runtimes.tensorrt import TensorRtRuntime

VERSION = "1.7.1"


class CardArray(np.ndarray):
    """An array "on the card": it knows its address as CuPy's do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.__array_interface__["data"][0])


class OutOfMemory(Exception):
    pass


class CudaError(Exception):
    pass


class Capture:
    """A CUDA graph of the stand-in: what was enqueued while the stream was capturing."""

    def __init__(self, work):
        self.work, self.launches = work, 0

    def launch(self, stream):
        assert not stream.is_capturing(), "a graph cannot hold another one's launch"
        self.launches += 1
        for run in self.work:
            run()


class Stream:
    ptr = 77

    def __init__(self, non_blocking=False):
        assert non_blocking, "the default stream cannot be captured"
        self.captured, self.captures = None, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def begin_capture(self):
        assert self.captured is None, "a capture within a capture"
        self.captured = []

    def is_capturing(self):
        return self.captured is not None

    def end_capture(self):
        self.captures.append(Capture(self.captured))
        self.captured = None
        return self.captures[-1]

    def enqueue(self, work):
        work() if self.captured is None else self.captured.append(work)


class FakeCupy(SimpleNamespace):
    """NumPy as CuPy. pool: how many blocks of a shape `empty` goes through, as a memory pool in its steady state."""

    ndarray = CardArray

    def __init__(self, capability=(8, 9), cards=1, pool=2):
        self.streams, self.full, self.uploads, self.downloads, self._blocks, self._pool = [], False, 0, 0, {}, pool
        runtime = SimpleNamespace(
            CUDARuntimeError=CudaError,
            getDevice=lambda: 0,
            getDeviceCount=lambda: cards,
            getDeviceProperties=lambda n: {"name": b"Test Card", "major": capability[0], "minor": capability[1]},
            driverGetVersion=lambda: 13000,
        )
        memory, driver = SimpleNamespace(OutOfMemoryError=OutOfMemory), SimpleNamespace(CUDADriverError=CudaError)
        self.cuda = SimpleNamespace(Stream=self._stream, runtime=runtime, memory=memory, driver=driver)

    def _stream(self, non_blocking=False):
        self.streams.append(Stream(non_blocking))
        return self.streams[-1]

    def empty(self, shape, dtype):
        if self.full:
            raise OutOfMemory("1 GB wanted")
        blocks = self._blocks.setdefault(shape, [])
        blocks.append(blocks.pop(0) if len(blocks) == self._pool else np.empty(shape, dtype).view(CardArray))
        return blocks[-1]

    def asarray(self, array):
        self.uploads += not isinstance(array, CardArray)
        return array if isinstance(array, CardArray) else array.copy().view(CardArray)

    def ascontiguousarray(self, array):
        return array if array.flags.c_contiguous else np.ascontiguousarray(array).view(CardArray)

    def asnumpy(self, array):
        self.downloads += 1
        return np.array(array)


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class Diagnostics(IntEnum):
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4


class FakeTensorRt:
    """TensorRT for RTX as far as the runtime uses it."""

    __name__ = "tensorrt_rtx"
    __version__ = VERSION
    TensorIOMode = Mode
    EngineValidity = SimpleNamespace(INVALID="invalid", VALID="valid")
    EngineInvalidityDiagnostics = Diagnostics
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    class ILogger:
        Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal")

    def __init__(self, cupy, validity="valid", capturable=True):
        self.cupy, self.validity, self.capturable = cupy, validity, capturable
        self.contexts, self.jit, self.fails, self.full, self.broken = 0, [], False, False, False

    def Runtime(self, logger):
        return SimpleNamespace(
            get_engine_validity=lambda blob: (self.validity, int(Diagnostics.UNSUPPORTED_CC)),
            deserialize_cuda_engine=lambda blob: self._engine(blob, logger),
        )

    def _engine(self, blob, logger):
        if self.broken:
            logger.log(self.ILogger.Severity.ERROR, "no kernel image\n  for this device")
        return None if self.broken else FakeEngine(self, blob, logger)


class FakeEngine:
    def __init__(self, library, blob, logger):
        self.library = library
        self.session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
        self.inputs = [port.name for port in self.session.get_inputs()]
        self.outputs = [port.name for port in self.session.get_outputs()]
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index):
        return (self.outputs + self.inputs)[index]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def create_runtime_config(self):
        cache = SimpleNamespace(
            serialize=lambda: b"kernels", deserialize=lambda blob: self.library.jit.append(blob) or True
        )
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda cache: None)

    def create_execution_context(self, config):
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        if self.library.full:
            return None
        self.library.contexts += 1
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses = engine, {}, {}

    def set_input_shape(self, name, shape):
        assert name in self.engine.inputs
        self.shapes[name] = shape

    def set_tensor_address(self, name, address):
        assert name in self.engine.inputs + self.engine.outputs
        self.addresses[name] = address

    def is_stream_capturable(self, stream):
        return self.engine.library.capturable

    def execute_async_v3(self, stream):
        assert stream == Stream.ptr
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def work():
            feeds = {name: at(addresses[name], shapes[name]).copy() for name in self.engine.inputs}
            made = self.engine.session.run(self.engine.outputs, feeds)
            for name, array in zip(self.engine.outputs, made, strict=True):
                at(addresses[name], array.shape)[:] = array

        self.engine.library.cupy.streams[0].enqueue(work)
        return not self.engine.library.fails


def at(address, shape):
    """The float32 array at an address."""
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)


class Machine:
    """A computer with a card, the stand-ins for its packages, and a runtime on it."""

    def __init__(self, capability=(8, 9), pool=2, **library):
        self.cupy = FakeCupy(capability, pool=pool)
        self.library = FakeTensorRt(self.cupy, **library)
        self.runtime = TensorRtRuntime(self.load)

    def load(self, module):
        found = {"cupy": self.cupy, "tensorrt_rtx": self.library}.get(module)
        if found is None:
            raise ModuleNotFoundError(module)
        return found
