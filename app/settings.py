"""What a run is asked to do: defaults, overlaid by a TOML file, overlaid by flags."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.frames import Controls

CHOICES: Mapping[str, tuple[str, ...]] = {
    "runtime": ("auto", "openvino", "onnxruntime", "tensorrt", "torch-tensorrt", "eager"),
    "device": ("cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16", "fp16", "int8"),
    "lost_face": ("hold", "freeze", "blank", "passthrough"),
    "variant": ("full", "whole_rate", "paper", "unsteadied", "no_tcc", "no_nm", "no_lfd", "per_frame"),
}


@dataclass(frozen=True)
class RunSettings:
    """Everything `rigid-live run` can be told; a TOML settings file has these keys.

    source: `demo`, a camera index, a file or a URL. sink: `null`, `virtual` or file names. set: attribute values in
    [-1, 1]. frames: stop after so many, 0 for all. pace: play a file at its own rate, dropping late frames.
    compare: write the frame before the edit to the left of the edited one. keep_partial: keep what was written
    when the source turns out to be truncated. progress: None shows the bar on a terminal only. likeness: search what
    the encoder lacks of the person. person: the name under which it is kept on this computer; without a search, whose
    kept likeness is used; empty for neither.
    """

    source: str = "demo"
    sink: tuple[str, ...] = ("null",)
    set: Mapping[str, float] = field(default_factory=dict)
    bundle: str = "default"
    runtime: str = "auto"
    device: str = "cpu"
    precision: str = "auto"
    lost_face: str = "hold"
    max_faces: int = 1
    frames: int = 0
    variant: str = "full"
    pace: bool = False
    compare: bool = False
    keep_partial: bool = False
    progress: bool | None = None
    report: str | None = None
    likeness: bool = False
    person: str = ""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.max_faces < 1:
            raise UsageError(f"max_faces is {self.max_faces}; expected 1 or more")
        if self.frames < 0:
            raise UsageError(f"frames is {self.frames}; expected 1 or more, or 0 for all")
        if not self.sink:
            raise UsageError("no sink was named; expected at least one, for example `--sink null`")
        _ = self.controls  # refuses nan and values outside [-1, 1]

    @property
    def controls(self) -> Controls:
        """The attribute values as the engine takes them; ValueOutOfRange when one is outside [-1, 1] or nan."""
        return Controls(self.set)

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON types, for the report."""
        return {f.name: _jsonable(getattr(self, f.name)) for f in fields(self)}


def resolve(
    flags: Mapping[str, Any], settings_file: Path | None = None, remembered: Mapping[str, Any] | None = None
) -> RunSettings:
    """The settings of a run: defaults <- remembered <- TOML <- flags.

    flags holds only what was given on the command line. The attribute values of file and flags are merged, a flag's
    value winning; remembered ones count only when neither gives any. Raises UsageError for an unknown key, a value of
    the wrong type or an unreadable file.
    """
    from_file = _read_toml(settings_file) if settings_file else {}
    values = {**(remembered or {}), **from_file, **flags}
    given = {**from_file.get("set", {}), **flags.get("set", {})}
    values["set"] = given or (remembered or {}).get("set", {})
    return RunSettings(**values)


def parse_assignments(texts: list[str]) -> dict[str, float]:
    """Attribute values from `NAME=VALUE` texts; UsageError when one is not a name and a number."""
    values: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise UsageError(f"--set got {text!r}; expected NAME=VALUE with a number from -1 to 1")
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"settings file {path} cannot be read: {error}") from error
    return {key: _checked(path, key, value) for key, value in table.items()}


def _checked(path: Path, key: str, value: Any) -> Any:
    """The TOML value as the field's type; UsageError when the key is unknown or the type is another one."""
    defaults = {f.name: f for f in fields(RunSettings)}
    if key not in defaults:
        raise UsageError(f"settings file {path} has the unknown key {key!r}; known are {', '.join(defaults)}")
    if key == "sink" and isinstance(value, str):
        return (value,)
    if key == "sink" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if key == "source" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a camera's index
    if key == "set" and isinstance(value, dict) and all(_is_number(item) for item in value.values()):
        return {name: float(item) for name, item in value.items()}
    switches = ("pace", "compare", "keep_partial", "progress", "likeness")
    wanted = {"max_faces": int, "frames": int, **dict.fromkeys(switches, bool)}
    if key not in ("sink", "set") and type(value) is wanted.get(key, str):
        return value
    raise UsageError(f"settings file {path}: {key} = {value!r} is not of the type that {key} takes")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
