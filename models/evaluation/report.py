"""The report of an evaluation: JSON for programs, a Markdown table for people."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from engine.errors import SinkError

Block = Mapping[str, Any]
"""One row of the report: names that say what was measured, then numbers."""

_PACKAGES = ("numpy", "torch", "openvino", "onnxruntime", "opencv-python-headless", "dlib-bin")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that the numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def means(blocks: Sequence[Block], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """One block for each value of `keys`, with the means of the numbers that all its blocks have.

    Clips weigh alike, whatever their length.
    """
    groups: dict[tuple[Any, ...], list[Block]] = {}
    for block in blocks:
        groups.setdefault(tuple(block[key] for key in keys), []).append(block)
    return [dict(zip(keys, group, strict=True)) | _mean(members) for group, members in groups.items()]


def _mean(blocks: Sequence[Block]) -> dict[str, float]:
    shared = [name for name in blocks[0] if all(_is_number(block.get(name)) for block in blocks)]
    return {name: fmean(block[name] for block in blocks) for name in shared}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def markdown_table(blocks: Sequence[Block]) -> str:
    """The blocks as a table, numbers with four digits; a field that a block lacks stays empty."""
    columns = list(dict.fromkeys(name for block in blocks for name in block))
    lines = [_line(columns), _line("---" for _ in columns)]
    lines += [_line(_cell(block.get(column, "")) for column in columns) for block in blocks]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_report(path: Path, report: Mapping[str, Any], tables: Mapping[str, Sequence[Block]]) -> None:
    """Write `path` (JSON) and beside it the same name ending in .md with one table a title.

    Raises SinkError when the folder cannot be written to, ValueError when a number is not finite.
    """
    # nan would be a metric that measured nothing; JSON has no word for it.
    document = json.dumps(report, indent=2, allow_nan=False) + "\n"
    text = "\n".join(f"## {title}\n\n{markdown_table(blocks)}" for title, blocks in tables.items() if blocks)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, document)
        _write_whole(path.with_suffix(".md"), text)
    except OSError as error:
        raise SinkError(f"the report {path} cannot be written: {error.strerror}") from error


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
