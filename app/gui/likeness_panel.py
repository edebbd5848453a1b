"""Improve likeness: a button with its progress, whether the result is kept, and the ones that were."""

from functools import partial

from PyQt6.QtCore import pyqtSignal
from PyQt6.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.live import LiveState
from app.people import People
from engine.errors import RigidError


class LikenessPanel(QWidget):
    """`changed` carries the settings of the run that were changed, by name; `failed` why something cannot be done."""

    changed = pyqtSignal(dict)
    failed = pyqtSignal(str)

    def __init__(self, people: People) -> None:
        super().__init__()
        self._people = people
        self._running, self._found = False, False
        self.improve = QPushButton()
        self.improve.setToolTip(
            self.tr("Looks for what the networks miss of this face, in the background, for some seconds")
        )
        self.improve.clicked.connect(self._on_improve)
        self.more = QToolButton()
        self.more.setText("⋯")
        self.more.setAccessibleName(self.tr("Kept likenesses"))
        self.more.setToolTip(self.tr("Use or delete a likeness that was kept on this computer"))
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.more.setMenu(self.menu)
        self.bar = QProgressBar()
        self.bar.setAccessibleName(self.tr("Progress of the likeness"))
        self.bar.setRange(0, 100)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(4)
        self.keep = QCheckBox(self.tr("Keep on this computer as"))
        self.keep.setToolTip(
            self.tr("Numbers that describe this face are stored, no picture; nothing is sent anywhere")
        )
        self.name = QLineEdit()
        self.name.setPlaceholderText(self.tr("Name"))
        self.name.setAccessibleName(self.tr("Name of the person"))
        self.keep.toggled.connect(self._on_keep)
        self._lay_out()
        self.show_state(LiveState())

    def _lay_out(self) -> None:
        first, second, rows = QHBoxLayout(), QHBoxLayout(), QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        first.addWidget(self.improve, 1)
        first.addWidget(self.more)
        second.addWidget(self.keep)
        second.addWidget(self.name, 1)
        rows.addLayout(first)
        rows.addWidget(self.bar)
        rows.addLayout(second)

    def show_state(self, state: LiveState) -> None:
        """Says how far the search is, and what the button does now."""
        self._running, self._found = state.likeness is not None, state.likeness_found
        self.improve.setEnabled(bool(state.runtime))
        if self._running:
            self.improve.setText(self.tr("Cancel"))
        else:
            self.improve.setText(self.tr("Back to before") if self._found else self.tr("Improve likeness"))
        self.bar.setVisible(self._running)
        self.bar.setValue(round(100 * (state.likeness or 0.0)))
        self.keep.setEnabled(not self._running)
        self.name.setEnabled(self.keep.isChecked() and not self._running)

    def _on_keep(self, wanted: bool) -> None:
        self.name.setEnabled(wanted)
        if wanted:
            self.name.setFocus()

    def _on_improve(self) -> None:
        if self._running or self._found:
            self._forget()
            return
        name = self.name.text().strip() if self.keep.isChecked() else ""
        try:
            if self.keep.isChecked():
                self._people.path(name)
        except RigidError as error:
            self.failed.emit(str(error))
            self.name.setFocus()
            return
        if not name or name not in self._people.names() or self._agreed(self._replacing(name)):
            self.changed.emit({"likeness": True, "person": name})

    def _replacing(self, name: str) -> str:
        return self.tr("Replace the likeness of “%1”?").replace("%1", name)

    def _forget(self) -> None:
        self.changed.emit({"likeness": False, "person": ""})

    def _fill_menu(self) -> None:
        self.menu.clear()
        names = self._people.names()
        for name in names:
            self.menu.addAction(name, partial(self.changed.emit, {"likeness": False, "person": name}))
        self.menu.addSeparator()
        for name in names:
            self.menu.addAction(self.tr("Delete %1…").replace("%1", name), partial(self._delete, name))
        if not names:
            empty = self.menu.addAction(self.tr("None is kept"))
            assert empty is not None
            empty.setEnabled(False)

    def _delete(self, name: str) -> None:
        if not self._agreed(self.tr("Delete the likeness of “%1”? This cannot be undone.").replace("%1", name)):
            return
        try:
            self._people.delete(name)
        except RigidError as error:
            self.failed.emit(str(error))

    def _agreed(self, question: str) -> bool:
        return QMessageBox.question(self, self.tr("Likeness"), question) == QMessageBox.StandardButton.Yes
