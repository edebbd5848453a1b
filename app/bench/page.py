"""The page of benchmarks: Markdown, written from reports and from nothing else.

The reports are kept beside the page as one JSON file, so that every figure can be checked and the page written again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.files import write_whole
from engine.errors import SinkError, UsageError

Report = Mapping[str, Any]

_HEAD = """# Benchmarks

Written by `make bench` from `{data}`, which holds every figure; do not edit.

Times are in ms a frame. The calibration graph is a fixed piece of work (17.2 GFLOP of convolutions, OpenVINO), timed
in the same minutes as what stands below it: where it takes longer, the machine was slower or shared. Runs of one table
took turns, so their ratios hold even then. `total` is the engine's whole step, from decoded frame to edited frame, its
waiting for the frames before and after it included: frames overlap, so that more of them are edited than `total` says.
"""
_PERCENTILES = ("p50", "p95", "p99", "max")


def write_page(page: Path, reports: Sequence[Path]) -> None:
    """Writes the page, and the reports beside it as one file; raises UsageError when a file is no report."""
    gathered = {path.stem: _without_folders(read_report(path)) for path in reports}
    data = page.with_suffix(".json")
    if page == data or len(gathered) < len(reports):
        raise UsageError("expected a page that ends in .md, and reports whose names differ")
    try:
        write_whole(data, (json.dumps(gathered, separators=(",", ":")) + "\n").encode())
        write_whole(page, render(gathered, data.name).encode())
    except OSError as error:
        raise SinkError(f"{page} cannot be written: {error.strerror}") from error


def read_report(path: Path) -> Report:
    """A report of `bench` or of `run`; raises UsageError when the file is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"report {path} cannot be read: {error}") from error
    if not isinstance(report, dict) or not {"settings", "versions", "stages_ms"} <= report.keys():
        raise UsageError(f"{path} is no report of `rigid-live bench` or `rigid-live run`")
    return report


def _without_folders(value: Any) -> Any:
    """The same with every absolute path as its last name: a page for all has no business with one machine's folders."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def render(reports: Mapping[str, Report], data: str) -> str:
    """The page. reports: by name, which becomes a title (`2_same_size` is "Same size"). data: the file's name."""
    parts = [_HEAD.format(data=data)]
    for name, report in reports.items():
        words = name.lstrip("0123456789_").replace("_", " ")
        parts.append(f"## {words[:1].upper()}{words[1:]}\n")
        parts.append(_measured_on(report))
        parts.append(_runs_table(report) if "runs" in report else _whole_path(report))
        parts.append(_stages_table(report))
    return "\n".join(parts)


def named(run: Report) -> str:
    """The bundle of a run, and its variant where it is not the full method."""
    name = Path(run["bundle"]).name
    return name if run["variant"] == "full" else f"{name} ({run['variant']})"


def _measured_on(report: Report) -> str:
    settings = report["settings"]
    versions = ", ".join(f"{name} {text}" for name, text in report["versions"].items())
    lines = [f"Source `{Path(settings['source']).name}`. {versions}."]
    if "machine" in report:
        machine, times = report["machine"], report["calibration_ms"]
        gpu = f"{machine['gpu']['name']}, driver {machine['gpu']['driver']}" if machine["gpu"] else "no GPU"
        graph = ", ".join(f"{name} {_number(figures['p50'])} ms" for name, figures in times.items())
        lines.insert(0, f"{machine['processor']}, {machine['cores']} cores, {gpu}; **calibration graph {graph}**.")
    if "speedup_over_baseline" in report:
        step = report["baseline"]["stages_ms"]["total"]["p50"]
        lines.append(
            f"The paper's structure in plain PyTorch takes {_number(step)} ms a frame ({report['baseline']['steps']} "
            f"steps, median); **the slowest run is {_number(report['speedup_over_baseline'])} times as fast**."
        )
    return "\n".join(lines) + "\n"


def _runs_table(report: Report) -> str:
    runs = report["runs"]
    columns = ["bundle", "runs on", "frame", "faces", "frames/s", *_PERCENTILES, "dropped"]
    extra = [name for name in ("latency_ms", "glass_to_glass_ms") if all(name in run for run in runs)]
    columns += [f"{name.removesuffix('_ms').replace('_', ' ')} p50 / p95 / p99" for name in extra]
    columns += ["host MB", "card MB"] if any(run["card_mb"] is not None for run in runs) else ["host MB"]
    columns += ["x baseline"] if all("speedup" in run for run in runs) else []
    rows = []
    for run in runs:
        total = run["stages_ms"]["total"]
        row = [named(run), run["description"], run["size"], str(run["faces"]), _number(run["fps"])]
        row += [*(_number(total[name]) for name in _PERCENTILES), str(run["dropped"])]
        row += [" / ".join(_number(run[name][part]) for part in _PERCENTILES[:3]) for name in extra]
        row += [_number(run[name]) for name in ("host_mb", "card_mb") if name.replace("_mb", " MB") in columns]
        rows.append([*row, *([_number(run["speedup"])] if "x baseline" in columns else [])])
    return _table(columns, rows)


def _whole_path(report: Report) -> str:
    """A `run`: decoding and encoding included."""
    return (
        f"`rigid-live run` from file to file, decoding and encoding included: **{_number(report['fps'])} frames/s**, "
        f"{report['frames_in']} frames in, {report['frames_out']} out.\n"
    )


def _stages_table(report: Report) -> str:
    """The median of each stage, a row a run."""
    runs = report.get("runs", [report])
    names = list(dict.fromkeys(name for run in runs for name in run["stages_ms"]))
    rows = [
        [
            f"{named(run)}, {run['runtime']} {run['precision']}, {run['size']}, {run['faces']}"
            if "bundle" in run
            else Path(report["settings"]["bundle"]).name,
            *(_number(run["stages_ms"].get(name, {}).get("p50")) for name in names),
        ]
        for run in runs
    ]
    return _table(["p50 of each stage", *names], rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _number(value: float | None) -> str:
    """Three digits that matter, and none where nothing was measured."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
