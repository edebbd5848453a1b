"""The page says what the reports say; the one that ships was written from the figures beside it."""

import json
from pathlib import Path

import pytest

from app.bench.page import read_report, render, write_page
from engine.errors import UsageError
from tests.app.bench.made_up import made_up_report, made_up_run_report

DOCS = Path(__file__).parents[3] / "docs"


def cells(page: str, row: str) -> list[str]:
    """The cells of the table row that begins with a text."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {row}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_figure_is_the_reports() -> None:
    page = render({"1_same_size": made_up_report(speedup=3.456)}, "b.json")
    assert "## Same size\n" in page
    assert "calibration graph f32 89.0 ms, bf16 20.1 ms" in page
    assert "H999, driver 600.1" in page
    assert "takes 4839 ms a frame" in page
    assert "3.46 times as fast" in page
    header, row = cells(page, "bundle |"), cells(page, "tiny | openvino 1 on cpu")
    told = dict(zip(header, row, strict=True))
    assert told["frame"] == "640x360"
    assert told["frames/s"] == "11.2"
    assert (told["p50"], told["p95"], told["p99"], told["max"]) == ("89.3", "101", "120", "130")
    assert (told["host MB"], told["card MB"], told["x baseline"]) == ("378", "1.50", "3.46")
    stages = dict(zip(cells(page, "p50 of each stage")[1:], cells(page, "tiny, openvino")[1:], strict=True))
    assert stages == {"track": "4.12", "total": "89.3"}


def test_a_run_from_file_to_file_has_its_place() -> None:
    page = render({"2_file_to_file": made_up_run_report()}, "b.json")
    assert "## File to file\n" in page
    assert "**11.2 frames/s**, 150 frames in, 150 out" in page
    assert cells(page, "default") == ["default", "4.12", "89.3"]


def test_a_variant_is_told_where_it_is_not_the_full_method() -> None:
    report = made_up_report()
    report["runs"][0]["variant"] = "half_rate"
    assert "| tiny (half_rate) | openvino 1 on cpu |" in render({"a": report}, "b.json")


def test_latency_is_told_where_it_was_measured() -> None:
    report = made_up_report()
    assert "glass" not in render({"live": report}, "b.json")
    for run in report["runs"]:
        run["glass_to_glass_ms"] = {"p50": 41.0, "p95": 44.0, "p99": 50.0, "max": 60.0}
    page = render({"live": report}, "b.json")
    assert "| glass to glass p50 / p95 / p99 |" in page
    assert "| 41.0 / 44.0 / 50.0 |" in page


def test_the_page_and_its_figures_are_written_together(tmp_path: Path) -> None:
    for name in ("1_a", "2_b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(made_up_report()), encoding="utf-8")
    page = tmp_path / "docs.md"
    write_page(page, [tmp_path / "1_a.json", tmp_path / "2_b.json"])
    kept = json.loads((tmp_path / "docs.json").read_text(encoding="utf-8"))
    assert kept == {"1_a": made_up_report(), "2_b": made_up_report()}
    assert page.read_text(encoding="utf-8") == render(kept, "docs.json")


def test_no_folder_of_the_machine_is_told(tmp_path: Path) -> None:
    report = made_up_report()
    report["settings"] |= {"source": "/home/somebody/clip.mp4", "sink": ["/home/somebody/out.mp4", "out/b.mp4"]}
    report["runs"][0]["bundle"] = "/home/somebody/mine"
    (tmp_path / "a.json").write_text(json.dumps(report), encoding="utf-8")
    write_page(tmp_path / "docs.md", [tmp_path / "a.json"])
    kept = json.loads((tmp_path / "docs.json").read_text(encoding="utf-8"))["a"]
    assert (kept["settings"]["source"], kept["settings"]["sink"]) == ("clip.mp4", ["out.mp4", "out/b.mp4"])
    assert kept["runs"][0]["bundle"] == "mine"
    assert "home" not in (tmp_path / "docs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["no json", "[]", "{}", None])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"r\.json"):
        read_report(path)
    with pytest.raises(UsageError):
        write_page(tmp_path / "page.md", [path])
    assert not (tmp_path / "page.md").exists()


def test_the_page_that_ships_was_written_from_its_figures() -> None:
    reports = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    assert reports
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == render(reports, "benchmarks.json")
