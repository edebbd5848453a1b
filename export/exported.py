"""A bundle in another format or precision: the same manifest and sliders, its graphs converted and verified.

What is written is a bundle itself, so `--bundle DIR` runs it. Beside the manifest lies `verify.json`, which says what
was compared with what and every error that was found. A folder appears whole or not at all.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import onnx
import torch

from engine import likeness
from engine.bundle import Bundle, open_bundle, verify_files
from engine.direction_file import DIRECTIONS
from engine.errors import RuntimeUnavailable, UsageError
from engine.fingerprint import FILE as FINGERPRINT
from engine.graphs import plain
from engine.openvino_core import openvino_core
from engine.runtimes.base import Device, Precision, Runtime
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.openvino import OpenVinoRuntime
from engine.runtimes.select import open_networks
from engine.runtimes.tensorrt import RTX, TensorRtRuntime
from export.bundle import write_manifest
from export.eager import EagerRuntime
from export.precision import typed
from export.to_int8 import Films, quantised, read_films, recorded_inputs
from export.to_tensorrt import Plan, plan, prepare, write_engines
from export.verify import SEED, STEPS, compare, drawn_faces, judge, record, report

log = logging.getLogger(__name__)

VERIFIED = "verify.json"

Format = Literal["onnx", "openvino", "tensorrt"]

PREFERRED: Mapping[Format, Precision] = {"onnx": "fp32", "openvino": "fp32", "tensorrt": "fp16"}
"""What `auto` comes to."""


@dataclass(frozen=True)
class Order:
    """What to export. targets, library: see `export.to_tensorrt.plan`. steps: of the comparison, at least 1.

    calibrate: clips of real faces, or folders of such, for int8.
    """

    to: Format
    precision: Precision = "auto"
    targets: tuple[str, ...] = ()
    library: str = RTX
    steps: int = STEPS
    calibrate: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Rehearsal:
    """How the export is run for the comparison: on which files, by which runtime, and what that is in words."""

    bundle: Bundle
    runtime: Runtime
    device: Device
    precision: Precision
    words: str


def export(source: Path, order: Order, out: Path, films: Films | None = None) -> Path:
    """Converts the bundle in `source` and writes the result as the bundle `out`, which it returns.

    films: for int8, in the place of the order's clips. An older export in `out` is replaced. Raises UsageError for what
    cannot be asked for, BundleError for a source that cannot be trusted, RuntimeUnavailable without what the format
    needs, ExportError when a graph cannot be converted or computes something else afterwards; nothing is written then.
    """
    order = _resolved(order, given_films=films is not None)
    bundle = open_bundle(source)
    _check_place(source, out)
    built_for = plan(order.precision, order.targets, order.library) if order.to == "tensorrt" else None
    films = read_films(order.calibrate) if order.calibrate else films
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=out.parent) as temporary:
        fresh, scratch = Path(temporary) / out.name, Path(temporary) / ".onnx"
        fresh.mkdir()
        scratch.mkdir()
        models = _typed_models(bundle, order, built_for, films, scratch)
        names, others = _converted(bundle, models, order, built_for, fresh)
        shutil.copyfile(bundle.folder / DIRECTIONS, fresh / DIRECTIONS)
        if likeness.FILE in bundle.manifest.files and built_for is None:  # it is sought on the CPU, with the encoder
            shutil.copyfile(bundle.folder / likeness.FILE, fresh / likeness.FILE)
            others = [*others, likeness.FILE]
        graphs = {
            graph: replace(spec, file=names[spec.file], int8="") for graph, spec in bundle.manifest.graphs.items()
        }
        write_manifest(fresh, replace(bundle.manifest, graphs=graphs, recipe=""), others)
        made = open_bundle(fresh)
        figures = _verified(bundle, _rehearsal(made, replace(bundle, folder=scratch), order), order, films)
        (fresh / VERIFIED).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        # Another program may have replaced the source's files while they were read, one after the other.
        verify_files(bundle.folder, bundle.manifest)
        if out.exists():
            os.replace(out, Path(temporary) / ".replaced")
        os.replace(fresh, out)
    return out


def _resolved(order: Order, *, given_films: bool) -> Order:
    # Measured on a processor with AMX: the light generator took as long in int8 as in bf16 or up to 8 % longer.
    if order.precision == "int8" and order.to == "openvino":
        raise UsageError("int8 is for --to onnx or tensorrt, not for openvino")
    if (order.precision == "int8") != (bool(order.calibrate) or given_films):
        raise UsageError("int8 is calibrated on clips of real faces: --precision int8 and --calibrate go together")
    if order.to != "tensorrt" and (order.targets or order.library != RTX):
        raise UsageError(f"targets and library are for --to tensorrt, not for {order.to}")
    if order.steps < 1:
        raise UsageError(f"steps is {order.steps}; expected 1 or more")
    if order.precision != "auto":
        return order
    return replace(order, precision=PREFERRED[order.to])


def _check_place(source: Path, out: Path) -> None:
    """Raises UsageError when writing to `out` would destroy something that is no export."""
    if out.absolute().resolve() == source.resolve():
        raise UsageError(f"{out} is the bundle to export; name another folder")
    if out.exists() and not (out.is_dir() and ((out / VERIFIED).is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} exists and is no export; name a new folder")


def _typed_models(
    bundle: Bundle, order: Order, built_for: Plan | None, films: Films | None, scratch: Path
) -> Mapping[str, Path]:
    """Every ONNX file of the bundle in the precision asked for, by its name, under the same name in `scratch`."""
    # OpenVINO sets the precision when it compiles, not in the file.
    precision: Precision = "fp32" if order.to == "openvino" else order.precision
    feeds = recorded_inputs(bundle, films.calibration) if films is not None else {}
    models = {}
    for file in dict.fromkeys(spec.file for spec in bundle.manifest.graphs.values()):
        model = plain(onnx.load(bundle.folder / file))
        if films is None:
            model = typed(model, precision)
        else:
            model = quantised(model, feeds[file], float_biases=built_for is not None)
        if built_for is not None:
            model = prepare(model, built_for)
        onnx.checker.check_model(model, full_check=True)
        models[file] = scratch / file
        models[file].write_bytes(model.SerializeToString())
    return models


def _converted(
    bundle: Bundle, models: Mapping[str, Path], order: Order, built_for: Plan | None, folder: Path
) -> tuple[Mapping[str, str], list[str]]:
    """Writes the graphs in the format; returns their new names by the old ones, and the other files they need."""
    if built_for is not None:
        return write_engines(bundle, models, folder, built_for), [FINGERPRINT]
    if order.to == "openvino":
        return _write_ir(models, folder, halved=order.precision == "fp16")
    for file, path in models.items():
        shutil.copyfile(path, folder / file)
    return {file: file for file in models}, []


def _write_ir(models: Mapping[str, Path], folder: Path, *, halved: bool) -> tuple[Mapping[str, str], list[str]]:
    """OpenVINO's own format: a graph as XML and its weights, stored as fp16 when `halved`, in a file beside it."""
    import openvino

    core, names = openvino_core(), {}
    for file, path in models.items():
        names[file] = f"{Path(file).stem}.xml"
        openvino.save_model(core.read_model(path), folder / names[file], compress_to_fp16=halved)
    return names, [f"{Path(name).stem}.bin" for name in names.values()]


def _rehearsal(made: Bundle, typed_bundle: Bundle, order: Order) -> Rehearsal:
    """The export in the runtime it is for; engines without a card as the ONNX that they are built from."""
    if order.to == "openvino":
        computed: Precision = "bf16" if order.precision == "bf16" else "fp32"
        return Rehearsal(made, OpenVinoRuntime(), "cpu", computed, f"openvino on cpu in {computed}")
    if order.to == "tensorrt":
        runtime = TensorRtRuntime()
        if not runtime.obstacles("cuda", "auto"):
            return Rehearsal(made, runtime, "cuda", "auto", f"the engines on {runtime.card.name}")
    unproven = "; the engines themselves were not run, because there is no card" if order.to == "tensorrt" else ""
    if order.precision in ("fp32", "int8"):
        return Rehearsal(typed_bundle, OnnxRuntime(), "cpu", "auto", f"the ONNX in onnxruntime on cpu{unproven}")
    words = f"the ONNX in torch on cpu, each operator's result rounded to {order.precision}{unproven}"
    return Rehearsal(typed_bundle, EagerRuntime(), "cpu", "auto", words)


def _verified(bundle: Bundle, rehearsal: Rehearsal, order: Order, films: Films | None) -> dict[str, Any]:
    """Runs the source in torch and the export in `rehearsal`'s way; the figures as JSON types.

    films: where there are any, the one for verification is shown; else one that the source draws.
    """
    reasons = rehearsal.runtime.obstacles(rehearsal.device, rehearsal.precision)
    if reasons:
        raise RuntimeUnavailable(f"the export cannot be verified here: {'; '.join(reasons)}")
    reference = f"the bundle's float32 graphs in torch {torch.__version__} on cpu"
    networks = open_networks(bundle, EagerRuntime(), "cpu", "fp32")
    crops = drawn_faces(networks, bundle, order.steps) if films is None else films.verification[: order.steps]
    log.info("verify: %d steps of %s, against %s", len(crops), rehearsal.words, reference)
    expected = record(networks, bundle, crops)
    networks.close()
    networks = open_networks(rehearsal.bundle, rehearsal.runtime, rehearsal.device, rehearsal.precision)
    found = record(networks, bundle, crops)
    networks.close()
    errors = compare(expected, found)
    judge(errors, order.precision)
    return {
        "format": order.to,
        "precision": order.precision,
        "reference": reference,
        "target": rehearsal.words,
        "film": f"drawn, seed {SEED}" if films is None else "crops of a clip that was not calibrated on",
        **report(errors, order.precision),
    }
