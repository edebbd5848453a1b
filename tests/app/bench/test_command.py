"""`rigid-live bench` with the real engine under it, on tiny networks."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.bench.calibration import Calibration
from app.bench.contender import Contender
from app.cli import main
from engine.frames import CameraFrame, Controls, EditedFrame
from engine.session import Session
from tests.engine import tiny_bundle

FIGURES = {"frames_in", "frames_out", "dropped", "fps", "phases", "stages_ms"}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny bundle; the calibration is made small, for time's sake."""
    monkeypatch.setattr("app.bench.calibration._SIDE_PX", 8)
    return tiny_bundle.build(tmp_path / "tiny")


class SlowSession:
    """A baseline whose every step takes a second, by its own account."""

    runtime = "slow"

    def __init__(self, session: Session) -> None:
        self.attributes = session.attributes
        self.steps = 0
        self._session = session

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        return self.begin(frame, controls)()

    def begin(self, frame: CameraFrame, controls: Controls) -> Callable[[], EditedFrame]:
        self.steps += 1
        finish = self._session.begin(frame, controls)
        return lambda: replace(finish(), stages_ms={"total": 1000.0})

    def expect(self, frame: CameraFrame) -> None:
        pass

    def policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        raise AssertionError("no frame fails")

    def __enter__(self) -> "SlowSession":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def _noted_turns(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Fills, while a bench runs, with whose turn it was: the calibration's, or so many frames of a run."""
    order: list[object] = []

    def noted(method: Callable[..., None]) -> Callable[..., None]:
        return lambda *args: (order.append(*args[1:] or ["calibration"]), method(*args))[1]

    monkeypatch.setattr(Contender, "take_turn", noted(Contender.take_turn))
    monkeypatch.setattr(Calibration, "take", noted(Calibration.take))
    return order


def test_two_runtimes_and_the_baseline(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = _noted_turns(monkeypatch)
    slow = SlowSession(Session.open(bundle, "onnxruntime"))
    monkeypatch.setattr("app.bench.baseline.open_baseline", lambda faces, device: slow)
    report, plot = tmp_path / "r.json", tmp_path / "p.svg"
    words = ["bench", "--frames", "7", "--bundle", str(bundle), "--runtime", "openvino", "--runtime", "onnxruntime"]
    words += ["--precision", "fp32", "--size", "640x360", "--baseline", "eager"]
    assert main([*words, "--report", str(report), "--plot", str(plot)]) == 0
    told = json.loads(report.read_text(encoding="utf-8"))
    assert FIGURES | {"settings", "versions", "machine", "calibration_ms", "host_peak_mb"} <= told.keys()
    assert [run["runtime"] for run in told["runs"]] == ["openvino", "onnxruntime"]
    for run in told["runs"]:
        assert run.keys() >= FIGURES
        assert run["frames_in"] == run["frames_out"] == run["phases"]["tracking"] == 7
        assert run["faces_edited"] == run["faces"] == 1
        assert {
            "track",
            "motion",
            "align",
            "encode",
            "recur",
            "generate",
            "steady",
            "restore",
            "parse",
            "blend",
        } <= run["stages_ms"].keys()
        assert run["speedup"] == pytest.approx(run["fps"], abs=0.01)
        assert run["fps"] > 0
    assert told["speedup_over_baseline"] == min(run["speedup"] for run in told["runs"])
    assert told["stages_ms"] == told["runs"][0]["stages_ms"]
    assert told["baseline"]["steps"] == 3
    assert slow.steps == 5
    assert order == ["calibration", 2, 2, 1, "calibration", 2, 2, 1, "calibration", 3, 3, 1]
    assert plot.is_file()


def test_four_faces_are_edited_four_times(tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = tmp_path / "r.json"
    words = ["bench", "--frames", "3", "--bundle", str(bundle), "--precision", "fp32", "--faces", "1", "4"]
    assert main([*words, "--size", "640x360", "--report", str(report)]) == 0
    told = json.loads(report.read_text(encoding="utf-8"))
    assert [(run["faces"], run["faces_edited"], run["size"]) for run in told["runs"]] == [
        (1, 1, "640x360"),
        (4, 4, "640x360"),
    ]
    assert "speedup_over_baseline" not in told
    assert not [record for record in caplog.records if "faces were edited" in record.getMessage()]


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "640"],
        ["--size", "0x360"],
        ["--frames", "2"],
        ["--faces", "0"],
        ["--faces", "99"],
        ["--runtime", "quantum"],
        ["--baseline", "eager", "--faces", "1", "2"],
        ["--plot", "plot.txt"],
        ["--page", "page.md"],
        ["--reports", "r.json"],
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["bench", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rigid-live: ")


def test_a_runtime_that_is_not_there_ends_it(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--bundle", str(bundle), "--runtime", "tensorrt"]) == 1
    assert "no usable runtime for --runtime tensorrt" in capfd.readouterr().err


def test_nothing_slow_is_loaded_unless_asked_for() -> None:
    script = (
        "import sys, app.bench.command\n"
        "loaded = [name for name in ('torch', 'matplotlib', 'models') if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
