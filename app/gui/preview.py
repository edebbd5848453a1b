"""The picture: before, after, or both with a divider that can be dragged."""

from typing import Literal, cast

import numpy as np
from PyQt6.QtCore import QPointF, QRectF, QSize, Qt
from PyQt6.QtGui import (
    QColor,
    QFocusEvent,
    QFont,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QTransform,
)
from PyQt6.QtWidgets import QSizePolicy, QWidget

from app.gui.theme import DARK, Colours
from app.live import LiveFrame
from engine.frames import ImageU8

View = Literal["before", "after", "split"]
VIEWS: tuple[View, ...] = ("before", "after", "split")

_GRIP_PX = 12.0
_STEP = 0.02


class Preview(QWidget):
    """Shows the newest frame as large as it fits. Turned as in a mirror on request; what is written never is."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName(self.tr("Preview"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMouseTracking(True)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._frame: LiveFrame | None = None
        self._pixels: ImageU8 = np.zeros((1, 1, 4), np.uint8)
        self._view: View = "after"
        self._comparing = False
        self._mirrored = False
        self._divider = 0.5
        self._dragging = False
        self._message = ""
        self._reached_by_key = False
        self._colours = DARK

    @property
    def view(self) -> View:
        """What is chosen to be seen."""
        return self._view

    @property
    def shown_view(self) -> View:
        """What is seen now: before, as long as the person compares."""
        return "before" if self._comparing else self._view

    @property
    def divider(self) -> float:
        """Where the divider stands, as a share of the picture's width."""
        return self._divider

    @property
    def message(self) -> str:
        """What is said over the picture."""
        return self._message

    @property
    def frame(self) -> LiveFrame | None:
        """The newest frame."""
        return self._frame

    def sizeHint(self) -> QSize:
        """Room for a picture of 640x360."""
        return QSize(640, 360)

    def minimumSizeHint(self) -> QSize:
        """Small enough for half a screen."""
        return QSize(320, 180)

    def show_frame(self, frame: LiveFrame) -> None:
        """Takes the newest frame; it is drawn when the window next paints."""
        self._frame = frame
        self.update()

    def set_view(self, view: View) -> None:
        """Chooses what is seen."""
        self._view = view
        self.setCursor(Qt.CursorShape.ArrowCursor)
        self.update()

    def set_comparing(self, comparing: bool) -> None:
        """Shows the picture before the edit for as long as it is true."""
        if comparing != self._comparing:
            self._comparing = comparing
            self.update()

    def set_mirrored(self, mirrored: bool) -> None:
        """Turns the picture as in a mirror."""
        self._mirrored = mirrored
        self.update()

    def set_divider(self, share: float) -> None:
        """Puts the divider at that share of the picture's width."""
        self._divider = min(max(share, 0.0), 1.0)
        self.update()

    def set_message(self, text: str) -> None:
        """What is said over the picture, empty for nothing."""
        if text != self._message:
            self._message = text
            self.update()

    def set_colours(self, colours: Colours) -> None:
        """Takes the colours of a theme."""
        self._colours = colours
        self.update()

    def picture_rect(self) -> QRectF:
        """Where the picture is, in the widget's logical px; empty without a frame."""
        if self._frame is None:
            return QRectF()
        height, width = self._frame.original.shape[:2]
        scale = min(self.width() / width, self.height() / height)
        shown = QRectF(0, 0, width * scale, height * scale)
        shown.moveCenter(QRectF(self.rect()).center())
        return shown

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draws what is seen now."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(self._colours.stage))
        place = self.picture_rect()
        if self._frame is not None:
            self._draw_pictures(painter, place, self._frame)
        if self._message:
            self._draw_message(painter)
        if self.hasFocus() and self._reached_by_key:
            painter.setPen(QPen(QColor(self._colours.accent), 2))
            painter.drawRect(self.rect().adjusted(1, 1, -1, -1))

    def focusInEvent(self, event: QFocusEvent | None) -> None:
        """Shows where the focus is when it came by the keyboard."""
        reasons = (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        self._reached_by_key = event is not None and event.reason() in reasons
        super().focusInEvent(event)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Takes hold of the divider."""
        if event and event.button() is Qt.MouseButton.LeftButton and self._near_divider(event.position()):
            self._dragging = True

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Drags the divider, or shows that it can be."""
        if event is None:
            return
        if self._dragging:
            place = self.picture_rect()
            self.set_divider((event.position().x() - place.left()) / max(place.width(), 1.0))
            return
        near = self._near_divider(event.position())
        self.setCursor(Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.ArrowCursor)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Lets the divider go."""
        self._dragging = False

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        """Puts the divider back to the middle."""
        if event and self._near_divider(event.position()):
            self.set_divider(0.5)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Moves the divider with the arrow keys; Home, End and Backspace: left, right and middle."""
        if event is None:
            return
        places = {
            Qt.Key.Key_Left: self._divider - _STEP,
            Qt.Key.Key_Right: self._divider + _STEP,
            Qt.Key.Key_Home: 0.0,
            Qt.Key.Key_End: 1.0,
            Qt.Key.Key_Backspace: 0.5,
        }
        place = places.get(Qt.Key(event.key()))
        if self.shown_view == "split" and place is not None:
            self.set_divider(place)
        else:
            super().keyPressEvent(event)

    def _near_divider(self, at: QPointF) -> bool:
        place = self.picture_rect()
        if self.shown_view != "split" or place.isEmpty():
            return False
        return abs(at.x() - place.left() - self._divider * place.width()) <= _GRIP_PX

    def _draw_pictures(self, painter: QPainter, place: QRectF, frame: LiveFrame) -> None:
        view = self.shown_view
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.save()
        if self._mirrored:
            painter.setTransform(QTransform(-1, 0, 0, 1, 2 * place.center().x(), 0), True)
        painter.drawImage(place, self._joined(frame, {"before": 1.0, "after": 0.0}.get(view, self._divider)))
        painter.restore()
        if view != "after":
            self._draw_chip(painter, self.tr("Before"), place.left() + 12, place.top() + 12)
        if view == "split":
            self._draw_chip(painter, self.tr("After"), place.right() - 12, place.top() + 12, from_right=True)
            self._draw_divider(painter, place, place.left() + self._divider * place.width())

    def _joined(self, frame: LiveFrame, share: float) -> QImage:
        """This share of the width from before the edit, from the left as it is shown, and the rest edited.

        The memory is used again for every picture: new memory costs more than what is written to it.
        """
        import cv2  # not before the first frame is there: the window opens sooner

        height, width = frame.original.shape[:2]
        if self._pixels.shape[:2] != (height, width):
            self._pixels = np.zeros((height, width, 4), np.uint8)
        cut = round(share * width)
        sides, edge = (frame.original, frame.edited.image), cut
        if self._mirrored:
            sides, edge = sides[::-1], width - cut
        for image, columns in zip(sides, (slice(0, edge), slice(edge, width)), strict=True):
            if columns.start < columns.stop:
                cv2.cvtColor(image[:, columns], cv2.COLOR_BGR2BGRA, dst=self._pixels[:, columns])
        memory = cast("bytes", self._pixels.data)
        return QImage(memory, width, height, self._pixels.strides[0], QImage.Format.Format_RGB32)

    def _draw_divider(self, painter: QPainter, place: QRectF, cut: float) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(0, 0, 0, 90), 4))
        painter.drawLine(QPointF(cut, place.top()), QPointF(cut, place.bottom()))
        painter.setPen(QPen(QColor("white"), 2))
        painter.drawLine(QPointF(cut, place.top()), QPointF(cut, place.bottom()))
        middle = QPointF(cut, place.center().y())
        painter.setBrush(QColor("white"))
        painter.drawEllipse(middle, 13.0, 13.0)
        painter.setPen(QPen(QColor("#30353d"), 2))
        for side in (-1, 1):
            tip = QPointF(middle.x() + side * 8, middle.y())
            painter.drawLine(tip, QPointF(middle.x() + side * 4, middle.y() - 4))
            painter.drawLine(tip, QPointF(middle.x() + side * 4, middle.y() + 4))

    def _draw_chip(self, painter: QPainter, text: str, x: float, top: float, *, from_right: bool = False) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(_sized(self.font(), 12))
        width = painter.fontMetrics().horizontalAdvance(text) + 18.0
        chip = QRectF(x - width if from_right else x, top, width, 24)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(0, 0, 0, 150))
        painter.drawRoundedRect(chip, 6, 6)
        painter.setPen(QColor("white"))
        painter.drawText(chip, Qt.AlignmentFlag.AlignCenter, text)

    def _draw_message(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(_sized(self.font(), 15))
        room = QRectF(self.rect()).adjusted(24, 24, -24, -24)
        flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
        text = painter.boundingRect(room, flags, self._message)
        text.moveBottom(room.bottom() - 8)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(0, 0, 0, 170))
        painter.drawRoundedRect(text.adjusted(-16, -10, 16, 10), 8, 8)
        painter.setPen(QColor("white"))
        painter.drawText(text, flags, self._message)


def _sized(font: QFont, size_px: int) -> QFont:
    sized = QFont(font)
    sized.setPixelSize(size_px)
    return sized
