"""The source of a run that goes on: opened in a thread of its own, changed on request, opened again when lost."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from app.capture import Capture
from app.sources import Source, SourceInfo, open_playing
from engine.frames import CameraFrame

log = logging.getLogger(__name__)

OpenSource = Callable[[str], Source]

_RETRY_S = 3.0
"""A camera or connection that is lost is tried again this often."""
_STALL_S = 1.0
"""Without a picture for this long, a source is said to be silent."""


class Feed:
    """Gives the newest frame of the wanted source. Used by one thread; never waits for a source to open or close."""

    def __init__(self, open_source: OpenSource = open_playing) -> None:
        self.notice: Callable[[CameraFrame], None] = lambda frame: None
        """Called in the capture's thread with each frame once it can be taken."""
        self._open_source = open_source
        self._name = ""
        self._capture: Capture | None = None
        self._last_s = 0.0
        self._failed_s: float | None = None
        self._failure = ""

    @property
    def info(self) -> SourceInfo | None:
        """What is known about the source; None while it is being opened."""
        return self._capture.info if self._capture else None

    @property
    def problem(self) -> str:
        """Why there is no picture, in one line; empty while there is one or the source is being opened."""
        if self._failure:
            return self._failure
        return f"{self._name} gives no picture" if self.silent else ""

    @property
    def opening(self) -> bool:
        """True until the first frame is there or the source has failed."""
        return not self._failure and (self._capture is None or self._capture.frames == 0)

    @property
    def silent(self) -> bool:
        """True when frames came, and for a second none has."""
        began = self._capture is not None and self._capture.frames > 0
        return began and time.monotonic() - self._last_s > _STALL_S

    @property
    def dropped(self) -> int:
        """Frames of the present source that were overwritten before anybody took them."""
        return self._capture.arrivals.dropped if self._capture else 0

    @property
    def frames(self) -> int:
        """Frames that the present source has given."""
        return self._capture.frames if self._capture else 0

    def follow(self, name: str) -> bool:
        """Sees to it that frames come from the source of that name; True when it has just been changed."""
        if name != self._name:
            self._name, self._failure, self._failed_s = name, "", None
            self._start()
            return True
        if self._failed_s is not None and time.monotonic() - self._failed_s > _RETRY_S:
            self._failed_s = None
            self._start()
        return False

    def take(self, timeout_s: float) -> tuple[CameraFrame, int] | None:
        """The newest frame and the monotonic time in ns at which it came; None when none came in timeout_s seconds."""
        if self._capture is None:
            return None
        arrival = self._capture.arrivals.take(timeout_s)
        if arrival is not None:
            self._failure, self._last_s = "", time.monotonic()
        elif self._capture.arrivals.drained:
            if self._failed_s is None:
                self._lost(self._capture)
            time.sleep(timeout_s)  # nothing will come: a closed mailbox does not wait
        return arrival

    def end(self, timeout_s: float) -> bool:
        """Closes the source; False when that takes longer than timeout_s seconds."""
        return self._capture is None or self._capture.end(timeout_s)

    def _start(self) -> None:
        name, before = self._name, self._capture
        if before is not None:
            before.cancel()
        # Two captures never have one camera open at once; a different source need not wait for the old one.
        same = before is not None and before.running
        self._capture = Capture(lambda: self._open_source(name), before if same else None, self.notice)

    def _lost(self, capture: Capture) -> None:
        why = str(capture.failure) if capture.failure else f"{self._name} ended"
        if self._failure != why:
            log.warning("%s", why)
            log.debug("the failure", exc_info=capture.failure)
        self._failure = why
        # What is wrong with a file is wrong the next time too; a camera or a connection can come back.
        self._failed_s = float("inf") if Path(self._name).is_file() else time.monotonic()
