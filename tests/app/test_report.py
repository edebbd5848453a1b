"""Figures of a run are right, bounded in memory, and plain JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.report import RunLog, Samples, versions, write_report
from engine.errors import SinkError
from engine.frames import EditedFrame, Phase
from tests.app.clips import numbered


def _edited(phase: Phase, track_ms: float) -> EditedFrame:
    return EditedFrame(0, 0, numbered(0), phase, {"track": track_ms})


def test_percentiles_of_few_samples_are_exact() -> None:
    samples = Samples()
    for value in range(101):
        samples.add(float(value))
    assert samples.percentiles() == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_many_samples_take_bounded_memory_and_stay_representative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.report._KEPT", 1000)
    samples = Samples()
    for value in np.random.default_rng(0).permutation(20_000):
        samples.add(float(value))
    assert len(samples._kept) == 1000
    figures = samples.percentiles()
    assert figures["p50"] == pytest.approx(10_000, rel=0.1)
    assert figures["p95"] == pytest.approx(19_000, rel=0.05)
    assert figures["max"] == 19_999.0


def test_frames_per_second_count_from_the_first_write_to_the_last() -> None:
    log = RunLog()
    for index in range(11):
        log.written(_edited(Phase.TRACKING, 1.0), {}, 5_000_000_000 + index * 100_000_000)
    assert log.fps == pytest.approx(10.0)


def test_the_time_of_a_pause_counts_for_no_rate() -> None:
    log = RunLog()
    for start_s in (5, 1000):
        for index in range(6):
            log.written(_edited(Phase.TRACKING, 1.0), {}, start_s * 1_000_000_000 + index * 100_000_000)
        log.pause()
    assert log.fps == pytest.approx(10.0)
    assert log.frames_out == 12


def test_a_run_without_frames_has_figures_too() -> None:
    figures = RunLog().as_json(live=True)
    assert figures["fps"] == 0.0
    assert figures["phases"] == {"searching": 0, "anchoring": 0, "tracking": 0, "holding": 0}
    json.dumps(figures, allow_nan=False)


def test_phases_stages_and_latency_are_told() -> None:
    log = RunLog()
    for phase, spent_ms in ((Phase.ANCHORING, 4.0), (Phase.TRACKING, 2.0), (Phase.TRACKING, 2.0)):
        log.written(_edited(phase, spent_ms), {"write": 1.0}, 1)
        log.arrived_late_by(8.0)
    figures = log.as_json(live=True)
    assert figures["phases"] == {"searching": 0, "anchoring": 1, "tracking": 2, "holding": 0}
    assert figures["stages_ms"]["track"]["p50"] == 2.0
    assert figures["stages_ms"]["track"]["max"] == 4.0
    assert figures["stages_ms"]["write"]["p99"] == 1.0
    assert figures["latency_ms"] == {"p50": 8.0, "p95": 8.0, "p99": 8.0}
    assert "latency_ms" not in log.as_json(live=False)


def test_versions_name_what_decides_a_run() -> None:
    there = versions()
    assert {"python", "platform", "numpy", "av", "torch"} <= there.keys()
    assert there["torch"].startswith("2.13.0")


def test_a_report_is_whole_or_not_there(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", {"fps": 1.5})
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == {"fps": 1.5}
    with pytest.raises(SinkError):
        write_report(tmp_path / "nowhere" / "r.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
