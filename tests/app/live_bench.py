"""A live editor on fakes, with everything that was opened for it."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from app.feed import Feed
from app.live import LiveEditor, LiveFrame
from app.loader import Backend
from app.settings import RunSettings
from app.sources import Source
from engine.errors import RuntimeUnavailable, SourceError
from engine.frames import Controls
from tests.app.fakes import EndlessSource, FakeLiveSession

LABELS = {"age": "Age", "smile": "Smile"}
SMILE = Controls({"smile": 0.5})


class Bench:
    """A live editor on fakes, with everything that was opened for it."""

    def __init__(self, controls: Controls = SMILE, settings: RunSettings | None = None) -> None:
        self.sources: list[EndlessSource] = []
        self.sessions: list[FakeLiveSession] = []
        self.no_source = self.no_session = ""
        self.may_open = threading.Event()
        self.may_open.set()
        self.editor = LiveEditor(
            settings or RunSettings(source="one"),
            controls,
            lambda: None,
            lambda: None,
            backend=Backend(self._labels, self._open_session),
            feed=Feed(self._open_source),
        )

    def _labels(self, settings: RunSettings) -> Mapping[str, str]:
        return LABELS

    def _open_session(self, settings: RunSettings) -> FakeLiveSession:
        assert self.may_open.wait(60)
        if self.no_session:
            raise RuntimeUnavailable(self.no_session)
        self.sessions.append(FakeLiveSession(settings.runtime))
        return self.sessions[-1]

    def _open_source(self, name: str) -> Source:
        if self.no_source:
            raise SourceError(self.no_source)
        self.sources.append(EndlessSource(name))
        return self.sources[-1]

    def change(self, **changes: object) -> None:
        self.editor.settings = replace(self.editor.settings, **changes)

    def frame(self) -> LiveFrame:
        """A frame that was handed over after this call."""
        self.editor.frames.take(0)
        frame = self.editor.frames.take(60)
        assert frame is not None
        return frame

    def until(self, condition: Callable[[], object]) -> None:
        give_up = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up, self.editor.state
            time.sleep(0.005)

    def running(self) -> None:
        """Waits until a session edits."""
        self.until(lambda: self.sessions and self.sessions[-1].seen)
