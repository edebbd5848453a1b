"""One slider for each attribute of the bundle: from -1 to 1, with a detent at 0."""

from collections.abc import Mapping

from PyQt6.QtCore import QCoreApplication, QPointF, QRectF, QSize, Qt, pyqtSignal
from PyQt6.QtGui import QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QWheelEvent
from PyQt6.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QSlider, QVBoxLayout, QWidget

STEPS = 100
"""Slider steps from 0 to 1."""
_DETENT = 5
"""Within so many steps of 0 a drag snaps to 0."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Expression": ("smile", "mouth_open", "eyes_open", "surprised", "angry", "sad"),
    "Person": ("age", "gender", "chubby"),
    "Look": ("eyeglasses", "beard", "hair_colour", "grey_hair", "makeup"),
    "Pose": ("yaw", "pitch", "gaze"),
    "Light": ("light",),
    "More": (),
}
"""Attributes that belong together, in the order they are shown; unknown ones come last."""


class BipolarSlider(QSlider):
    """A horizontal slider whose bar starts in the middle. Double-click, Backspace, Delete or 0 puts it back there."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(-STEPS, STEPS)
        self.setSingleStep(2)
        self.setPageStep(10)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def sizeHint(self) -> QSize:
        """Long enough to hit every second step."""
        return QSize(150, 26)

    def minimumSizeHint(self) -> QSize:
        """Still usable in a narrow panel."""
        return QSize(80, 26)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Jumps to where the mouse is and follows it."""
        if event and event.button() is Qt.MouseButton.LeftButton:
            self.setSliderDown(True)
            self.setValue(self._value_at(event.position().x()))

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Follows the mouse; near the middle it snaps to 0."""
        if event and self.isSliderDown():
            self.setValue(self._value_at(event.position().x()))

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Lets go."""
        self.setSliderDown(False)

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        """Back to 0."""
        self.setSliderDown(False)
        self.setValue(0)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Arrow keys by 0.02, page keys by 0.1."""
        if event and event.key() in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete, Qt.Key.Key_0):
            self.setValue(0)
        else:
            super().keyPressEvent(event)

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Scrolls the panel, unless the slider was chosen: passing over it changes nothing."""
        if self.hasFocus():
            super().wheelEvent(event)
        elif event:
            event.ignore()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draws groove, centre mark, bar and handle."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colours, middle = self.palette(), self.height() / 2
        group = QPalette.ColorGroup.Active if self.isEnabled() else QPalette.ColorGroup.Disabled
        line = colours.color(group, QPalette.ColorRole.Mid)
        bar = colours.color(QPalette.ColorRole.Highlight) if self.isEnabled() else line
        centre, handle = self._x_of(0), self._x_of(self.value())
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(line)
        painter.drawRoundedRect(QRectF(self._x_of(-STEPS), middle - 2, self._span(), 4), 2, 2)
        painter.drawRect(QRectF(centre - 1, middle - 6, 2, 12))
        painter.setBrush(bar)
        painter.drawRoundedRect(QRectF(min(centre, handle), middle - 2, abs(handle - centre), 4), 2, 2)
        painter.setPen(QPen(bar if self.value() or self.hasFocus() else line, 3 if self.hasFocus() else 2))
        painter.setBrush(colours.color(QPalette.ColorRole.BrightText))
        painter.drawEllipse(QPointF(handle, middle), 7.0, 7.0)

    def _span(self) -> float:
        return self.width() - 20.0

    def _x_of(self, value: int) -> float:
        return 10.0 + (value + STEPS) / (2 * STEPS) * self._span()

    def _value_at(self, x: float) -> int:
        value = round((x - 10.0) / self._span() * 2 * STEPS) - STEPS
        return 0 if abs(value) < _DETENT else min(max(value, -STEPS), STEPS)


class _Name(QLabel):
    """An attribute's name; a double-click puts its slider back to 0."""

    reset = pyqtSignal()

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        self.reset.emit()


class _Number(QDoubleSpinBox):
    """The value as a number; the wheel passes over it unless it was chosen."""

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        elif event:
            event.ignore()


class AttributeRow:
    """Name, slider and number of one attribute, which say the same at all times."""

    def __init__(self, label: str, panel: "SliderPanel") -> None:
        self.name, self.slider, self.number = _Name(label), BipolarSlider(), _Number()
        self.number.setRange(-1.0, 1.0)
        self.number.setSingleStep(0.05)
        self.number.setDecimals(2)
        self.number.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.number.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.number.setFixedWidth(58)
        self.number.setKeyboardTracking(False)
        self.slider.setAccessibleName(label)
        self.number.setAccessibleName(panel.tr("%1, number").replace("%1", label))
        tip = panel.tr("From -1 to 1. Double-click, Backspace or 0: back to 0.")
        self.slider.setToolTip(tip)
        self.name.setToolTip(tip)
        self.slider.valueChanged.connect(self._slid)
        self.number.valueChanged.connect(self._typed)
        self.name.reset.connect(lambda: self.slider.setValue(0))
        self._panel = panel

    @property
    def value(self) -> float:
        """The value, in [-1, 1]; a typed one is not rounded to the slider's steps."""
        return round(self.number.value(), 2)

    def set_value(self, value: float) -> None:
        """Moves slider and number; tells nobody."""
        for widget in (self.slider, self.number):
            widget.blockSignals(True)
        self.slider.setValue(round(value * STEPS))
        self.number.setValue(value)
        for widget in (self.slider, self.number):
            widget.blockSignals(False)
        self._mark()

    def _slid(self, steps: int) -> None:
        self.set_value(steps / STEPS)
        self._panel.changed.emit()

    def _typed(self, value: float) -> None:
        self.set_value(value)
        self._panel.changed.emit()

    def _mark(self) -> None:
        touched = self.value != 0
        if self.name.property("touched") != touched:
            self.name.setProperty("touched", touched)
            style = self.name.style()
            assert style is not None
            style.polish(self.name)


class SliderPanel(QWidget):
    """All sliders, in groups. `changed` is emitted after every change that a person made."""

    changed = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("sliders")
        self.rows: dict[str, AttributeRow] = {}
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(14, 4, 14, 8)
        self._layout.addStretch(1)
        self._content: QWidget | None = None

    @property
    def values(self) -> dict[str, float]:
        """The values that are not 0, by attribute."""
        return {name: row.value for name, row in self.rows.items() if row.value}

    def set_values(self, values: Mapping[str, float]) -> None:
        """Puts every slider where values says, the others to 0, and tells once."""
        for name, row in self.rows.items():
            row.set_value(values.get(name, 0.0))
        self.changed.emit()

    def build(self, labels: Mapping[str, str], values: Mapping[str, float]) -> None:
        """Makes the sliders anew for the attributes of a bundle. labels: by attribute. values: where they start."""
        if self._content is not None:
            self._layout.removeWidget(self._content)
            self._content.deleteLater()
        self.rows = {}
        self._content = QWidget()
        grid = QGridLayout(self._content)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(1, 1)
        for group, names in grouped(labels).items():
            title = QLabel(QCoreApplication.translate("SliderPanel", group).upper())
            title.setObjectName("group")
            title.setIndent(0)
            grid.addWidget(title, grid.rowCount(), 0, 1, 3)
            for name in names:
                row = AttributeRow(QCoreApplication.translate("attributes", labels[name]), self)
                row.set_value(values.get(name, 0.0))
                self.rows[name] = row
                line = grid.rowCount()
                for column, widget in enumerate((row.name, row.slider, row.number)):
                    grid.addWidget(widget, line, column)
        self._layout.insertWidget(0, self._content)


def grouped(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """The attributes by group, in the order they are shown; groups without any are left out."""
    known = {name for names in GROUPS.values() for name in names}
    found = {group: [name for name in names if name in labels] for group, names in GROUPS.items()}
    found["More"] = [name for name in labels if name not in known]
    return {group: names for group, names in found.items() if names}
