"""Serialized TensorRT engines on an NVIDIA card: TensorRT for RTX, or full TensorRT by the same code.

A bundle for it is made by `rigid-live export BUNDLE --to tensorrt`; which of the two libraries its engines need is
written in its fingerprint. Arrays of CuPy are bound by name and never copied, and so are the results, which are new
arrays of CuPy; arrays of NumPy are sent to the card and the results brought back. Everything is enqueued on one stream,
`TensorRtRuntime.stream`: whoever hands over CuPy arrays computes them on it, and it orders what follows.
"""

import ctypes
import hashlib
import importlib
import importlib.util
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.assets import cache_folder
from engine.bundle import GraphSpec
from engine.card import LESS, Card, Import, card_errors, card_obstacles, current_card
from engine.errors import BundleError, CardFailed, RuntimeUnavailable
from engine.fingerprint import BUILD_COMMAND, EngineRecord, Fingerprint, read_fingerprint, unfit
from engine.runtimes.base import Device, FloatArray, Network, Precision, Replay, batch_of, mismatch, shape_for

log = logging.getLogger(__name__)

RTX = "tensorrt_rtx"
LIBRARIES = (RTX, "tensorrt")
"""Python modules that can run engines, the default first."""

_KEPT_GRAPHS = 64
"""CUDA graphs a network keeps. CuPy's memory pool gives the same few addresses again and again."""


class TensorRtRuntime:
    """Runs engine files. load: imports a module by name; tests hand in stand-ins."""

    name = "tensorrt"

    def __init__(self, load: Import = importlib.import_module) -> None:
        self._load = load
        self._runtimes: dict[str, tuple[Any, Any]] = {}
        """A library's logger and runtime object, by the library's name; they must outlive its engines."""
        self._opened: list[_TensorRtNetwork] = []

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        found = []
        if device != "cuda":
            found.append(f"it runs on cuda only, not on {device}")
        if not self._can_load("cupy"):
            driver = driver_obstacle()
            found += [driver] if driver else []
        found += card_obstacles(self._load)
        if not any(map(self._can_load, LIBRARIES)):
            found.append(f"neither {' nor '.join(LIBRARIES)} is installed: install the extra cuda12 or cuda13")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        there = [f"{name} {self._load(name).__version__}" for name in LIBRARIES if self._can_load(name)]
        return f"tensorrt with {' and '.join(there)} on {self.card.name} in the precision of the engines"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`; `model` is an engine file with its fingerprint beside it.

        Raises BundleError when there is no engine, or it is damaged, or of another graph; RuntimeUnavailable when it
        was built by another library or for other cards, or in another precision than the one asked for.
        """
        fingerprint = read_fingerprint(model.parent)
        record, blob = _read_engine(model, fingerprint)
        if precision not in ("auto", fingerprint.precision):
            raise RuntimeUnavailable(f"{model} computes in {fingerprint.precision}, not in {precision}; {_ANEW}")
        if not self._can_load(fingerprint.library):
            raise RuntimeUnavailable(f"{model} needs the package {fingerprint.library}, which is not installed")
        library = self._load(fingerprint.library)
        reason = unfit(fingerprint, library.__version__, self.card.capability)
        if reason is not None:
            raise RuntimeUnavailable(f"{model} {reason}; {_ANEW}")
        engine = self._deserialized(library, model, blob)
        wrong = mismatch(spec, *_names(library, engine))
        if wrong is not None:
            raise BundleError(f"{model} {wrong}")
        jit = self._jit_file(fingerprint, record) if fingerprint.library == RTX else None
        loaded = _Loaded(self._cupy, self.stream, library, engine, model, spec, record.batches, jit)
        self._opened.append(_TensorRtNetwork(loaded))
        return self._opened[-1]

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Runtime.capture`; raises CardFailed."""
        if not all(network.capturable for network in self._opened):
            return None
        stream = self.stream
        with card_errors(self._cupy), stream:
            graph = _captured(stream, work)
        return lambda: graph.launch(stream)

    @cached_property
    def stream(self) -> Any:
        """The CUDA stream, of CuPy, on which every network of this runtime works."""
        return self._cupy.cuda.Stream(non_blocking=True)

    @cached_property
    def card(self) -> Card:
        """The graphics card that CuPy uses."""
        return current_card(self._cupy)

    @property
    def _cupy(self) -> Any:
        return self._load("cupy")

    def _can_load(self, module: str) -> bool:
        try:
            self._load(module)
        except (ImportError, OSError):
            # A package whose shared libraries do not load is as good as none.
            return False
        return True

    def _deserialized(self, library: Any, model: Path, blob: bytes) -> Any:
        logger, runtime = self._library_runtime(library)
        if hasattr(runtime, "get_engine_validity"):
            validity, why = runtime.get_engine_validity(blob)
            if validity == library.EngineValidity.INVALID:
                raise RuntimeUnavailable(
                    f"{model} does not run on {self.card.name}: {_diagnosed(library, why)}; {_ANEW}"
                )
        engine = runtime.deserialize_cuda_engine(blob)
        if engine is None:
            raise RuntimeUnavailable(f"{model} cannot be loaded: {logger.last_error or 'no reason given'}; {_ANEW}")
        return engine

    def _library_runtime(self, library: Any) -> tuple[Any, Any]:
        if library.__name__ not in self._runtimes:
            logger = make_logger(library)
            self._runtimes[library.__name__] = logger, library.Runtime(logger)
        return self._runtimes[library.__name__]

    def _jit_file(self, fingerprint: Fingerprint, record: EngineRecord) -> Path:
        """Where the kernels that TensorRT for RTX compiles on this card are kept from one start to the next."""
        parts = (record.sha256, fingerprint.version, self.card.name, self.card.capability, str(self.card.driver))
        return cache_folder() / "tensorrt" / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.cache"


_ANEW = f"build the engines anew: `{BUILD_COMMAND}`"


def driver_obstacle() -> str | None:
    """Why the NVIDIA driver shows no card; None when it does. Asks the driver itself, without CuPy."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver: its libcuda was not found"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no card"
    return None


def make_logger(library: Any) -> Any:
    """The library's logger, into ours; it remembers the last error, because results only say that there was one."""

    class Logger(library.ILogger):  # type: ignore[misc]
        last_error = ""

        def log(self, severity: Any, message: str) -> None:
            failed = severity in (library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR)
            if failed:
                self.last_error = " ".join(message.split())
            log.debug("%s: %s", severity, message)

    return Logger()


def _read_engine(model: Path, fingerprint: Fingerprint) -> tuple[EngineRecord, bytes]:
    """What the fingerprint says of an engine file, and its content, which is what was built."""
    record = fingerprint.engines.get(model.name)
    if record is None:
        raise BundleError(f"{model} is no engine of its folder, which has {', '.join(fingerprint.engines)}")
    try:
        blob = model.read_bytes()
    except OSError as error:
        raise BundleError(f"{model} cannot be read: {error.strerror}") from error
    if len(blob) != record.size_bytes:
        raise BundleError(f"{model} has {len(blob)} bytes, but {record.size_bytes} were built; {_ANEW}")
    if hashlib.sha256(blob).hexdigest() != record.sha256:
        raise BundleError(f"{model} is not what was built: its sha256 differs; {_ANEW}")
    return record, blob


def _names(library: Any, engine: Any) -> tuple[set[str], set[str]]:
    """The engine's inputs and outputs."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = {name for name in names if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT}
    return inputs, set(names) - inputs


def _diagnosed(library: Any, bits: int) -> str:
    """The library's reasons, which it gives as bits."""
    named = [name for name, flag in library.EngineInvalidityDiagnostics.__members__.items() if int(flag) & int(bits)]
    return ", ".join(named) or "no reason given"


@dataclass(frozen=True)
class _Loaded:
    """One engine and all that its network needs. jit: the file of the card's own kernels, None without such."""

    cupy: Any
    stream: Any
    library: Any
    engine: Any
    model: Path
    spec: GraphSpec
    batches: tuple[int, int, int]
    jit: Path | None


class _TensorRtNetwork:
    """One engine, with an execution context for every batch size seen so far, and CUDA graphs.

    A CUDA graph has the addresses of its buffers built in. So one is kept for each batch size and set of addresses: a
    call that comes with addresses seen before replays it, the first call with new ones is enqueued as it is.
    """

    def __init__(self, loaded: _Loaded) -> None:
        self._loaded = loaded
        self._contexts: dict[int, Any] = {}
        self._graphs: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._config, self._cache = _runtime_config(loaded)

    @property
    def capturable(self) -> bool:
        """Whether runs of the batch sizes seen so far may be part of a CUDA graph: nothing is compiled on the way."""
        return all(map(self._is_capturable, self._contexts.values()))

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._loaded.spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`; arrays of CuPy go in and come out on the card, on the runtime's stream.

        Raises CardFailed when the card runs out of memory or fails, RuntimeUnavailable for a batch larger than the
        engine was built for.
        """
        batch = batch_of(self.spec, arrays)
        cupy, largest = self._loaded.cupy, self._loaded.batches[2]
        if batch > largest:
            raise RuntimeUnavailable(f"{self._loaded.model} takes {largest} images at once, not {batch}; {_ANEW}")
        from_host = not isinstance(next(iter(arrays.values())), cupy.ndarray)
        with card_errors(cupy), self._loaded.stream:
            buffers = {name: cupy.ascontiguousarray(cupy.asarray(array)) for name, array in arrays.items()}
            outputs = {name: cupy.empty(shape_for(self.spec, name, batch), np.float32) for name in self.spec.outputs}
            self._enqueue(batch, buffers | outputs)
            return {name: cupy.asnumpy(array) for name, array in outputs.items()} if from_host else outputs

    def close(self) -> None:
        """See `Network.close`; keeps the kernels that were compiled for this card."""
        if self._cache is not None and self._loaded.jit is not None and self._contexts:
            _write(self._loaded.jit, bytes(self._cache.serialize()))
        self._graphs.clear()
        self._contexts.clear()

    def _enqueue(self, batch: int, buffers: Mapping[str, Any]) -> None:
        stream = self._loaded.stream
        if stream.is_capturing():  # the graph of a whole step holds this run, and cannot hold another graph's launch
            self._run(self._bound(batch, buffers))
            return
        key = (batch, *(array.data.ptr for array in buffers.values()))
        known = key in self._graphs
        graph = self._graphs.pop(key, None)
        if graph is None:
            context = self._bound(batch, buffers)
            capture = known and self._is_capturable(context)
            graph = _captured(stream, lambda: self._run(context)) if capture else None
            if graph is None:
                self._run(context)
        self._graphs[key] = graph
        if len(self._graphs) > _KEPT_GRAPHS:
            self._graphs.popitem(last=False)
        if graph is not None:
            graph.launch(stream)

    def _bound(self, batch: int, buffers: Mapping[str, Any]) -> Any:
        """The context of this batch size with every buffer bound by its name."""
        context = self._contexts.get(batch)
        if context is None:
            engine = self._loaded.engine
            context = (
                engine.create_execution_context(self._config) if self._config else engine.create_execution_context()
            )
            if context is None:
                raise CardFailed(f"{self._loaded.model} gets no memory on the card; {LESS}")
            self._contexts[batch] = context
            for name in self.spec.inputs:
                context.set_input_shape(name, shape_for(self.spec, name, batch))
        for name, array in buffers.items():
            context.set_tensor_address(name, array.data.ptr)
        return context

    def _is_capturable(self, context: Any) -> bool:
        """False where the library would have to allocate or compile on the way."""
        stream = self._loaded.stream
        return not hasattr(context, "is_stream_capturable") or bool(context.is_stream_capturable(stream.ptr))

    def _run(self, context: Any) -> None:
        if not context.execute_async_v3(self._loaded.stream.ptr):
            raise CardFailed(f"{self._loaded.model} failed on the card")


def _captured(stream: Any, work: Callable[[], None]) -> Any:
    """What `work` puts on the stream, as a CUDA graph."""
    stream.begin_capture()
    try:
        work()
    finally:
        graph = stream.end_capture()
    return graph


def _runtime_config(loaded: _Loaded) -> tuple[Any, Any]:
    """TensorRT for RTX: kernels compiled before the first run ends, and kept; (None, None) for full TensorRT."""
    if loaded.jit is None:
        return None, None
    config = loaded.engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = (
        loaded.library.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    cache = config.create_runtime_cache()
    if loaded.jit.is_file() and not cache.deserialize(loaded.jit.read_bytes()):
        log.info("%s does not fit this card any more; its kernels are compiled anew", loaded.jit)
    config.set_runtime_cache(cache)
    return config, cache


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
