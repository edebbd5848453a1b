"""The presets: pick one, save, rename, delete, and give it a key from 1 to 9."""

from collections.abc import Callable, Mapping
from functools import partial

from PyQt6.QtCore import pyqtSignal
from PyQt6.QtWidgets import QHBoxLayout, QInputDialog, QMenu, QMessageBox, QPushButton, QToolButton, QWidget

from app.gui.choice import Choice
from app.presets import PresetFolder
from engine.errors import RigidError

KEYS = range(1, 10)


class PresetBar(QWidget):
    """A list of presets with its buttons. `picked` carries the values, `failed` what went wrong."""

    picked = pyqtSignal(str, dict)
    failed = pyqtSignal(str)

    def __init__(self, folder: PresetFolder, keys: dict[int, str], values: Callable[[], Mapping[str, float]]) -> None:
        """keys: preset's name by key; changed in place. values: gives what `save` saves."""
        super().__init__()
        self.keys = keys
        self._folder = folder
        self._values = values
        tip = self.tr("Put all sliders where a preset has them. Keys: 1 to 9.")
        self.choice = Choice(self.tr("Preset"), tip)
        self.choice.activated.connect(lambda: self.pick(self.current))
        self.save = QPushButton(self.tr("Save…"))
        self.save.setToolTip(self.tr("Save the sliders as a preset"))
        self.save.clicked.connect(self._save)
        self.more = QToolButton()
        self.more.setText("⋯")
        self.more.setAccessibleName(self.tr("More for this preset"))
        self.more.setToolTip(self.tr("Rename, delete, or give a key"))
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.more.setMenu(self.menu)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice, 1)
        layout.addWidget(self.save)
        layout.addWidget(self.more)
        self.refresh()

    @property
    def current(self) -> str:
        """The chosen preset's name, empty when none is."""
        return self.choice.value

    def refresh(self, chosen: str = "") -> None:
        """Lists what the folder holds now."""
        names = self._folder.names()
        for key in [key for key, name in self.keys.items() if name not in names]:
            del self.keys[key]
        key_of = {name: key for key, name in self.keys.items()}
        words = {"": self.tr("Presets") if names else self.tr("No presets yet")}
        words |= {name: f"{name}  ({key_of[name]})" if name in key_of else name for name in names}
        self.choice.fill(words, chosen if chosen in words else "")

    def pick(self, name: str) -> None:
        """Loads a preset and tells its values."""
        if not name:
            return
        try:
            values = self._folder.load(name)
        except RigidError as error:
            self.failed.emit(str(error))
            return
        self.choice.choose(name)
        self.picked.emit(name, values)

    def pick_key(self, key: int) -> None:
        """Loads the preset that has that key; nothing happens when none has."""
        self.pick(self.keys.get(key, ""))

    def give_key(self, name: str, key: int | None) -> None:
        """Gives the preset that key alone, or none."""
        for taken in [taken for taken, owner in self.keys.items() if owner == name]:
            del self.keys[taken]
        if key is not None:
            self.keys[key] = name
        self.refresh(name)

    def _save(self) -> None:
        name, agreed = QInputDialog.getText(self, self.tr("Save preset"), self.tr("Name:"), text=self.current)
        name = name.strip()
        if not agreed:
            return
        if name in self._folder.names() and not self._agreed(self.tr("Replace the preset “%1”?").replace("%1", name)):
            return
        if self._done(lambda: self._folder.save(name, self._values())):
            free = [key for key in KEYS if key not in self.keys]
            if free and name not in self.keys.values():
                self.keys[free[0]] = name
            self.refresh(name)

    def _rename(self) -> None:
        old = self.current
        new, agreed = QInputDialog.getText(self, self.tr("Rename preset"), self.tr("New name:"), text=old)
        new = new.strip()
        if agreed and new != old and self._done(lambda: self._folder.rename(old, new)):
            for key, name in self.keys.items():
                if name == old:
                    self.keys[key] = new
            self.refresh(new)

    def _delete(self) -> None:
        name = self.current
        question = self.tr("Delete the preset “%1”? This cannot be undone.").replace("%1", name)
        if self._agreed(question) and self._done(lambda: self._folder.delete(name)):
            self.refresh()

    def _fill_menu(self) -> None:
        self.menu.clear()
        name = self.current
        for text, do in ((self.tr("Rename…"), self._rename), (self.tr("Delete…"), self._delete)):
            action = self.menu.addAction(text, do)
            assert action is not None
            action.setEnabled(bool(name))
        keys = self.menu.addMenu(self.tr("Key"))
        assert keys is not None
        keys.setEnabled(bool(name))
        for key in (*KEYS, None):
            text = self.tr("None") if key is None else str(key)
            if key is not None and key in self.keys:
                text = f"{key}  {self.keys[key]}"
            keys.addAction(text, partial(self.give_key, name, key))

    def _agreed(self, question: str) -> bool:
        return QMessageBox.question(self, self.tr("Presets"), question) == QMessageBox.StandardButton.Yes

    def _done(self, do: Callable[[], None]) -> bool:
        try:
            do()
        except RigidError as error:
            self.failed.emit(str(error))
            return False
        return True
