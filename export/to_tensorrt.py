"""ONNX to serialized TensorRT engines.

TensorRT for RTX builds without a graphics card, for the compute capabilities it is told, and finishes the kernels on
the user's card in a second. Full TensorRT goes through the same code and builds for the card that is there.
"""

import hashlib
import importlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from engine.assets import sha256_of
from engine.bundle import MANIFEST, Bundle, GraphSpec
from engine.errors import ExportError, RuntimeUnavailable, UsageError
from engine.fingerprint import EngineRecord, Fingerprint, Port, capability, write_fingerprint
from engine.runtimes.base import Precision
from engine.runtimes.tensorrt import RTX, TensorRtRuntime, make_logger
from export.precision import without_dense

log = logging.getLogger(__name__)

TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0")
"""What engines are built for unless told otherwise: every card from Turing (2018) on that TensorRT for RTX knows."""

_AMPERE = (8, 0)
"""The first compute capability with bf16, and with fp32 matrix products in TensorRT for RTX."""

_FACES = 4
"""The most faces that go through an engine at once."""

_IMAGES_PER_FACE: Mapping[str, int] = {"generator": 2, "parser": 2}
"""Graphs that see a face's inversion, or crop, and its edit as one batch; the others see one image a face."""

_POLL_S = 0.2


@dataclass(frozen=True)
class Plan:
    """What engines are to be built for. gpu: the card that full TensorRT builds on and for."""

    library: Any
    targets: tuple[str, ...]
    precision: Precision
    gpu: str = ""


@dataclass(frozen=True)
class Parsed:
    """A network as the library understood it, before it is built."""

    layers: int
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


def plan(precision: Precision, targets: Sequence[str] = (), library: str = RTX) -> Plan:
    """Checks what was asked for against what can be built here.

    targets: compute capabilities; none for all of `TARGETS` that the precision runs on. Raises UsageError for targets
    that do not exist or do not have the precision, RuntimeUnavailable without the library or, for full TensorRT,
    without a card.
    """
    module = _import(library)
    if library != RTX:
        reasons = TensorRtRuntime().obstacles("cuda", "auto")
        if reasons:
            raise RuntimeUnavailable(f"{library} builds engines only on the card that runs them; {'; '.join(reasons)}")
        card = TensorRtRuntime().card
        return Plan(module, (card.capability,), precision, f"{card.name}, driver {card.driver}")
    unknown = [target for target in targets if target not in TARGETS]
    if unknown:
        raise UsageError(f"targets got {', '.join(unknown)}; expected some of {', '.join(TARGETS)}")
    able = [target for target in TARGETS if precision != "bf16" or capability(target) >= _AMPERE]
    unable = [target for target in targets if target not in able]
    if unable:
        raise UsageError(
            f"compute capability {', '.join(unable)} has no {precision}; expected some of {', '.join(able)}"
        )
    chosen = tuple(target for target in able if not targets or target in targets)
    return Plan(module, chosen, precision)


def write_engines(bundle: Bundle, models: Mapping[str, Path], folder: Path, wanted: Plan) -> Mapping[str, str]:
    """Builds an engine from each ONNX file into `folder`, and writes their fingerprint beside them.

    models: the ONNX in the plan's precision, by the name of the file of the bundle that it stands for. Returns the
    engines' names by the same. Raises ExportError when the library refuses a network.
    """
    records, names = {}, {}
    for number, (file, model) in enumerate(models.items(), 1):
        names[file] = f"{Path(file).stem}.engine"
        graphs = [graph for graph, spec in bundle.manifest.graphs.items() if spec.file == file]
        batches, spec = _batches(graphs), bundle.manifest.graphs[graphs[0]]
        log.info("[%d/%d] %s for compute capability %s", number, len(models), names[file], ", ".join(wanted.targets))
        start = time.monotonic()
        parsed, blob = build(onnx.load(model), spec, wanted, batches, file)
        (folder / names[file]).write_bytes(blob)
        log.info("    %.1f MB in %.1f s", len(blob) / 1e6, time.monotonic() - start)
        records[names[file]] = EngineRecord(
            source_sha256=bundle.manifest.files[file],
            layers=parsed.layers,
            inputs=parsed.inputs,
            outputs=parsed.outputs,
            batches=batches,
            size_bytes=len(blob),
            sha256=hashlib.sha256(blob).hexdigest(),
        )
    library, source = wanted.library, sha256_of(bundle.folder / MANIFEST)
    write_fingerprint(
        folder,
        Fingerprint(
            library.__name__, library.__version__, wanted.targets, wanted.precision, source, records, wanted.gpu
        ),
    )
    return names


def prepare(model: ModelProto, wanted: Plan) -> ModelProto:
    """A typed graph without what a target cannot compute."""
    return without_dense(model) if min(map(capability, wanted.targets)) < _AMPERE else model


def build(
    model: ModelProto, spec: GraphSpec, wanted: Plan, batches: tuple[int, int, int], name: str
) -> tuple[Parsed, bytes]:
    """The network as it was parsed, and the serialized engine.

    batches: smallest, preferred and largest. name: for messages. Raises ExportError when the library refuses the
    network or parses another one than `spec` describes. Ctrl-C stops the build at the library's next step.
    """
    go, stop = threading.Event(), threading.Event()
    made: list[tuple[Parsed, bytes]] = []
    raised: list[ExportError] = []

    def work() -> None:
        go.wait()
        try:
            if not stop.is_set():
                made.append(_build(model, spec, wanted, batches, name, stop))
        except ExportError as error:
            raised.append(error)

    # In a thread, because Ctrl-C is heard by the main one: the library would swallow it in a callback of ours.
    thread = threading.Thread(target=work, name="engine builder")
    try:
        thread.start()
        go.set()
        while thread.is_alive():
            thread.join(_POLL_S)
    finally:
        stop.set()
        go.set()
        if thread.is_alive():
            thread.join()
    if raised:
        raise raised[0]
    return made[0]


def _build(
    model: ModelProto,
    spec: GraphSpec,
    wanted: Plan,
    batches: tuple[int, int, int],
    name: str,
    stop: threading.Event,
) -> tuple[Parsed, bytes]:
    library = wanted.library
    logger = make_logger(library)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
        told = " ".join("; ".join(reasons).split()) or logger.last_error
        raise ExportError(f"{library.__name__} cannot read {name}: {told}")
    parsed = _parsed(network)
    _compare(parsed, spec, name)
    log.info("    %d layers, %s -> %s", parsed.layers, _listed(parsed.inputs), _listed(parsed.outputs))
    config = _config(builder, network, wanted, batches)
    # The builder calls the monitor as long as it works; here it must outlive it.
    monitor = config.progress_monitor = _monitor(library, stop)
    blob = builder.build_serialized_network(network, config)
    del monitor
    if blob is None:
        raise ExportError(f"{library.__name__} cannot build {name}: {logger.last_error or 'no reason given'}")
    return parsed, bytes(blob)


def _import(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(
            f"the package {library} cannot be loaded ({error}); install the extra tensorrt-build"
        ) from error


def _batches(graphs: Sequence[str]) -> tuple[int, int, int]:
    """Smallest, preferred (one face) and largest batch of the graphs that share an engine."""
    images = max(_IMAGES_PER_FACE.get(graph, 1) for graph in graphs)
    return 1, images, images * _FACES


def _parsed(network: Any) -> Parsed:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return Parsed(network.num_layers, _ports(inputs), _ports(outputs))


def _ports(tensors: Sequence[Any]) -> Mapping[str, Port]:
    return {tensor.name: Port(tensor.dtype.name, tuple(int(axis) for axis in tensor.shape)) for tensor in tensors}


def _compare(parsed: Parsed, spec: GraphSpec, name: str) -> None:
    """Raises ExportError when the library understood another interface than the manifest promises."""
    for found, promised in ((parsed.inputs, spec.inputs), (parsed.outputs, spec.outputs)):
        wanted = {
            key: Port("FLOAT", tuple(-1 if isinstance(axis, str) else axis for axis in promised[key]))
            for key in promised
        }
        if found != wanted:
            raise ExportError(f"{name} was parsed with {_listed(found)}, but the manifest promises {_listed(wanted)}")


def _listed(ports: Mapping[str, Port]) -> str:
    return ", ".join(f"{name} {port.type} {list(port.shape)}" for name, port in ports.items())


def _config(builder: Any, network: Any, wanted: Plan, batches: tuple[int, int, int]) -> Any:
    library, config = wanted.library, builder.create_builder_config()
    if not wanted.gpu:
        config.num_compute_capabilities = len(wanted.targets)
        for index, target in enumerate(wanted.targets):
            config.set_compute_capability(library.ComputeCapability.__members__[f"SM{target.replace('.', '')}"], index)
    # fp32 means fp32: TF32 keeps ten bits of it. Beside int8, which keeps seven, it is allowed.
    if wanted.precision == "fp32":
        config.clear_flag(library.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *((batch, *tuple(tensor.shape)[1:]) for batch in batches))
    config.add_optimization_profile(profile)
    return config


def _monitor(library: Any, stop: threading.Event) -> Any:
    """What the library tells its progress, and asks whether to go on."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            log.debug("    %s", name)

        def phase_finish(self, name: str) -> None:
            pass

        def step_complete(self, name: str, step: int) -> bool:
            return not stop.is_set()

    return Monitor()
