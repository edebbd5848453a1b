"""The parts of `export.gpu_check`: what each does on the card, and what counts as fulfilled."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.bundle import MANIFEST, Bundle, open_bundle
from engine.card import current_card
from engine.kernels import bandwidth
from engine.kernels.load import CudaKernels
from engine.runtimes.base import Device, Networks, Precision, Runtime
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks
from engine.runtimes.tensorrt import TensorRtRuntime
from export import card_step
from export.eager import EagerRuntime
from export.exported import Format, Order, export
from export.to_int8 import Films
from export.torch_tensorrt import TorchTensorRtRuntime
from export.verify import STEPS, TOLERANCES, compare, drawn_faces, record, report

PACKAGES = ("torch", "cupy-cuda13x", "cupy-cuda12x", "numpy", "opencv-python-headless", "onnx", "onnxruntime",
            "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "torch-tensorrt",
            "torch-tensorrt-rtx")  # fmt: skip

WANTED_P50_MS = 4.0
"""The whole step of the paper's networks in fp16, one face in 640x360, on a data-centre card."""


_UNCAPTURED = ("onnxruntime", "torch-tensorrt")
"""Runtimes whose networks cannot be part of a step's CUDA graph."""

_DRAWN = 6
"""Frames of each film that int8 is calibrated on."""


class NotHere(Exception):
    """Something that this part needs is not installed on this machine."""


@dataclass(frozen=True)
class Work:
    """folder: for large files, kept between runs. bundle: the folder of one, or paper-256, which is built."""

    folder: Path
    bundle: str

    @property
    def source(self) -> Path:
        """The bundle's folder."""
        return self.folder / self.bundle if self.bundle == "paper-256" else Path(self.bundle)


@dataclass(frozen=True)
class Found:
    """What a part has found. fulfilled: False where a figure misses what is wanted of it."""

    summary: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    fulfilled: bool = True


@dataclass(frozen=True)
class Part:
    """One part. limit_s: after so long it is ended. least_s: with less time left it is not begun."""

    run: Callable[[Work], Found]
    limit_s: float
    least_s: float = 20.0
    needs_card: bool = True


def machine(work: Work) -> Found:
    """What is here: the card, the tools, the packages."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    tools = {name: shutil.which(name) or "" for name in ("nvcc", "compute-sanitizer", "g++")}
    figures: dict[str, Any] = {"python": platform.python_version(), "packages": versions, "tools": tools}
    words = "no CuPy"
    if importlib.util.find_spec("cupy"):
        import cupy

        try:
            figures["card"] = asdict(current_card(cupy))
            words = f"{figures['card']['name']}, compute capability {figures['card']['capability']}"
        except cupy.cuda.runtime.CUDARuntimeError as error:
            words = f"no card: {error}"
    return Found(f"{words}; " + ", ".join(f"{name} {version}" for name, version in versions.items()), figures)


def bundle(work: Work) -> Found:
    """The bundle that the runtimes run: networks of the paper's size with seeded random weights."""
    if not (work.source / MANIFEST).is_file():
        if work.bundle != "paper-256":
            raise NotHere(f"{work.source} is no bundle")
        if importlib.util.find_spec("onnxscript") is None:
            raise NotHere("onnxscript, which torch exports with; give a bundle that was built elsewhere")
        from export.paper_bundle import build

        build(work.source, recipe="gpu_check")
    opened = open_bundle(work.source)
    size = sum(path.stat().st_size for path in work.source.iterdir())
    return Found(f"{opened.manifest.name}, {size / 1e6:.0f} MB", {"bytes": size})


def parity(work: Work) -> Found:
    """Every kernel against the definition on the CPU, over places, sizes and turns of faces."""
    worst = card_step.kernel_differences(CudaKernels.open())
    words = ", ".join(f"{name} {levels:.2f}" for name, levels in worst.items())
    return Found(f"largest difference in grey levels: {words}", {"levels": worst}, max(worst.values()) <= 1.0)


def suite(work: Work) -> Found:
    """The kernels' own tests on the card, random and edge geometry."""
    if importlib.util.find_spec("pytest") is None:
        raise NotHere("pytest")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/engine/kernels",
        "-q",
        "-rs",
        "-k",
        "cuda",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, "-o", "filterwarnings=default"], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    figures = {"returncode": done.returncode, "output": lines[-60:], "errors": done.stderr[-2000:]}
    passed = re.search(r"(\d+) passed", lines[-1] if lines else "")
    return Found(lines[-1] if lines else done.stderr[-200:], figures, done.returncode == 0 and passed is not None)


def kernel_times(work: Work) -> Found:
    """How long the kernels take against what their bytes need, up to 4K with four faces."""
    timings = bandwidth.run(CudaKernels.open())
    slow = [timing for timing in timings if not timing.within]
    worst = max(timings, key=lambda timing: timing.took_us / timing.limit_us)
    words = (
        f"{len(timings) - len(slow)} of {len(timings)} within; worst {worst.step} {worst.case} {worst.took_us:.1f} us"
    )
    return Found(f"{words} of {worst.limit_us:.1f}", {"timings": [asdict(timing) for timing in timings]}, not slow)


def sanitizer(work: Work) -> Found:
    """Every kernel once under compute-sanitizer's memcheck."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        raise NotHere("compute-sanitizer")
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c"]
    program = "from export.card_step import kernel_differences; from engine.kernels.load import CudaKernels\n"
    program += "print(kernel_differences(CudaKernels.open(), few=True))"
    done = subprocess.run([*command, program], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    words = next((line for line in reversed(lines) if "ERROR SUMMARY" in line), lines[-1] if lines else "")
    return Found(words.strip("= "), {"returncode": done.returncode, "output": lines[-40:]}, done.returncode == 0)


def whole_step(work: Work) -> Found:
    """A session on the card against one on the CPU, both fp32 in torch, frame by frame."""
    opened, runtime = open_bundle(work.source), EagerRuntime()
    on_card = open_networks(opened, runtime, "cuda", "fp32")
    on_cpu = open_networks(opened, runtime, "cpu", "fp32")
    figures = card_step.step_differences(opened, runtime, on_card, on_cpu)
    words = f"largest difference {figures['largest']} grey levels, {figures['beyond_one']:.2e} of values beyond 1"
    return Found(words, figures, figures["beyond_one"] <= 1e-3)


def runtime_part(name: str, precision: Precision, wanted_p50_ms: float = 0.0) -> Callable[[Work], Found]:
    """A part that runs the bundle in a runtime: verified over 50 recurrent steps, timed, its allocations counted."""

    def run(work: Work) -> Found:
        chosen, opened, computed = _prepared(name, precision, work)
        networks = open_networks(opened, chosen, "cuda", computed)
        figures: dict[str, Any] = {"runtime": chosen.describe("cuda", computed)}
        figures["verify"] = _verified(open_bundle(work.source), networks, precision)
        figures["networks_us"] = card_step.network_times_us(networks, chosen.stream)
        figures["steps"] = [card_step.latency(opened, chosen, networks, case) for case in card_step.CASES]
        figures["in_pieces"] = card_step.latency(opened, chosen, networks, card_step.CASES[0], at_once=False)
        first, in_pieces = figures["steps"][0], figures["in_pieces"]["p50_ms"]
        allocations = sum(step["allocations"] for step in figures["steps"])
        error, tolerance = figures["verify"]["worst"], TOLERANCES[precision]
        words = f"step p50 {first['p50_ms']:.2f} p95 {first['p95_ms']:.2f} p99 {first['p99_ms']:.2f} ms "
        words += f"({first['at_once']} of {first['steps']} at once, {first['graphs']} graphs; "
        words += f"in pieces p50 {in_pieces:.2f}), "
        words += f"{tolerance.figure} error {error:.2g} of {tolerance.limit:g}, {allocations} allocations"
        quick = not wanted_p50_ms or first["p50_ms"] <= wanted_p50_ms
        captured = first["graphs"] > 0 or name in _UNCAPTURED
        return Found(words, figures, quick and captured and error <= tolerance.limit and allocations == 0)

    return run


def _prepared(name: str, precision: Precision, work: Work) -> tuple[Runtime, Bundle, Precision]:
    """The runtime, the bundle in the form that it takes, and the precision to open that with."""
    if name == "eager":
        return EagerRuntime(), open_bundle(work.source), precision
    if name == "torch-tensorrt":
        compiling = TorchTensorRtRuntime()
        missing = compiling.obstacles("cuda", precision)
        if missing:
            raise NotHere("; ".join(missing))
        return compiling, open_bundle(work.source), precision
    runtime: Runtime = OnnxRuntime() if name == "onnxruntime" else TensorRtRuntime()
    if name != "onnxruntime" and importlib.util.find_spec(name) is None:
        raise NotHere(f"the package {name}")
    reasons = runtime.obstacles("cuda", "auto")
    if reasons:
        raise NotHere("; ".join(reasons))
    folder = work.folder / f"{name}-{precision}"
    if not (folder / MANIFEST).is_file():
        form: Format = "onnx" if name == "onnxruntime" else "tensorrt"
        # The export's own comparison runs on the CPU; the one that counts is done here, on the card.
        order = Order(form, precision, steps=1)
        films = _drawn_films(open_bundle(work.source)) if precision == "int8" else None
        export(work.source, order if form == "onnx" else replace(order, library=name), folder, films)
    return runtime, open_bundle(folder), "auto"


def _drawn_films(source: Bundle) -> Films:
    """In the place of clips, which would need a tracker's networks: good enough for random weights, and for times."""
    networks = open_networks(source, EagerRuntime(), "cuda", "fp32")
    drawn = [drawn_faces(networks, source, _DRAWN, seed) for seed in (1, 2, 3)]
    networks.close()
    return Films(tuple(drawn[:-1]), drawn[-1])


def _verified(source: Bundle, networks: Networks, precision: Precision) -> dict[str, Any]:
    """The networks against the source in fp32 by torch on the card."""
    device: Device = "cuda"
    reference = open_networks(source, EagerRuntime(), device, "fp32")
    crops = drawn_faces(reference, source, STEPS)
    expected = record(reference, source, crops)
    reference.close()
    errors = compare(expected, record(networks, source, crops))
    figures = report(errors, precision)
    figures["worst"] = max(max(getattr(error, TOLERANCES[precision].figure)) for error in errors.values())
    for output in figures["outputs"].values():
        del output["max_per_step"], output["mean_per_step"], output["rms_per_step"]
    return figures


def against_cpu(work: Work) -> Found:
    """Torch in fp32 on the card against torch on the CPU: that the card's reference is one."""
    opened = open_bundle(work.source)
    on_cpu, on_card = (open_networks(opened, EagerRuntime(), device, "fp32") for device in ("cpu", "cuda"))
    crops = drawn_faces(on_card, opened, 4)
    errors = compare(record(on_cpu, opened, crops), record(on_card, opened, crops))
    worst = max(max(error.max) for error in errors.values())
    return Found(f"largest error {worst:.2g} of 1e-3 over 4 steps", {"largest": worst}, bool(np.less(worst, 1e-3)))


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "machine": Part(machine, 60, 5, needs_card=False),
        "bundle": Part(bundle, 240),
        "eager-fp16": Part(runtime_part("eager", "fp16", WANTED_P50_MS), 180),
        "parity": Part(parity, 90),
        "kernel-times": Part(kernel_times, 90),
        "whole-step": Part(whole_step, 120),
        "tests": Part(suite, 150),
        "sanitizer": Part(sanitizer, 120),
        "torch-against-cpu": Part(against_cpu, 90),
        "tensorrt_rtx-fp16": Part(runtime_part("tensorrt_rtx", "fp16", WANTED_P50_MS), 240),
        "tensorrt-fp16": Part(runtime_part("tensorrt", "fp16", WANTED_P50_MS), 240),
        "onnxruntime-fp16": Part(runtime_part("onnxruntime", "fp16"), 240),
        "tensorrt_rtx-int8": Part(runtime_part("tensorrt_rtx", "int8"), 240),
        "torch-tensorrt-fp16": Part(runtime_part("torch-tensorrt", "fp16"), 240),
        "eager-fp32": Part(runtime_part("eager", "fp32"), 180),
    }
)
"""In the order of what matters most, should the time run out."""
