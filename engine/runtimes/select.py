"""Chooses the runtime, once, at start; says it aloud, and says every reason when there is none."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from engine.bundle import Bundle
from engine.errors import BundleError, RuntimeUnavailable
from engine.fingerprint import FILE as FINGERPRINT
from engine.runtimes.base import Device, Network, Networks, Precision, Runtime
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.openvino import OpenVinoRuntime
from engine.runtimes.tensorrt import TensorRtRuntime

log = logging.getLogger(__name__)

OPENED_AT_ONCE = 2
"""Graphs: one thread compiles one."""

NOT_BUILT_IN = {
    "eager": "it needs torch, which only the app hands to the engine",
    "torch-tensorrt": "it needs torch, which only the app hands to the engine",
}
"""Runtimes that the program knows by name but the engine cannot open by itself, and why."""


def built_in(threads: int = 0) -> tuple[Runtime, ...]:
    """The engine's own runtimes, in the order in which `auto` tries them."""
    return (OpenVinoRuntime(threads), OnnxRuntime(threads), TensorRtRuntime())


def select(
    name: str, device: Device = "cpu", precision: Precision = "auto", runtimes: Sequence[Runtime] | None = None
) -> Runtime:
    """The runtime of that name, or with `auto` the first usable one.

    runtimes: what there is to choose from, the engine's own by default. Raises RuntimeUnavailable with every reason
    when the named runtime, or with `auto` every one, cannot be used in that way: there is no silent fallback.
    """
    known = {runtime.name: runtime for runtime in (built_in() if runtimes is None else runtimes)}
    candidates = list(known) if name == "auto" else [name]
    reasons = []
    for candidate in candidates:
        obstacles = _obstacles(candidate, known.get(candidate), device, precision)
        if not obstacles:
            runtime = known[candidate]
            log.info("runtime: %s", runtime.describe(device, precision))
            return runtime
        reasons += [f"{candidate}: {obstacle}" for obstacle in obstacles]
    raise RuntimeUnavailable(
        f"no usable runtime for --runtime {name} --device {device} --precision {precision}; {'; '.join(reasons)}"
    )


def _obstacles(name: str, runtime: Runtime | None, device: Device, precision: Precision) -> tuple[str, ...]:
    if runtime is None:
        return (NOT_BUILT_IN.get(name, "there is no runtime of this name"),)
    return runtime.obstacles(device, precision)


def open_networks(bundle: Bundle, runtime: Runtime, device: Device = "cpu", precision: Precision = "auto") -> Networks:
    """Load every graph of a verified bundle, on the CPU two at a time; a file that two graphs name is loaded once.

    Raises BundleError when a file is not the graph that the manifest promises, and when int8 is asked for by name of a
    bundle that has no graph in int8.
    """
    if precision == "int8" and not any(spec.int8 for spec in bundle.manifest.graphs.values()):
        raise BundleError(f"{bundle.folder} has no graphs in int8; use --precision auto")
    if (bundle.folder / FINGERPRINT).is_file() and runtime.name != "tensorrt":
        raise BundleError(
            f"{bundle.folder} holds TensorRT engines, which {runtime.name} cannot run; "
            f"use --runtime tensorrt --device cuda, or the bundle that they were built from"
        )
    graphs = bundle.manifest.graphs
    files = {spec.file: graph for graph, spec in graphs.items()}
    with ThreadPoolExecutor(OPENED_AT_ONCE if device == "cpu" else 1) as pool:
        opening = {
            file: pool.submit(runtime.open, bundle.graph_path(graph), graphs[graph], device, precision)
            for file, graph in files.items()
        }

    def network(graph: str) -> Network:
        return opening[graphs[graph].file].result()

    return Networks(
        generator=network("generator"),
        encoder_anchor=network("encoder_anchor"),
        encoder=network("encoder"),
        recurrent=network("recurrent"),
        parser=network("parser"),
        former_rows=bundle.manifest.former_rows,
        refiner=network("refiner") if "refiner" in graphs else None,
    )
