"""Starts the window and stays until it is closed."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from PyQt6.QtCore import QTimer
from PyQt6.QtWidgets import QApplication

from app.gui.bridge import Bridge
from app.gui.memory import Memory
from app.gui.window import Window
from app.report import versions, write_report
from app.settings import resolve

log = logging.getLogger(__name__)


def run_window(flags: Mapping[str, Any], settings_file: Path | None, stopped: Callable[[], bool]) -> bool:
    """Shows the window until it is closed; False when something it started still hangs then.

    flags, settings_file: as `app.settings.resolve` takes them; they go before what the window remembers. stopped:
    tells that the program was asked to end. Raises UsageError for settings that make no sense, before any window.
    """
    app = QApplication(sys.argv[:1])
    app.setApplicationName("RIGID Live")
    app.setDesktopFileName("rigid-live")
    memory = Memory()
    settings = resolve(flags, settings_file, remembered=memory.run_values())
    bridge = Bridge(settings, settings.controls)
    window = Window(bridge, memory, stopped)
    window.show()
    QTimer.singleShot(0, bridge.start)
    with _surviving(window):
        try:
            app.exec()
        finally:
            ended_well = bridge.end()
    if settings.report:
        write_report(Path(settings.report), {"settings": settings.as_json(), "versions": versions(), **bridge.report})
    return ended_well


@contextmanager
def _surviving(window: Window) -> Iterator[None]:
    """Qt ends the program when an event handler raises; here it is told, and the window stays."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, Exception):
            window.close()
            return
        log.error("unexpected %s in the window: %s", kind.__name__, error)
        log.debug("the failure", exc_info=(kind, error, trace))
        window.banner.tell(f"{kind.__name__}: {error}", wrong=True)

    before, sys.excepthook = sys.excepthook, tell
    try:
        yield
    finally:
        sys.excepthook = before
