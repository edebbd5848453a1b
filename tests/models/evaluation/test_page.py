"""The page: whole, well-formed, with everything inside it."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from models.evaluation.page import TILE_PX, render_page
from models.evaluation.plots import curves_plot, metrics_plot
from models.evaluation.report import Table
from models.evaluation.tables import all_tables
from tests.models.evaluation.made_up import SHOWN, candidates, clip_results, report_of

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Checks that tags close in order; keeps the images and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append((dict(attributes)["alt"] or "", dict(attributes)["src"] or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        self.words.append(text)


def page_of(clips: int = 2) -> str:
    results = clip_results(clips, candidates(["full", "no_nm"]))
    report = report_of(results)
    return render_page(report, all_tables(report), results)


def test_page_is_whole_and_needs_nothing_else() -> None:
    page = page_of()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert all(source.startswith("data:image/") for _, source in reader.images)
    assert not re.search(r"(href|url|src)\s*=?\s*[\"'(]?(https?:)?//", page)
    text = " ".join(reader.words)
    for words in ("smile = 1", "Ablation: switched off", "Ablation: retrained without", "Paired differences", "w/o NM"):
        assert words in text


def test_strips_show_before_and_after_of_each_candidate() -> None:
    reader = Reader()
    reader.feed(page_of(clips=1))
    strips = [(label, source) for label, source in reader.images if source.startswith("data:image/jpeg")]
    assert [label for label, _ in strips] == [
        "before",
        "full: inversion",
        "full: after",
        "no_nm: inversion",
        "no_nm: after",
    ]
    pictures = [
        cv2.imdecode(np.frombuffer(b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR) for _, source in strips
    ]
    assert {picture.shape for picture in pictures} == {(TILE_PX, TILE_PX * len(SHOWN), 3)}
    # The made-up inversion is the source, the edit its negative.
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) + pictures[2] - 255).mean() < 8
    assert all(f"frame {number}" in reader.words for number in SHOWN)


def test_names_cannot_break_the_page() -> None:
    results = clip_results(1, candidates(["full"]))
    report = report_of(results) | {"skipped": {"<b>&.mp4": "no <face>"}}
    page = render_page(report, [*all_tables(report), Table("A <title>", [{"<x>": "<y>"}], "`a<b`")], results)
    assert "<b>&" not in page
    assert "<code>a&lt;b</code>" in page
    assert "&lt;x&gt;" in page


@pytest.mark.parametrize("variants", [["full"], ["full", "no_nm", "per_frame"]])
def test_plots_are_svg_with_every_panel_and_candidate(variants: list[str]) -> None:
    results = clip_results(3, candidates(variants))
    text = " ".join(ElementTree.fromstring(metrics_plot(results)).itertext())
    for words in ("MSE x100", "ST-LPIPS", "WE_frame", "FVD, editing", "TL-ID", "seconds for 100", "clip2", *variants):
        assert words in text
    assert "clip2.mp4" not in text
    curves = " ".join(ElementTree.fromstring(curves_plot(results[0])).itertext())
    assert "the source's own" in curves


def test_a_plot_leaves_out_what_was_not_measured() -> None:
    results = clip_results(2, candidates(["full"]), windows=2)
    assert b"FVD" not in metrics_plot(results)
    assert metrics_plot(results) == metrics_plot(results)
