"""Presets are files a person can read, whole or not there at all, and say what is wrong with them."""

import tomllib
from pathlib import Path

import pytest

from app.presets import PresetFolder
from app.settings import resolve
from engine.errors import SinkError, UsageError

VALUES = {"smile": 0.8, "age": -0.25, "eye colour": 1.0}


@pytest.fixture
def presets(tmp_path: Path) -> PresetFolder:
    return PresetFolder(tmp_path / "presets")


def test_what_is_saved_is_loaded(presets: PresetFolder) -> None:
    presets.save("Älter & froh", VALUES)
    assert presets.load("Älter & froh") == VALUES
    assert presets.names() == ["Älter & froh"]


def test_the_file_is_toml_that_run_takes_as_settings(presets: PresetFolder) -> None:
    presets.save("Older", VALUES)
    path = presets.path("Older")
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {"set": VALUES}
    assert resolve({}, path).set == VALUES


def test_saving_replaces_and_leaves_nothing_beside(presets: PresetFolder) -> None:
    presets.save("a", VALUES)
    presets.save("a", {"age": 1.0})
    assert presets.load("a") == {"age": 1.0}
    assert [path.name for path in presets.path("a").parent.iterdir()] == ["a.toml"]


def test_a_failed_write_keeps_what_was_there(presets: PresetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    presets.save("a", VALUES)

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(SinkError, match="No space left"):
        presets.save("a", {"age": 1.0})
    assert presets.load("a") == VALUES
    assert [path.name for path in presets.path("a").parent.iterdir()] == ["a.toml"]


def test_rename_and_delete(presets: PresetFolder) -> None:
    presets.save("a", VALUES)
    presets.save("b", {})
    with pytest.raises(UsageError, match="already"):
        presets.rename("a", "b")
    presets.rename("a", "c")
    assert presets.names() == ["b", "c"]
    presets.delete("c")
    assert presets.names() == ["b"]
    with pytest.raises(SinkError, match="deleted"):
        presets.delete("c")
    with pytest.raises(SinkError, match="renamed"):
        presets.rename("c", "d")


@pytest.mark.parametrize("name", ["", " a", ".hidden", "a/b", "..", "a\\b", "a\nb", "what?", "x" * 61])
def test_names_that_no_file_can_have_are_refused(presets: PresetFolder, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        presets.save(name, VALUES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[set\nage = 1", "cannot be read"),
        ("[set]\nage = 7.0", "from -1 to 1"),
        ("[set]\nage = nan", "from -1 to 1"),
        ('[set]\nage = "old"', "not of the type"),
        ("[sett]\nage = 1.0", "unknown key"),
        ("set = 3", "not of the type"),
    ],
)
def test_a_broken_preset_says_what_is_wrong(presets: PresetFolder, text: str, said: str) -> None:
    presets.save("a", {})
    presets.path("a").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        presets.load("a")


def test_bytes_that_are_no_text_are_told(presets: PresetFolder) -> None:
    presets.save("a", {})
    presets.path("a").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        presets.load("a")
