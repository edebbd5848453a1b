"""Presets: slider values under a name, one TOML file each, which `rigid-live run --settings FILE` takes too."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from app.files import named_file, names_in, write_whole
from app.settings import resolve
from engine.errors import SinkError, UsageError

_SUFFIX = ".toml"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class PresetFolder:
    """The presets in one folder; a preset's name is its file's. Errors name the file and what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """The names there are, in alphabetical order; the files are not read."""
        return names_in(self._folder, _SUFFIX)

    def load(self, name: str) -> dict[str, float]:
        """The values of a preset; UsageError when its file cannot be read or holds anything but such values."""
        return dict(resolve({}, self.path(name)).set)

    def save(self, name: str, values: Mapping[str, float]) -> None:
        """Writes a preset, in place of one of that name.

        Raises UsageError for a name that no file can have and SinkError when the file cannot be written.
        """
        target = self.path(name)
        lines = [f"{key if _BARE.fullmatch(key) else json.dumps(key)} = {float(values[key])}" for key in sorted(values)]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(target, "\n".join(["[set]", *lines, ""]).encode())
        except OSError as error:
            raise SinkError(f"preset {target} cannot be written: {error.strerror}") from error

    def rename(self, old: str, new: str) -> None:
        """Gives a preset another name; UsageError when that is taken, SinkError when it cannot be done."""
        target = self.path(new)
        if target.exists() and not (self.path(old).exists() and target.samefile(self.path(old))):
            raise UsageError(f"there is a preset {new!r} already; choose another name")
        try:
            os.replace(self.path(old), target)
        except OSError as error:
            raise SinkError(f"preset {old!r} cannot be renamed: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """Removes a preset; SinkError when it cannot be done."""
        try:
            self.path(name).unlink()
        except OSError as error:
            raise SinkError(f"preset {name!r} cannot be deleted: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """The preset's file; UsageError for a name that no file can have."""
        return named_file(self._folder, name, _SUFFIX, "a preset's name")
