"""`rigid-live` with no command: its options, its end, why it cannot start, and its texts in other languages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PyQt6.QtCore import QTranslator
from PyQt6.QtWidgets import QApplication, QComboBox, QLabel, QPushButton, QTabWidget, QToolButton, QWidget

from app.cli import main
from app.doctor import window_obstacle
from app.gui.memory import Memory
from tests.app.clips import clip
from tests.app.gui.conftest import LABELS, MakeStage

_FAKE = """
import sys, time, threading
import app.loader, app.gui.bridge
from tests.app.fakes import FakeLiveSession
backend = app.loader.Backend(lambda settings: {"smile": "Smile"}, lambda settings: FakeLiveSession())
app.gui.bridge.Bridge.__init__.__kwdefaults__["backend"] = backend
from app.cli import main
raise SystemExit(main(sys.argv[1:]))
"""

_TIMED = """
import os, time
from app.gui.preview import Preview
from app.gui.window import Window
def noted(method, last):
    def call(self, *given):
        method(self, *given)
        print(time.process_time(), flush=True)
        if last:
            os._exit(0)
    return call
Window.show, Preview.show_frame = noted(Window.show, False), noted(Preview.show_frame, True)
from app.cli import main
"""

_BROKEN = """
from app.gui.status import Status
Status.show_frame = lambda self, frame: 1 / 0
from app.cli import main
"""


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a person who has agreed before."""
    Memory(folder / "config" / "rigid-live").keep_agreement()
    return {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "QT_QPA_PLATFORM": "offscreen", **more}


def _start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _FAKE, *words],
        env=_environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_options_are_the_starting_state_and_frames_ends_it(tmp_path: Path) -> None:
    source, out, report = clip(tmp_path / "in.mp4"), tmp_path / "out.mp4", tmp_path / "r.json"
    words = ["--source", str(source), "--set", "smile=0.5", "--lost-face", "blank", "--frames", "20"]
    with _start(tmp_path, *words, "--sink", str(out), "--report", str(report)) as running:
        said = running.communicate(timeout=180)
    assert running.returncode == 0, said
    assert "Traceback" not in said[1]
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["frames_out"] == 20
    assert document["latency_ms"]["p95"] > 0
    assert document["settings"]["lost_face"] == "blank"
    assert out.is_file()
    remembered = (tmp_path / "config" / "rigid-live" / "window.ini").read_text(encoding="utf-8")
    assert "smile=0.5" in remembered
    assert "lost_face=blank" in remembered


def test_the_window_is_there_at_once_and_soon_with_the_picture(tmp_path: Path) -> None:
    """Processor seconds, so that what else runs does not decide; on an idle machine it is the time a person waits."""
    timed = _FAKE.replace("from app.cli import main", _TIMED)
    done = subprocess.run(
        [sys.executable, "-c", timed], env=_environment(tmp_path), capture_output=True, text=True, check=False
    )
    shown_s, picture_s = (float(line) for line in done.stdout.split())
    assert shown_s < 1.5, done
    assert picture_s < 1.5, done


def test_a_failing_handler_does_not_end_the_program(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    broken = _FAKE.replace("from app.cli import main", _BROKEN)
    words = ["--source", str(clip(tmp_path / "in.mp4")), "--frames", "20", "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", broken, *words], env=_environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    assert "unexpected ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(report.read_text(encoding="utf-8"))["frames_out"] == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_window_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    source, out = clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with _start(tmp_path, "gui", "--source", str(source), "--sink", str(out)) as running:
        deadline = time.monotonic() + 180
        while not list(tmp_path.glob("out.*.part.mp4")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        running.send_signal(number)
        said = running.communicate(timeout=180)
    assert running.returncode == 0, said
    assert "Traceback" not in said[1]
    assert out.is_file()
    assert not list(tmp_path.glob("out.*.part.mp4"))


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--source"], 2), (["gui", "--lost-face", "never"], 2), (["gui", "--pace"], 2), (["--settings", "none"], 2)],
)
def test_wrong_options_are_told_before_any_window(
    words: list[str], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rigid-live: ")


def test_without_a_display_it_says_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main([]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "no display" in line


def test_missing_system_libraries_are_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    monkeypatch.setattr("app.doctor._can_load", lambda library: library != "libxcb-cursor.so.0")
    assert window_obstacle().endswith("`sudo apt-get install libxcb-cursor0`")


class _Marked(QTranslator):
    """Translates every text into itself with a mark."""

    def isEmpty(self) -> bool:
        return False

    def translate(self, context: str | None, text: str | None, disambiguation: str | None = None, n: int = -1) -> str:
        return f"¤{text}"


def test_every_text_can_be_translated(make_stage: MakeStage) -> None:
    translator = _Marked()
    QApplication.installTranslator(translator)
    try:
        window = make_stage().window
        texts = [_texts(widget) for widget in window.findChildren(QWidget)]
    finally:
        QApplication.removeTranslator(translator)
    said = {text for several in texts for text in several if any(letter.isalpha() for letter in text)}
    names = {"OpenVINO", "ONNX Runtime", "TensorRT", "Torch-TensorRT", "PyTorch", "auto on fake"}
    assert len(said) > 40
    assert {f"¤{label}" for label in LABELS.values()} <= said
    assert {text for text in said if "¤" not in text} <= names


def _texts(widget: QWidget) -> list[str]:
    texts = [widget.accessibleName(), widget.toolTip()]
    if isinstance(widget, QLabel | QPushButton | QToolButton):
        texts.append(widget.text())
    if isinstance(widget, QComboBox):
        texts += [widget.itemText(row) for row in range(widget.count())]
    if isinstance(widget, QTabWidget):
        texts += [widget.tabText(page) for page in range(widget.count())]
    return texts
