"""The virtual camera of a run that goes on: it follows its switch, survives what fails, and ends with the run."""

import os
import signal
import sys
from pathlib import Path

import pytest

from app.settings import RunSettings
from engine.frames import Phase
from tests.app.live_bench import Bench
from tests.app.registered_camera import Log, is_running


def test_the_camera_shows_edited_frames_and_goes_with_its_switch(bench: Bench, log: Log, tmp_path: Path) -> None:
    bench.running()
    bench.change(sink=("virtual",))
    bench.until(lambda: bench.editor.state.camera == "Test Camera (test)")
    bench.change(sink=("virtual", str(tmp_path / "out.mp4")))
    bench.until(lambda: bench.editor.state.recording)
    bench.until(lambda: len(set(log.numbers)) > 5)
    assert len({process for _, _, process in log.rows}) == 1, "a recording leaves the camera alone"
    bench.change(sink=("null",))
    bench.until(lambda: not bench.editor.state.camera)
    assert log.numbers[-1] == "closed"
    bench.frame()


def test_a_lost_source_is_seen_in_the_camera_as_the_policy_says(
    bench: Bench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White is what the fake policy shows here; neither an edited nor an unedited picture is white."""
    monkeypatch.setattr("app.feed._RETRY_S", 600.0)
    bench.running()
    bench.change(sink=("virtual",))
    bench.until(lambda: bench.editor.state.camera)
    bench.sessions[-1].held = 255
    bench.sources[-1].pulled = True
    bench.until(lambda: bench.editor.state.problems == ("one is gone",))
    bench.until(lambda: log.numbers[-5:] == ["255"] * 5)


def test_a_camera_that_is_killed_is_told_and_comes_back_while_the_run_goes_on(
    bench: Bench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.running()
    bench.change(sink=("virtual",))
    bench.until(lambda: log.rows)
    (first,) = {process for _, _, process in log.rows}
    os.kill(first, signal.SIGKILL)
    bench.until(lambda: any("virtual camera" in problem for problem in bench.editor.state.problems))
    before = bench.editor.run_log.frames_out
    bench.until(lambda: bench.editor.run_log.frames_out > before + 5)
    monkeypatch.setattr("app.virtual_camera._AGAIN_S", 0.0)
    bench.until(lambda: log.rows[-1][2] != first)
    bench.until(lambda: not bench.editor.state.problems)


def test_a_camera_that_cannot_be_is_told_and_the_run_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.virtual_camera.BACKENDS", {sys.platform: ("unheard of",)})
    bench.running()
    bench.change(sink=("virtual",))
    bench.until(lambda: any("unheard of" in problem for problem in bench.editor.state.problems))
    assert bench.frame().edited.phase is Phase.TRACKING
    bench.change(sink=("null",))
    bench.until(lambda: not bench.editor.state.problems)


def test_the_end_ends_the_camera(log: Log) -> None:
    bench = Bench(settings=RunSettings(source="one", sink=("virtual",)))
    bench.editor.start()
    bench.until(lambda: log.rows)
    assert bench.editor.end(60)
    assert log.numbers[-1] == "closed"
    assert not is_running(log.rows[-1][2])
