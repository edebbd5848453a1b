"""What the window remembers from one start to the next."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs
from PyQt6.QtCore import QByteArray, QSettings

from app.gui.preview import VIEWS, View
from app.gui.theme import THEMES, ThemeName
from app.settings import RunSettings
from engine.errors import RigidError

log = logging.getLogger(__name__)

REMEMBERED = ("source", "bundle", "runtime", "lost_face", "max_faces")
"""The settings of a run that are remembered beside the slider values; the others come from the command line."""

_NOTE = "1"
"""Which note on responsible use is agreed to; one that says something else takes another number."""


@dataclass
class Looks:
    """How the window looks. divider: as a share of the picture's width. preset_keys: preset's name by key 1 to 9."""

    view: View = "after"
    divider: float = 0.5
    mirror: bool = False
    theme: ThemeName = "system"
    edits_on: bool = True
    preset_keys: dict[int, str] = field(default_factory=dict)


class Memory:
    """An INI file in the user's configuration folder. What it holds that makes no sense is left out."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(platformdirs.user_config_dir("rigid-live", appauthor=False))
        self._store = QSettings(str(self.folder / "window.ini"), QSettings.Format.IniFormat)

    @property
    def agreed(self) -> bool:
        """True when the person has agreed to the note on responsible use, as it is now."""
        return bool(self._store.value("consent/note") == _NOTE)

    def keep_agreement(self) -> None:
        """Remembers that the person agreed."""
        self._store.setValue("consent/note", _NOTE)
        self._store.sync()

    def run_values(self) -> dict[str, Any]:
        """The remembered settings of a run, by their names in `RunSettings`; empty on the first start."""
        values: dict[str, Any] = {}
        for name in REMEMBERED:
            text = self._store.value(f"run/{name}")
            if isinstance(text, str) and text:
                values[name] = int(text) if name == "max_faces" and text.isdecimal() else text
        values["set"] = self._slider_values()
        try:
            RunSettings(**values)
        except (RigidError, TypeError) as error:
            log.warning("what the window remembered is left out: %s", error)
            return {}
        return values

    def looks(self) -> Looks:
        """How the window looked."""
        looks = Looks()
        view, theme, divider = (self._store.value(f"window/{name}") for name in ("view", "theme", "divider"))
        looks.view = next((known for known in VIEWS if known == view), looks.view)
        looks.theme = next((known for known in THEMES if known == theme), looks.theme)
        looks.divider = min(max(_number(divider, looks.divider), 0.0), 1.0)
        looks.mirror = self._store.value("window/mirror") == "true"
        looks.edits_on = self._store.value("window/edits_on") != "false"
        for key in range(1, 10):
            name = self._store.value(f"presets/{key}")
            if isinstance(name, str) and name:
                looks.preset_keys[key] = name
        return looks

    def geometry(self) -> QByteArray | None:
        """Where the window was."""
        stored = self._store.value("window/geometry")
        return stored if isinstance(stored, QByteArray) else None

    def keep(self, settings: RunSettings, values: Mapping[str, float], looks: Looks, geometry: QByteArray) -> None:
        """Remembers all of it."""
        for name in REMEMBERED:
            self._store.setValue(f"run/{name}", str(getattr(settings, name)))
        for group in ("sliders", "presets"):
            self._store.remove(group)
        for name, value in values.items():
            self._store.setValue(f"sliders/{name}", str(value))
        for key, name in looks.preset_keys.items():
            self._store.setValue(f"presets/{key}", name)
        for each in fields(looks):
            if each.name != "preset_keys":
                value = getattr(looks, each.name)
                self._store.setValue(f"window/{each.name}", str(value).lower() if isinstance(value, bool) else value)
        self._store.setValue("window/geometry", geometry)
        self._store.sync()

    def _slider_values(self) -> dict[str, float]:
        self._store.beginGroup("sliders")
        values = {name: _number(self._store.value(name), 0.0) for name in self._store.childKeys()}
        self._store.endGroup()
        return values


def _number(stored: object, default: float) -> float:
    try:
        return float(str(stored))
    except ValueError:
        return default
