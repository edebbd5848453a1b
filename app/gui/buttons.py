"""Buttons in the window's style."""

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QColor, QIcon, QPainter, QPixmap
from PyQt6.QtWidgets import QPushButton


def make_button(text: str, tip: str, keys: str, checkable: bool = False) -> QPushButton:
    """A button whose tooltip says what it is for and which key does the same."""
    button = QPushButton(text)
    button.setToolTip(f"{tip} ({keys})")
    button.setCheckable(checkable)
    return button


def dot_icon(off: str, on: str) -> QIcon:
    """A filled circle: the sign of something that goes out. off, on: its colours by the button's state."""
    icon = QIcon()
    for colour, state in ((off, QIcon.State.Off), (on, QIcon.State.On)):
        pixmap = QPixmap(24, 24)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colour))
        painter.drawEllipse(4, 4, 16, 16)
        painter.end()
        icon.addPixmap(pixmap, QIcon.Mode.Normal, state)
    return icon
