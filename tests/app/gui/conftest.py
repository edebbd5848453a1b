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
    """Opens a window and waits until its sliders are there; closes it at the end."""
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
    ) -> Stage:
        settings = settings or RunSettings()
        memory = Memory(tmp_path / "config")

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

        backend = Backend(lambda settings: labels, open_session)
        bridge = Bridge(settings, Controls(settings.set), backend=backend, feed=Feed(open_source))
        stage = Stage(Window(bridge, memory), bridge, memory)
        made.append(stage)
        qtbot.addWidget(stage.window)
        stage.window.show()
        if wait:
            bridge.start()
            qtbot.waitUntil(lambda: bool(stage.window.sliders.rows and stage.sessions and stage.session.seen))
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
