"""A bench as a picture: where each run's time goes, and how its frames scatter."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.bench.page import named

SUFFIXES = (".png", ".svg", ".pdf")
_WIDTH_INCHES, _BAR_INCHES, _FRAME_INCHES = 11.0, 0.5, 1.9
_STYLE: Any = {
    "font.size": 9.0,
    "svg.hashsalt": "rigid-live",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_DOTS = {"p50": "o", "p95": "s", "p99": "D", "max": "x"}
_OUTSIDE = ("total", "read", "write")
"""Not part of the engine's step, or the whole of it."""


def draw(report: dict[str, Any], path: Path) -> None:
    """Draws the runs of a report, the first on top. path: ends in one of SUFFIXES."""
    runs = report["runs"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, _FRAME_INCHES + _BAR_INCHES * len(runs)), layout="constrained")
        stages, spread = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _draw_stages(stages, runs)
        _draw_spread(spread, runs)
        calibrated = ", ".join(f"{name} {times['p50']:.0f} ms" for name, times in report["calibration_ms"].items())
        figure.suptitle(f"{report['machine']['processor']}; calibration graph {calibrated}", fontsize=9)
        for axes in (stages, spread):
            axes.set_xlim(left=0)
            axes.set_xlabel("ms a frame")
        handles = [handle for axes in (stages, spread) for handle in axes.get_legend_handles_labels()[0]]
        figure.legend(handles=handles, loc="outside lower center", ncols=7)
        figure.savefig(path, dpi=120)


def label(run: dict[str, Any]) -> str:
    """A run in two short lines."""
    faces = "1 face" if run["faces"] == 1 else f"{run['faces']} faces"
    return f"{named(run)}, {run['runtime']} {run['precision']}\n{run['size']}, {faces}"


def _draw_stages(axes: Axes, runs: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for run in runs for name in run["stages_ms"] if name not in _OUTSIDE)
    start = np.zeros(len(runs))
    for number, name in enumerate(names):
        width = np.array([run["stages_ms"].get(name, {"p50": 0.0})["p50"] for run in runs])
        axes.barh(np.arange(len(runs)), width, 0.7, start, color=f"C{number % 10}", label=name)
        start += width
    axes.set_yticks(np.arange(len(runs)), [label(run) for run in runs])
    axes.invert_yaxis()
    axes.set_title("stages, p50", fontsize=9)


def _draw_spread(axes: Axes, runs: list[dict[str, Any]]) -> None:
    for name, marker in _DOTS.items():
        axes.plot([run["stages_ms"]["total"][name] for run in runs], np.arange(len(runs)), marker, label=name)
    axes.set_title("whole step", fontsize=9)
