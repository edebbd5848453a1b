"""The report's plots, as SVG: metrics of each clip side by side, and the inversion over time."""

from collections.abc import Sequence
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from models.evaluation.results import ClipResult

_BARS = {
    "mse_x100": "MSE x100, inversion",
    "lpips": "LPIPS, inversion",
    "st_lpips": "ST-LPIPS, inversion",
    "warp_error": "WE, inversion, crops",
    "warp_error_frame": "WE_frame, inversion, frames",
    "warp_error_shown": "WE, what is shown, crops",
    "fvd": "FVD, inversion",
    "fvd_edit": "FVD, editing",
    "seconds_per_100_frames": "seconds for 100 frames",
}
"""Metrics from zero up, smaller is better."""

_POINTS = {"tl_id": "TL-ID, editing", "tg_id": "TG-ID, editing"}
"""Metrics near one: larger is better, and zero is nowhere near."""

_FLOORS = {
    "warp_error": ("source_warp_error", "the source's own"),
    "warp_error_frame": ("source_warp_error_frame", "the source's own"),
    "warp_error_shown": ("source_warp_error", "the source's own"),
    "fvd": ("fvd_floor", "real against real"),
    "fvd_edit": ("fvd_floor", "real against real"),
}
_COLUMNS = 2
_PANEL_INCHES = (5.4, 2.5)
_STYLE = {
    "svg.fonttype": "none",  # text stays text: smaller files, and it can be searched
    "svg.hashsalt": "rigid-live",  # the same plot is the same file
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def metrics_plot(results: Sequence[ClipResult]) -> bytes:
    """A panel for each metric, in it a group for each clip, in it a bar or point for each candidate; SVG."""
    blocks = [outcome.block for result in results for outcome in result.outcomes]
    panels = [name for name in (*_BARS, *_POINTS) if all(name in block for block in blocks)]
    rows = -(-len(panels) // _COLUMNS)
    with matplotlib.rc_context(_STYLE):
        width, height = _COLUMNS * _PANEL_INCHES[0], rows * _PANEL_INCHES[1] + 0.6
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(hspace=0.08, wspace=0.04))
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes, name in zip(grid, panels, strict=False):
            _metric_panel(axes, results, name)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), frameon=False)
        return _svg(figure)


def _metric_panel(axes: Axes, results: Sequence[ClipResult], name: str) -> None:
    candidates = [outcome.candidate.label for outcome in results[0].outcomes]
    at, share = np.arange(len(results)), 0.8 / len(candidates)
    for number, label in enumerate(candidates):
        values = [result.outcomes[number].block[name] for result in results]
        where = at + (number - (len(candidates) - 1) / 2) * share
        if name in _BARS:
            axes.bar(where, values, share * 0.92, color=f"C{number % 10}", label=label)
        else:
            axes.plot(where, values, "o", color=f"C{number % 10}", label=label)
    if name in _FLOORS:
        key, what = _FLOORS[name]
        floors = [result.outcomes[0].block[key] for result in results]
        axes.hlines(floors, at - 0.45, at + 0.45, colors="black", linestyles="dashed", linewidth=1)
        windows = sorted({result.outcomes[0].block["windows"] for result in results}) if name.startswith("fvd") else []
        count = f", N = {windows[0]}{f' to {windows[-1]}' if len(windows) > 1 else ''}" if windows else ""
        axes.set_title(f"{_BARS[name]}{count} (dashed: {what})", fontsize=9)
    else:
        axes.set_title((_BARS | _POINTS)[name], fontsize=9)
    if name in _POINTS:
        axes.axhline(1.0, color="grey", linewidth=0.6)
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlim(-0.5, len(results) - 0.5)
    axes.set_xticks(at, [_short(result.name) for result in results], fontsize=7)


def curves_plot(result: ClipResult) -> bytes:
    """MSE of each frame and warp error of each pair, one line a candidate, of one clip; SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2 * _PANEL_INCHES[0], 2.6), layout="constrained")
        errors, steadiness = figure.subplots(1, 2)
        for number, outcome in enumerate(result.outcomes):
            for axes, values in ((errors, outcome.curves.mse_x100), (steadiness, outcome.curves.warp_error)):
                frames = result.first_scored + np.arange(len(values))
                axes.plot(frames, values, color=f"C{number % 10}", label=outcome.candidate.label, linewidth=1.2)
        frames = result.first_scored + np.arange(len(result.source_errors))
        steadiness.plot(frames, result.source_errors, "--", color="black", label="the source's own", linewidth=1)
        for axes, title in ((errors, "MSE x100, inversion"), (steadiness, "WE to the next frame, inversion")):
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("frame")
            axes.set_ylim(bottom=0)
        handles, labels = steadiness.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), frameon=False)
        return _svg(figure)


def _short(name: str, limit: int = 18) -> str:
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return stem if len(stem) <= limit else f"{stem[: limit - 1]}…"


def _svg(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
