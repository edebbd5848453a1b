"""Between the engine thread and the window: Qt signals for what is new.

Qt is unknown below this module, and the window knows nothing of threads above it.
"""

from collections.abc import Mapping

from PyQt6.QtCore import QObject, QRunnable, QThreadPool, pyqtSignal

from app.feed import Feed
from app.live import LiveEditor, LiveFrame, LiveState
from app.loader import ENGINE, Backend
from app.people import People
from app.settings import RunSettings
from engine.errors import RigidError
from engine.frames import Controls, ImageU8


class Bridge(QObject):
    """Owns the engine thread. A signal says "there is something new"; the window then takes the newest."""

    frame_ready = pyqtSignal()
    state_changed = pyqtSignal()
    snapshot_done = pyqtSignal(str, str)
    """The file, and why it could not be written: empty when it was."""

    def __init__(
        self,
        settings: RunSettings,
        controls: Controls,
        *,
        backend: Backend = ENGINE,
        feed: Feed | None = None,
        people: People | None = None,
    ) -> None:
        super().__init__()
        self.people = people or People()
        """The likenesses that are kept."""
        signals = self.frame_ready.emit, self.state_changed.emit
        self._editor = LiveEditor(settings, controls, *signals, backend=backend, feed=feed, people=self.people)

    @property
    def settings(self) -> RunSettings:
        """What runs."""
        return self._editor.settings

    @settings.setter
    def settings(self, settings: RunSettings) -> None:
        self._editor.settings = settings

    @property
    def controls(self) -> Controls:
        """What is edited."""
        return self._editor.controls

    @controls.setter
    def controls(self, controls: Controls) -> None:
        self._editor.controls = controls

    @property
    def state(self) -> LiveState:
        """What the run does."""
        return self._editor.state

    @property
    def report(self) -> Mapping[str, object]:
        """Counts and timings since the start, as `rigid-live run` reports them."""
        return self._editor.run_log.as_json(live=True)

    def take_frame(self) -> LiveFrame | None:
        """The newest frame, None when it has been taken already. Does not wait."""
        return self._editor.frames.take(0)

    def start(self) -> None:
        """Starts the engine thread."""
        self._editor.start()

    def end(self) -> bool:
        """Ends every thread; False when one still hangs after five seconds. May be called twice."""
        pool = QThreadPool.globalInstance()
        written = pool is None or pool.waitForDone(2000)
        return self._editor.end() and written

    def save_snapshot(self, image_u8: ImageU8, path: str) -> None:
        """Writes the frame as a PNG file, in a thread of its own; `snapshot_done` tells how it went."""
        pool = QThreadPool.globalInstance()
        assert pool is not None
        pool.start(_Snapshot(self, image_u8, path))


class _Snapshot(QRunnable):
    def __init__(self, bridge: Bridge, image_u8: ImageU8, path: str) -> None:
        super().__init__()
        self._bridge, self._image, self._path = bridge, image_u8, path

    def run(self) -> None:
        from app.snapshot import write_png

        why = ""
        try:
            write_png(self._image, self._path)
        except RigidError as error:
            why = str(error)
        self._bridge.snapshot_done.emit(self._path, why)
