"""The real bundle in the window, offscreen and in a real window of an X server that the test starts."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from app.gui.memory import Memory
from app.gui.window import Window
from app.settings import RunSettings
from engine.frames import ImageU8
from tests.app.gui.conftest import OPENING_MS

Found = TypeVar("Found")

pytestmark = pytest.mark.slow

_ASIDE = ("mousemove", 1300, 850)
"""Where the pointer covers nothing."""


def test_an_edit_of_the_default_bundle_is_seen(open_real: Callable[[RunSettings], Window], qtbot: QtBot) -> None:
    window = open_real(RunSettings(source="demo"))
    qtbot.waitUntil(lambda: "smile" in window.sliders.rows, timeout=5_000)
    frame = window.preview.frame
    assert frame is not None
    assert np.array_equal(frame.edited.image, frame.original), "with every slider at 0 nothing is edited"
    window.sliders.rows["smile"].slider.setValue(100)
    qtbot.waitUntil(lambda: _difference(window) > 1.0, timeout=30_000)
    window.edits_on.click()
    qtbot.waitUntil(lambda: _difference(window) == 0.0, timeout=30_000)


def test_a_likeness_is_found_while_the_clip_plays(open_real: Callable[[RunSettings], Window], qtbot: QtBot) -> None:
    window = open_real(RunSettings(source="demo", set={"age": 1.0}))
    qtbot.waitUntil(window.likeness.improve.isEnabled, timeout=10_000)
    window.likeness.improve.click()
    qtbot.waitUntil(lambda: window.likeness.improve.text() == "Cancel", timeout=30_000)
    qtbot.waitUntil(lambda: window.likeness.improve.text() == "Back to before", timeout=120_000)
    assert window.banner.text.text() == ""
    window.likeness.improve.click()
    qtbot.waitUntil(lambda: window.likeness.improve.text() == "Improve likeness", timeout=30_000)


def _difference(window: Window) -> float:
    """Mean difference between the picture after and before, in grey levels, where the face is."""
    frame = window.preview.frame
    assert frame is not None
    height, width = frame.original.shape[:2]
    face = np.s_[height // 4 : -height // 4, width // 3 : -width // 3]
    return float(cv2.absdiff(frame.edited.image[face], frame.original[face]).mean())


@dataclass(frozen=True)
class Display:
    """An X server without a screen. memory: the file in which it keeps what would be seen, in XWD format."""

    name: str
    memory: Path

    def do(self, *words: object) -> str:
        """Has xdotool do something; what it says."""
        environment = {**os.environ, "DISPLAY": self.name}
        command = ["xdotool", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    def screen(self) -> ImageU8:
        """What is on the screen, uint8 BGR."""
        content = self.memory.read_bytes()
        words = np.frombuffer(content[:100], ">u4")
        header, width, height, stride, colours = (int(words[place]) for place in (0, 4, 5, 12, 19))
        pixels = np.frombuffer(content, np.uint8, stride * height, header + colours * 12)
        return np.ascontiguousarray(pixels.reshape(height, stride // 4, 4)[:, :width, :3])


@pytest.fixture
def display(tmp_path: Path) -> Iterator[Display]:
    """An X server that runs as long as the test."""
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        pytest.skip("could not import a display: Xvfb and xdotool are not installed")
    folder = tmp_path / "xvfb"
    folder.mkdir()
    read, write = os.pipe()
    words = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp", "-fbdir", str(folder)]
    with subprocess.Popen(words, pass_fds=(write,), stderr=subprocess.DEVNULL) as server:
        os.close(write)
        try:
            with os.fdopen(read) as said:
                number = said.readline().strip()
            assert number.isdecimal()
            yield Display(f":{number}", folder / "Xvfb_screen0")
        finally:
            server.terminate()


def test_a_slider_dragged_with_the_mouse_changes_what_is_on_the_screen(display: Display, tmp_path: Path) -> None:
    environment = {**os.environ, "DISPLAY": display.name, "QT_QPA_PLATFORM": "xcb", "XDG_CONFIG_HOME": str(tmp_path)}
    environment.pop("WAYLAND_DISPLAY", None)
    Memory(tmp_path / "rigid-live").keep_agreement()
    program = [sys.executable, "-m", "app", "--source", str(_still(tmp_path))]
    with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True) as running:
        try:
            window = _until(lambda: display.do("search", "--name", "^RIGID Live$").split(), 60)[0]
            display.do("windowmove", window, "0", "0")
            display.do("windowsize", window, "1240", "760")
            _until(lambda: _slider_on(display.screen()) is not None, OPENING_MS / 1e3)
            before = _steady(display)
            x, y = _slider_on(before) or (0, 0)
            for word in (("mousemove", x, y), ("mousedown", 1), ("mousemove", x + 60, y), ("mouseup", 1), _ASIDE):
                display.do(*word)
            _until(lambda: _changed(before, display.screen()) > 1.5, OPENING_MS / 1e3)
            _until(lambda: (_slider_on(display.screen()) or (0, 0))[0] > x + 50, 10)
            display.do("key", "--window", window, "e")
            _until(lambda: _changed(before, display.screen()) < 0.5, 60)
        finally:
            running.terminate()
            said = running.communicate(timeout=60)[1]
    assert running.returncode == 0, said


def _still(folder: Path) -> Path:
    """The demo's person, standing still, so that nothing but an edit changes the picture."""
    from app.sources import open_source
    from tests.app.clips import write_clip

    with open_source("demo") as source:
        frame = source.read()
    assert frame is not None
    return write_clip(folder / "still.mp4", [frame.image] * 50, options={"movflags": "faststart"})


def _slider_on(screen: ImageU8) -> tuple[int, int] | None:
    """The handle of the first slider: the topmost white disc in the panel's middle; None when there is none yet."""
    panel = screen[160:700, 1000:1160]
    bright = (panel.min(axis=2) > 200).astype(np.uint8)
    count, _, stats, centres = cv2.connectedComponentsWithStats(bright)
    discs = [i for i in range(1, count) if 50 < stats[i][4] < 260 and abs(int(stats[i][2]) - int(stats[i][3])) < 3]
    if not discs:
        return None
    first = min(discs, key=lambda i: centres[i][1])
    return round(1000 + centres[first][0]), round(160 + centres[first][1])


def _steady(display: Display) -> ImageU8:
    """The screen, once it does not change any more."""
    last = display.screen()

    def same() -> bool:
        nonlocal last
        time.sleep(1.0)
        before, last = last, display.screen()
        return _changed(before, last) < 0.5

    _until(same, 120)
    return last


def _changed(before: ImageU8, after: ImageU8) -> float:
    """Mean difference in grey levels where the picture is."""
    place = np.s_[250:600, 250:650]
    return float(cv2.absdiff(before[place], after[place]).mean())


def _until(look: Callable[[], Found], seconds: float) -> Found:
    give_up = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < give_up, f"waited {seconds} s in vain"
        time.sleep(0.2)
    return found
