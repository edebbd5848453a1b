"""`rigid-live bench`: how fast each runtime is on this machine, side by side, stage by stage, as JSON and a plot."""

import argparse
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app.bench import machine
from app.bench.calibration import Calibration
from app.bench.contender import Contender
from app.bench.feed import Feed
from app.bench.page import named, write_page
from app.bench.settings import BenchSettings, Entry, add_arguments, from_arguments
from app.pipeline import open_session
from app.report import versions, write_report
from app.settings import RunSettings
from app.sinks import check_writable
from engine.errors import RuntimeUnavailable, UsageError
from engine.frames import Controls

if TYPE_CHECKING:
    from engine.runtimes.base import Device
    from engine.session import Session

__all__ = ["add_arguments", "bench", "run"]

log = logging.getLogger(__name__)

_ROUNDS = 3
_WARM_UP = 10
"""Frames before the first turn: the face is found, the anchor taken, every shape compiled."""
_LEAD_IN = 2
_BASELINE_WARM_UP = 2


def run(args: argparse.Namespace) -> int:
    """Measure and write what was asked for, or write the page; 0 when done. Raises the errors of `engine/errors.py`."""
    if args.page or args.reports:
        if not (args.page and args.reports):
            raise UsageError("--page and --reports belong together: the page is written from the reports")
        write_page(args.page, args.reports)
        return 0
    settings = from_arguments(args)
    for path in filter(None, (args.report, args.plot)):
        check_writable(path)
    draw = _plotter(args.plot) if args.plot else None
    report = bench(settings)
    if args.report:
        write_report(args.report, report)
    if draw:
        draw(report, args.plot)
    for line in summary(report):
        log.info("%s", line)
    return 0


def bench(settings: BenchSettings) -> dict[str, Any]:
    """Runs every entry and the baseline in turns and returns the report; raises what opening them raises."""
    with ExitStack() as opened:
        feed = Feed(settings)
        calibration = Calibration()
        blocks, contenders = [], []
        for entry in settings.entries():
            block, contender = _open(entry, settings.device, feed, opened)
            blocks.append(block)
            contenders.append(contender)
        baseline = _open_baseline(settings, feed, opened) if settings.baseline else None
        for turn in range(_ROUNDS):
            calibration.take()
            for contender in contenders:
                contender.take_turn(settings.frames * (turn + 1) // _ROUNDS - settings.frames * turn // _ROUNDS)
            if baseline:
                baseline.take_turn(1)
    runs = [block | contender.as_json() for block, contender in zip(blocks, contenders, strict=True)]
    _warn_of_faces(runs)
    figures = {name: value for name, value in contenders[0].as_json().items() if name != "faces_edited"}
    report = {"settings": settings.as_json(), "versions": versions(), "machine": machine.describe(), **figures}
    report |= {"calibration_ms": calibration.as_json(), "host_peak_mb": machine.peak_mb(), "runs": runs}
    return report | (_compared(baseline.as_json(), runs) if baseline else {})


def summary(report: dict[str, Any]) -> list[str]:
    """The report in a line for each run, for people."""
    calibrated = ", ".join(f"{name} {times['p50']:.1f} ms" for name, times in report["calibration_ms"].items())
    lines = [f"{report['machine']['processor']}, {report['machine']['cores']} cores; calibration graph: {calibrated}"]
    for block in report["runs"]:
        total = block["stages_ms"]["total"]
        faster = f", {block['speedup']:.1f} x the baseline" if "speedup" in block else ""
        lines.append(
            f"{named(block)}, {block['description']}, {block['faces']} of {block['size']}: {block['fps']:.1f} "
            f"frames/s, p50 {total['p50']:.1f} ms, p95 {total['p95']:.1f}, p99 {total['p99']:.1f}{faster}"
        )
    if "speedup_over_baseline" in report:
        step = report["baseline"]["stages_ms"]["total"]["p50"]
        lines.append(f"the baseline takes {step:.0f} ms a frame; speed-up {report['speedup_over_baseline']:.1f}")
    return lines


def _open(entry: Entry, device: str, feed: Feed, opened: ExitStack) -> tuple[dict[str, Any], Contender]:
    """A warmed-up contender, and what is known of it beside its figures."""
    host_mb, card_mb, start_s = machine.resident_mb(), _card_mb(device), time.perf_counter()
    wanted = RunSettings(
        bundle=entry.bundle,
        runtime=entry.runtime,
        precision=entry.precision,
        variant=entry.variant,
        device=device,
        max_faces=entry.scene.faces,
    )
    session = opened.enter_context(open_session(wanted))
    open_s = time.perf_counter() - start_s
    contender = Contender(session, _edit_of(session), feed, entry.scene, _LEAD_IN)
    contender.warm_up(_WARM_UP)
    size = contender.size
    block = {
        "bundle": entry.bundle,
        "runtime": entry.runtime,
        "precision": entry.precision,
        "variant": entry.variant,
        "description": session.runtime,
        "faces": entry.scene.faces,
        "size": f"{size.width}x{size.height}",
        "open_s": round(open_s, 2),
        "host_mb": _grown(host_mb, machine.resident_mb()),
        "card_mb": _grown(card_mb, _card_mb(device)),
    }
    return block, contender


def _open_baseline(settings: BenchSettings, feed: Feed, opened: ExitStack) -> Contender:
    from app.bench.baseline import open_baseline

    (scene,) = settings.scenes
    session = opened.enter_context(open_baseline(scene.faces, cast("Device", settings.device)))
    contender = Contender(session, _edit_of(session), feed, scene, lead_in=0)
    contender.warm_up(_BASELINE_WARM_UP)
    return contender


def _edit_of(session: "Session") -> Controls:
    """The bundle's first attribute as far as it goes: an untouched frame costs next to nothing."""
    return Controls({next(iter(session.attributes)): 1.0})


def _compared(baseline: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Gives every run its speed-up, the baseline's median step over the run's time a frame, and the least of them.

    A run's frames overlap, so that its time a frame is less than a frame's time; the baseline's take every core alone.
    """
    step_ms = baseline["stages_ms"]["total"]["p50"]
    for block in runs:
        block["speedup"] = round(step_ms * block["fps"] / 1e3, 2)
    kept = {"steps": baseline["frames_out"], "stages_ms": baseline["stages_ms"]}
    return {"baseline": kept, "speedup_over_baseline": min(block["speedup"] for block in runs)}


def _warn_of_faces(runs: list[dict[str, Any]]) -> None:
    for block in runs:
        if block["faces_edited"] < block["faces"]:
            log.warning(
                "%s on %s: %d of %d faces were edited; its figures are not those of %d faces",
                block["bundle"],
                block["runtime"],
                block["faces_edited"],
                block["faces"],
                block["faces"],
            )


def _card_mb(device: str) -> float | None:
    return machine.card_mb() if device == "cuda" else None


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else round(after - before, 1)


def _plotter(path: Path) -> Callable[[dict[str, Any], Path], None]:
    """What draws the report; raises UsageError for another kind of file, RuntimeUnavailable without matplotlib."""
    try:
        plot = import_module("app.bench.plot")
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"--plot needs the package {error.name}; install the extra `train`") from error
    if path.suffix.lower() not in plot.SUFFIXES:
        raise UsageError(f"plot {path} is of a kind that cannot be drawn; use one of {', '.join(plot.SUFFIXES)}")
    draw: Callable[[dict[str, Any], Path], None] = plot.draw
    return draw
