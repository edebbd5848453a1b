"""The report's means, table and file."""

import json
from pathlib import Path

import pytest

from engine.errors import SinkError
from models.evaluation.report import Table, markdown_document, markdown_table, means, versions, write_report

BLOCKS = [
    {"clip": "a", "bundle": "x", "variant": "full", "mse_x100": 1.0, "frames_scored": 10},
    {"clip": "b", "bundle": "x", "variant": "full", "mse_x100": 3.0, "frames_scored": 30},
    {"clip": "a", "bundle": "x", "variant": "no_nm", "mse_x100": 5.0, "frames_scored": 10},
]


def test_means_by_bundle_and_variant() -> None:
    assert means(BLOCKS, ("bundle", "variant")) == [
        {"bundle": "x", "variant": "full", "mse_x100": 2.0, "frames_scored": 20},
        {"bundle": "x", "variant": "no_nm", "mse_x100": 5.0, "frames_scored": 10},
    ]


def test_table_has_every_column_once_and_leaves_gaps_empty() -> None:
    table = markdown_table(Table("Clips", [{"clip": "a|b", "mse": 1.23456}, {"clip": "b", "wide": 7}]))
    assert table == "| clip | mse | wide |\n| --- | --- | --- |\n| a\\|b | 1.235 |  |\n| b |  | 7 |\n"


def test_notes_stand_between_title_and_rows() -> None:
    text = markdown_document([Table("First", [], "Nothing."), Table("Second", [{"a": 1}])])
    assert text == "## First\n\nNothing.\n\n## Second\n\n| a |\n| --- |\n| 1 |\n"


def test_three_files_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_report(path, {"runs": BLOCKS}, [Table("Clips", BLOCKS)], "<html></html>")
    assert json.loads(path.read_text()) == {"runs": BLOCKS}
    assert path.with_suffix(".md").read_text().startswith("## Clips\n\n| clip |")
    assert path.with_suffix(".html").read_text() == "<html></html>"
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_number_that_is_none_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path / "report.json", {"runs": [{"mse_x100": float("nan")}]}, [], "")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.json", {}, [], "")


def test_versions_name_what_the_numbers_depend_on() -> None:
    assert {"python", "torch", "openvino"} <= versions().keys()
