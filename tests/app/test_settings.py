"""Defaults, file and flags lie over each other; what does not fit is refused."""

from pathlib import Path

import pytest

from app.settings import RunSettings, parse_assignments, resolve
from engine.errors import UsageError, ValueOutOfRange


def _file(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = _file(tmp_path, 'source = 2\nsink = "a.mp4"\nmax_faces = 3\nset = { age = 0.5, smile = 1 }\n')
    settings = resolve({"max_faces": 2, "set": {"smile": -1.0}}, path)
    assert settings.source == "2"
    assert settings.sink == ("a.mp4",)
    assert settings.max_faces == 2
    assert settings.set == {"age": 0.5, "smile": -1.0}
    assert settings.runtime == RunSettings().runtime


@pytest.mark.parametrize(
    "text",
    [
        "colour = 1",
        "max_faces = '2'",
        "frames = true",
        "pace = 1",
        "sink = [1]",
        "set = { age = 'old' }",
        "set = 3",
        "runtime = 'quantum'",
        "max_faces = 0",
        "frames = -1",
        "sink = []",
        "this is not TOML",
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        resolve({}, _file(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        resolve({}, tmp_path / "none.toml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.01, -1.01])
def test_attribute_values_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(ValueOutOfRange):
        resolve({"set": {"age": value}})


def test_assignments_are_parsed() -> None:
    assert parse_assignments(["age=0.6", "smile=-1"]) == {"age": 0.6, "smile": -1.0}
    for text in ("age", "age=", "=1", "age=old"):
        with pytest.raises(UsageError, match="NAME=VALUE"):
            parse_assignments([text])


def test_settings_are_json_in_the_report() -> None:
    document = resolve({"set": {"age": 0.5}, "sink": ("null",)}).as_json()
    assert document["set"] == {"age": 0.5}
    assert document["sink"] == ["null"]
