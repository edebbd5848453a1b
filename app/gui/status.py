"""What the run does, in figures: the status bar and its latency plot."""

from collections.abc import Sequence

import numpy as np
from PyQt6.QtCore import QPointF, QSize
from PyQt6.QtGui import QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from PyQt6.QtWidgets import QLabel, QStatusBar, QWidget

from app.live import LiveFrame, LiveState
from engine.frames import Phase

_FLOOR_MS = 50.0
"""The plot's scale ends here at least, so that a steady latency does not look restless."""
_MARGIN_PX = 12


class LatencyPlot(QWidget):
    """The latency of the last frames as a line; the scale goes from 0 to the worst of them."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName(self.tr("Latency plot"))
        self.setToolTip(self.tr("Latency of the last 120 frames, from their arrival until they are shown"))
        self.setFixedSize(QSize(120 + _MARGIN_PX, 24))
        self.values_ms: Sequence[float] = ()

    def show_values(self, values_ms: Sequence[float]) -> None:
        """Takes the latencies in ms, oldest first."""
        self.values_ms = values_ms
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draws the line."""
        painter, right = QPainter(self), self.width() - _MARGIN_PX
        painter.setPen(self.palette().color(QPalette.ColorRole.Mid))
        painter.drawLine(0, self.height() - 1, right, self.height() - 1)
        if len(self.values_ms) < 2:
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Highlight), 1.5))
        top = max(*self.values_ms, _FLOOR_MS)
        step = right / (len(self.values_ms) - 1)
        line = [QPointF(i * step, (1 - v / top) * (self.height() - 4) + 2) for i, v in enumerate(self.values_ms)]
        painter.drawPolyline(QPolygonF(line))


class Status(QStatusBar):
    """Phase, frame rate, latency, dropped frames and runtime."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizeGripEnabled(False)
        self.phase, self.fps, self.latency, self.dropped, self.runtime = (QLabel() for _ in range(5))
        self.plot = LatencyPlot()
        self._phases = {
            Phase.SEARCHING: self.tr("Looking for a face"),
            Phase.ANCHORING: self.tr("Face found"),
            Phase.TRACKING: self.tr("Following the face"),
            Phase.HOLDING: self.tr("Face lost"),
        }
        names = (
            (self.phase, self.tr("Phase"), self._phases.values()),
            (self.fps, self.tr("Frames per second"), [self._in_words(self.tr("%1 frames/s"), "88.8")]),
            (self.latency, self.tr("Latency"), [self._in_words(self.tr("%1 ms (p95)"), "8888")]),
            (self.dropped, self.tr("Dropped frames"), [self._in_words(self.tr("%1 dropped"), "8888")]),
        )
        for label, name, texts in names:
            self.addWidget(label)
            label.setMinimumWidth(max(_width_px(label, text) for text in texts) + _MARGIN_PX)
            label.clear()
            label.setAccessibleName(name)
            label.setToolTip(name)
        self.runtime.setAccessibleName(self.tr("Runtime"))
        self.addPermanentWidget(self.runtime)
        self.addPermanentWidget(self.plot)

    def show_frame(self, frame: LiveFrame) -> None:
        """Takes the figures that came with a frame."""
        p95_ms = float(np.percentile(frame.latencies_ms, 95)) if frame.latencies_ms else 0.0
        self.phase.setText(self._phases[frame.edited.phase])
        self.fps.setText(self._in_words(self.tr("%1 frames/s"), f"{frame.fps:.1f}"))
        self.latency.setText(self._in_words(self.tr("%1 ms (p95)"), f"{p95_ms:.0f}"))
        self.dropped.setText(self._in_words(self.tr("%1 dropped"), str(frame.dropped)))
        self.plot.show_values(frame.latencies_ms)

    def show_state(self, state: LiveState) -> None:
        """Says what the networks run on."""
        loading = self.tr("Loading the networks…")
        self.runtime.setText(loading if state.loading else state.runtime or self.tr("No runtime"))

    @staticmethod
    def _in_words(text: str, figure: str) -> str:
        return text.replace("%1", figure)


def _width_px(label: QLabel, text: str) -> int:
    """How wide a label must be for a text, by its own font and padding."""
    label.setText(text)
    return label.sizeHint().width()
