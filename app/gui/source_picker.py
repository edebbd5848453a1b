"""Where the picture comes from: the demo clip, a camera of those that are connected, a file or a URL."""

from pathlib import Path

from PyQt6.QtCore import QTimer, pyqtSignal
from PyQt6.QtWidgets import QFileDialog, QInputDialog, QLineEdit

from app.cameras import Camera, list_cameras
from app.gui.choice import Choice

_LOOK_EVERY_MS = 2000
_FILE, _URL = "open file", "open url"


class SourcePicker(Choice):
    """A list that knows which cameras come and go. `picked` carries what `--source` takes."""

    picked = pyqtSignal(str)

    def __init__(self, source: str) -> None:
        super().__init__("", "")
        self.setAccessibleName(self.tr("Source"))
        self.setToolTip(self.tr("Where the picture comes from"))
        self._source = source
        self._cameras: tuple[Camera, ...] = ()
        self.activated.connect(self._activated)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.look)
        self._timer.start(_LOOK_EVERY_MS)
        self._cameras = list_cameras()
        self._fill()

    @property
    def source(self) -> str:
        """What is chosen, as `--source` takes it."""
        return self._source

    def look(self) -> None:
        """Takes up cameras that came and drops those that went; not under the person's hands."""
        cameras = list_cameras()
        view = self.view()
        if cameras != self._cameras and not (view and view.isVisible()):
            self._cameras = cameras
            self._fill()

    def pick(self, source: str) -> None:
        """Chooses a source and tells it."""
        self._source = source
        self._fill()
        self.picked.emit(source)

    def open_file(self) -> None:
        """Asks for a file."""
        kinds = self.tr("Videos (*.mp4 *.mov *.mkv *.m4v *.avi *.webm *.ts *.gif);;All files (*)")
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Open a video"), "", kinds)
        self._picked(path)

    def open_url(self) -> None:
        """Asks for a URL."""
        label = self.tr("Address of a stream (rtsp, rtmp, http, srt …):")
        url, agreed = QInputDialog.getText(self, self.tr("Open a stream"), label, QLineEdit.EchoMode.Normal, "rtsp://")
        self._picked(url.strip() if agreed else "")

    def _picked(self, source: str) -> None:
        if source:
            self.pick(source)
        else:
            self._fill()

    def _activated(self, row: int) -> None:
        source = str(self.itemData(row))
        if source == _FILE:
            self.open_file()
        elif source == _URL:
            self.open_url()
        else:
            self.pick(source)

    def _fill(self) -> None:
        self.clear()
        self.addItem(self.tr("Demo clip"), "demo")
        for camera in self._cameras:
            self.addItem(camera.name, str(camera.index))
        if self.findData(self._source) < 0:
            self.addItem(self._word(self._source), self._source)
        self.insertSeparator(self.count())
        self.addItem(self.tr("Open file…"), _FILE)
        self.addItem(self.tr("Open stream…"), _URL)
        self.setCurrentIndex(self.findData(self._source))

    def _word(self, source: str) -> str:
        if source.isdecimal():
            return self.tr("Camera %1 (not connected)").replace("%1", source)
        return source if "://" in source else Path(source).name
