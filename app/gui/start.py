"""Starts the window and stays until it is closed."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from PyQt6 import sip
from PyQt6.QtCore import QTimer
from PyQt6.QtWidgets import QApplication

from app.gui import theme
from app.gui.bridge import Bridge
from app.gui.consent import ConsentDialog
from app.gui.memory import Memory
from app.gui.window import Window
from app.report import versions, write_report
from app.settings import resolve

log = logging.getLogger(__name__)

_PULSE_MS = 200
"""How often Python gets to see signals while Qt waits."""


def run_window(flags: Mapping[str, Any], settings_file: Path | None, stopped: Callable[[], bool]) -> bool:
    """Asks for consent on the first start and shows the window until it is closed; False when something then hangs.

    flags, settings_file: as `app.settings.resolve` takes them; they go before what the window remembers. stopped:
    tells that the program was asked to end. Raises UsageError for settings that make no sense, before any window.
    """
    app = QApplication(sys.argv[:1])
    app.setApplicationName("RIGID Live")
    app.setDesktopFileName("rigid-live")
    memory = Memory()
    settings = resolve(flags, settings_file, remembered=memory.run_values())
    if not _agreed(memory, stopped):
        return True
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


def _agreed(memory: Memory, stopped: Callable[[], bool]) -> bool:
    """True when the person agrees to the note on responsible use, or has before; nothing runs until then."""
    if memory.agreed:
        return True
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    theme.apply(app, theme.colours_of(memory.looks().theme))
    dialog = ConsentDialog()
    pulse = QTimer(dialog)
    pulse.timeout.connect(lambda: dialog.reject() if stopped() else None)
    pulse.start(_PULSE_MS)
    agreed = dialog.exec() == ConsentDialog.DialogCode.Accepted
    sip.delete(dialog)  # here: Python would take it away whenever it tidies up, in whatever thread
    if agreed:
        memory.keep_agreement()
    return agreed


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
