"""The window's camera in a video call: Chromium asks the desktop's camera portal, and shows the edited face."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.gui.memory import Memory
from app.sources import open_source
from engine.assets import cache_folder
from engine.frames import Controls
from engine.session import Session
from tests.app.browser import CHROMIUM, Browser
from tests.app.clips import write_clip
from tests.app.pipewire_session import pipewire_session, portal

pytestmark = pytest.mark.slow

Difference = NDArray[np.float32]

EDIT = {"smile": 1.0, "age": 1.0}
SIZE = (640, 360)
OPENING_S = 240.0


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: `sudo apt-get install chromium xdg-desktop-portal`")
    monkeypatch.setenv("RIGID_CACHE", str(cache_folder()))  # the home folder is another one there
    with pipewire_session(monkeypatch), portal(monkeypatch):
        yield


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A clip of the demo's person, standing still."""
    with open_source("demo") as source:
        frame = source.read()
    assert frame is not None
    return write_clip(tmp_path / "still.mp4", [cv2.resize(frame.image, SIZE, interpolation=cv2.INTER_AREA)] * 50)


def test_a_browser_shows_the_edited_face(session: None, still: Path) -> None:
    """From the window's command line to the pixels of a page; what is seen is compared with an edit made here."""
    before, made = _edit(still)
    edited = cv2.dilate((np.abs(made).max(axis=2) > 8).astype(np.uint8), np.ones((9, 9))) > 0
    assert 0.01 < edited.mean() < 0.5
    Memory(Path(os.environ["XDG_CONFIG_HOME"]) / "rigid-live").keep_agreement()
    words = [word for name, value in EDIT.items() for word in ("--set", f"{name}={value}")]
    program = [sys.executable, "-m", "app", "--source", str(still), "--sink", "virtual", *words]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as running:
        try:
            _until(lambda: "rigid-live" in _nodes())
            browser = Browser(Path(os.environ["HOME"]))
            try:
                assert browser.pick("RIGID Live", SIZE) == "RIGID Live"
                _until(lambda: _alike((browser.picture() - before)[edited], made[edited]) > 0.9)
                seen = browser.picture() - before
            finally:
                browser.end()
        finally:
            running.terminate()
            said = running.communicate(timeout=60)[1]
    assert running.returncode == 0, said
    assert 0.8 < np.abs(seen[edited]).mean() / np.abs(made[edited]).mean() < 1.25
    assert np.abs(seen[~edited]).mean() < 3, "beside the face it is the picture that went in"


def _edit(clip: Path) -> tuple[Difference, Difference]:
    """The clip's picture in grey levels [H, W, 3], and what an edit adds to it."""
    with open_source(str(clip)) as source, Session.open(bundle="default") as session:
        frames = [frame for frame in iter(source.read, None) if frame.index < 20]
        edited = [session.step(frame, Controls(EDIT)).image for frame in frames][-1]
    return frames[-1].image.astype(np.float32), edited.astype(np.float32) - frames[-1].image


def _alike(seen: Difference, made: Difference) -> float:
    """How much of one goes with the other: 1 for the same up to its strength, 0 for nothing."""
    return float(np.corrcoef(seen.ravel(), made.ravel())[0, 1])


def _nodes() -> str:
    return subprocess.run(["pw-cli", "list-objects", "Node"], capture_output=True, text=True, check=False).stdout


def _until(look: Callable[[], object]) -> None:
    give_up = time.monotonic() + OPENING_S
    while not look():
        assert time.monotonic() < give_up, f"waited {OPENING_S} s in vain"
        time.sleep(0.5)
