"""Where the edited picture goes: the virtual camera and the recording, each with its switch."""

from datetime import datetime
from pathlib import Path

import platformdirs
from PyQt6.QtCore import pyqtSignal
from PyQt6.QtWidgets import QHBoxLayout, QWidget

from app.gui.buttons import dot_icon, make_button
from app.gui.theme import Colours
from app.live import LiveState
from app.sinks import NULL, VIRTUAL


class Outputs(QWidget):
    """`changed` carries the sinks of the run; `told` a text for the person and whether something went wrong."""

    changed = pyqtSignal(tuple)
    told = pyqtSignal(str, bool)

    def __init__(self, sinks: tuple[str, ...]) -> None:
        """sinks: what the run starts with."""
        super().__init__()
        self._files = tuple(name for name in sinks if name not in (NULL, VIRTUAL))
        self._recorded = self._camera_name = ""
        self.camera = make_button(
            self.tr("Virtual camera"), self.tr("A camera for calls, that shows the edited picture"), "K", True
        )
        self.camera.setObjectName("camera")
        self.camera.setChecked(VIRTUAL in sinks)
        self.record = make_button(self.tr("Record"), self.tr("Records the edited picture"), "R", True)
        self.record.setObjectName("record")
        self.record.setChecked(bool(self._files))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.camera)
        row.addWidget(self.record)
        self.camera.toggled.connect(self._push)
        self.record.toggled.connect(self._record)

    def set_colours(self, colours: Colours) -> None:
        """Takes the theme's colours."""
        self.record.setIcon(dot_icon(colours.record, colours.on_record))

    def show_state(self, state: LiveState) -> None:
        """Says what came of what was switched."""
        if state.recording_problem and self.record.isChecked():
            # The problem ends with the recording: only a note stays long enough to be read.
            self.told.emit(state.recording_problem, True)
            self.record.setChecked(False)
        if state.recorded != self._recorded:
            self._recorded = state.recorded
            self.told.emit(self.tr("Recorded: %1").replace("%1", state.recorded), False)
        if state.camera != self._camera_name:
            self._camera_name = state.camera
            if state.camera:
                text = self.tr("The virtual camera is on. In the call, pick the camera %1.")
                self.told.emit(text.replace("%1", state.camera), False)

    def _record(self, on: bool) -> None:
        self._files = ()
        if on:
            path = _new_file(platformdirs.user_videos_dir(), "recording", ".mp4")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self.told.emit(f"{path.parent}: {error.strerror}", True)
                self.record.setChecked(False)
                return
            self._files = (str(path),)
        self._push()

    def _push(self) -> None:
        camera = (VIRTUAL,) if self.camera.isChecked() else ()
        self.changed.emit((*camera, *self._files) or (NULL,))


def new_snapshot() -> Path:
    """A file for a picture that is to be saved now."""
    return _new_file(platformdirs.user_pictures_dir(), "snapshot", ".png")


def _new_file(folder: str, kind: str, suffix: str) -> Path:
    now = datetime.now().strftime("%Y-%m-%d %H.%M.%S.%f")[:-3]
    return Path(folder) / "RIGID Live" / f"{kind} {now}{suffix}"
