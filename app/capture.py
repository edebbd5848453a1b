"""Reads a live source in a thread of its own and leaves the newest frame in a mailbox."""

import threading
import time
from collections.abc import Callable

from app.mailbox import Mailbox
from app.sources import Source, SourceInfo
from engine.frames import CameraFrame

_JOIN_S = 15.0
"""Longer than a network source waits for data."""


class Capture:
    """A thread that opens a source, reads it as fast as it gives frames, and closes it.

    Once the thread has ended, `arrivals` is closed and `failure` says why, None when the source was at its end.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        after: "Capture | None" = None,
        notice: Callable[[CameraFrame], None] = lambda frame: None,
    ) -> None:
        """after: a capture that must have let go of the same camera or file before this one opens it.

        notice: called in the thread with each frame once it is there to be taken.
        """
        self.arrivals: Mailbox[tuple[CameraFrame, int]] = Mailbox()
        """The newest frame and the monotonic time in ns at which it arrived."""
        self.frames = 0
        self.info: SourceInfo | None = None
        """What is known about the source; None until it is open."""
        self.failure: Exception | None = None
        self._open_source = open_source
        self._after = after
        self._notice = notice
        self._source: Source | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once the thread has ended."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Asks the thread to end, and does not wait for it."""
        self._ending.set()
        if self._source is not None:
            self._source.cancel()

    def end(self, timeout_s: float = _JOIN_S) -> bool:
        """Ends the thread; False when it is still busy after timeout_s seconds."""
        self.cancel()
        self._thread.join(timeout_s)
        return not self.running

    def _work(self) -> None:
        try:
            if self._after is not None:
                self._after.end()
                self._after = None
            if self._ending.is_set():
                return
            with self._open_source() as self._source:
                self.info = self._source.info
                while not self._ending.is_set() and (frame := self._source.read()) is not None:
                    self.frames += 1
                    self.arrivals.put((frame, time.monotonic_ns()))
                    self._notice(frame)
        except Exception as error:  # noqa: BLE001 - a worker's loop; whoever reads the mailbox tells of it
            self.failure = error
        finally:
            self.arrivals.close()
