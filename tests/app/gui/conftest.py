"""A window on fakes, offscreen, with nothing of the user's in it."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("PyQt6.QtWidgets", exc_type=ImportError)

from PyQt6.QtCore import QEvent, QObject
from PyQt6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.feed import Feed
from app.gui.bridge import Bridge
from app.gui.memory import Memory
from app.gui.window import Window
from app.loader import Backend
from app.people import People
from app.settings import RunSettings
from app.sources import Source
from engine.errors import RuntimeUnavailable, SourceError
from engine.frames import Controls
from tests.app.fakes import EndlessSource, FakeLiveSession


class TimedApplication(QApplication):
    """Notes how long every event takes from its delivery to its end, where `spent` is a list.

    One entry an event: (wall ms, ms of processor time of this thread). What is delivered inside another event's
    handler counts for that one.
    """

    spent: list[tuple[float, float]] | None = None
    _inside = False

    def notify(self, receiver: QObject | None, event: QEvent | None) -> bool:
        if self.spent is None or self._inside:
            return super().notify(receiver, event)
        self._inside = True
        wall_s, own_s = time.perf_counter(), time.thread_time()
        try:
            return super().notify(receiver, event)
        finally:
            self._inside = False
            if self.spent is not None:
                self.spent.append(((time.perf_counter() - wall_s) * 1e3, (time.thread_time() - own_s) * 1e3))


@pytest.fixture(scope="session")
def qapp_cls() -> type[QApplication]:
    """The application of every test of the window."""
    return TimedApplication


@pytest.fixture
def qtbot(qtbot: QtBot) -> QtBot:
    """Waits longer than by default: the machine may have other things to do."""
    qtbot.waitUntil = functools.partial(qtbot.waitUntil, timeout=60_000)
    return qtbot


OPENING_MS = 240_000
"""The networks are compiled first, on whatever else the machine does."""

LABELS = {"age": "Age", "smile": "Smile", "yaw": "Turn", "tan": "Suntan"}


@dataclass
class Stage:
    """A window, and the fakes under it. no_session, no_source: why none can be opened."""

    window: Window
    bridge: Bridge
    memory: Memory
    sessions: list[FakeLiveSession] = field(default_factory=list)
    sources: list[EndlessSource] = field(default_factory=list)
    no_session: str = ""
    no_source: str = ""

    @property
    def session(self) -> FakeLiveSession:
        return self.sessions[-1]


MakeStage = Callable[..., Stage]


@pytest.fixture
def make_stage(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeStage]:
    """Opens a window and waits until its sliders are there; closes it at the end.

    real: in the place of the fake sessions. sources: in the place of the fake sources.
    """
    monkeypatch.setattr("platformdirs.user_pictures_dir", lambda: str(tmp_path / "pictures"))
    monkeypatch.setattr("platformdirs.user_videos_dir", lambda: str(tmp_path / "videos"))
    monkeypatch.setattr("app.gui.source_picker.list_cameras", lambda: ())
    made: list[Stage] = []

    def make(
        settings: RunSettings | None = None,
        *,
        wait: bool = True,
        labels: Mapping[str, str] = LABELS,
        seconds: float = 0.0,
        size: tuple[int, int] = (64, 48),
        real: Backend | None = None,
        sources: Callable[[str], Source] | None = None,
    ) -> Stage:
        settings = settings or RunSettings()
        memory, people = Memory(tmp_path / "config"), People(tmp_path / "people")

        def open_session(settings: RunSettings) -> FakeLiveSession:
            if stage.no_session:
                raise RuntimeUnavailable(stage.no_session)
            stage.sessions.append(FakeLiveSession(f"{settings.runtime} on fake", seconds=seconds))
            return stage.sessions[-1]

        def open_source(name: str) -> Source:
            if stage.no_source:
                raise SourceError(stage.no_source)
            stage.sources.append(EndlessSource(name, size=size))
            return stage.sources[-1]

        backend = real or Backend(lambda settings: labels, open_session)
        bridge = Bridge(
            settings, Controls(settings.set), backend=backend, feed=Feed(sources or open_source), people=people
        )
        stage = Stage(Window(bridge, memory), bridge, memory)
        made.append(stage)
        qtbot.addWidget(stage.window)
        stage.window.show()
        if wait:
            bridge.start()
            qtbot.waitUntil(lambda: bool(stage.window.sliders.rows and bridge.state.runtime))
            qtbot.waitUntil(lambda: real is not None or bool(stage.session.seen))
            qtbot.waitUntil(lambda: stage.window.preview.frame is not None)
        return stage

    yield make
    for stage in made:
        stage.window.close()
        assert stage.bridge.end()


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    """A window that shows edited frames."""
    return make_stage()


@pytest.fixture
def open_real(qtbot: QtBot, tmp_path: Path) -> Iterator[Callable[[RunSettings], Window]]:
    """Opens a window on the real engine and waits until its networks are there; closes it at the end, in good order."""
    opened: list[Window] = []

    def open_window(settings: RunSettings) -> Window:
        bridge = Bridge(settings, settings.controls, people=People(tmp_path / "people"))
        opened.append(Window(bridge, Memory(tmp_path)))
        qtbot.addWidget(opened[-1])
        opened[-1].show()
        bridge.start()
        qtbot.waitUntil(lambda: opened[-1].preview.frame is not None, timeout=20_000)
        qtbot.waitUntil(lambda: bridge.state.runtime != "", timeout=OPENING_MS)
        return opened[-1]

    yield open_window
    for window in opened:
        window.close()
        assert window.ended_well
