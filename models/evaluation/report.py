"""The report of an evaluation: JSON for programs, tables in Markdown and a page for people, side by side."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from engine.errors import SinkError

Block = Mapping[str, Any]
"""One row of the report: names that say what was measured, then numbers."""


@dataclass(frozen=True)
class Table:
    """Rows under a title.

    note: what the numbers are. groups: headings over the columns, each with how many it spans. leading: what is read
    first; the rest is to look things up.
    """

    title: str
    rows: Sequence[Block]
    note: str = ""
    groups: Sequence[tuple[str, int]] = ()
    leading: bool = False

    @property
    def columns(self) -> list[str]:
        """Every field of every row, once, in the order in which they come."""
        return list(dict.fromkeys(name for row in self.rows for name in row))


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


def markdown_table(table: Table) -> str:
    """The rows as a table, numbers with four digits; a field that a row lacks stays empty."""
    lines = [_line(table.columns), _line("---" for _ in table.columns)]
    lines += [_line(cell(row.get(column, "")).replace("|", "\\|") for column in table.columns) for row in table.rows]
    return "\n".join(lines) + "\n"


def markdown_document(tables: Sequence[Table]) -> str:
    """The tables with their titles and notes; of a table without rows only these."""
    sections = []
    for table in tables:
        parts = [
            f"## {table.title}\n",
            f"{table.note}\n" if table.note else "",
            markdown_table(table) if table.rows else "",
        ]
        sections.append("\n".join(part for part in parts if part))
    return "\n".join(sections)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(value: Any) -> str:
    """A value as the tables show it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_report(path: Path, report: Mapping[str, Any], tables: Sequence[Table], page: str) -> None:
    """Write `path` (JSON) and beside it, under the same name, the tables (.md) and the page (.html).

    Raises SinkError when the folder cannot be written to, ValueError when a number is not finite.
    """
    # nan would be a metric that measured nothing; JSON has no word for it.
    document = json.dumps(report, indent=2, allow_nan=False) + "\n"
    files = {path: document, path.with_suffix(".md"): markdown_document(tables), path.with_suffix(".html"): page}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            _write_whole(file, text)
    except OSError as error:
        raise SinkError(f"the report {path} cannot be written: {error.strerror}") from error


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
