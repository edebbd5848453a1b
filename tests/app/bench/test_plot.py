"""The plot shows every stage of every run, and is written as what its name says."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.app.bench.made_up import made_up_report

plot = pytest.importorskip("app.bench.plot")


@pytest.mark.parametrize("runtimes", [("openvino",), ("openvino", "onnxruntime", "eager", "tensorrt")])
def test_a_bar_for_each_run(tmp_path: Path, runtimes: tuple[str, ...]) -> None:
    plot.draw(made_up_report(runtimes=runtimes), tmp_path / "p.png")
    image = cv2.imread(str(tmp_path / "p.png"))
    bar = np.array([180, 119, 31])  # the first stage's colour, as BGR
    rows = (np.abs(image[:, : image.shape[1] // 2].astype(int) - bar).sum(axis=2) < 12).sum(axis=1) > 8
    starts = np.count_nonzero(rows[1:] & ~rows[:-1])
    assert starts == len(runtimes) + 1, "and one for the legend"


def test_the_words_are_the_runs(tmp_path: Path) -> None:
    report = made_up_report()
    plot.draw(report, tmp_path / "p.svg")
    assert plot.label(report["runs"][0]) == "tiny, openvino auto\n640x360, 1 face"
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").startswith("<?xml")
