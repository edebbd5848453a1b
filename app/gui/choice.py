"""A drop-down list in the window's style."""

from collections.abc import Mapping

from PyQt6.QtCore import QPointF
from PyQt6.QtGui import QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from PyQt6.QtWidgets import QComboBox, QWidget


class Choice(QComboBox):
    """A list of texts, each standing for a value. It may be narrower than its longest text."""

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        """name: for screen readers. tip: what it is for."""
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)

    @property
    def value(self) -> str:
        """What the chosen text stands for; empty when nothing is chosen."""
        return str(self.currentData() or "")

    def fill(self, words: Mapping[str, str], chosen: str) -> None:
        """Offers these texts, by value, and chooses one; tells nobody."""
        self.clear()
        for value, text in words.items():
            self.addItem(text, value)
        self.choose(chosen)

    def choose(self, value: str) -> None:
        """Shows that value; tells nobody."""
        self.setCurrentIndex(self.findData(value))

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draws the field and, since style sheets can only place pictures there, the arrow."""
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.PlaceholderText), 1.6))
        x, y = self.width() - 16.0, self.height() / 2 - 1.5
        painter.drawPolyline(QPolygonF([QPointF(x - 4, y), QPointF(x, y + 4), QPointF(x + 4, y)]))
