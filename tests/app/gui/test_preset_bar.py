"""Presets in the window: save, pick, rename, delete, keys, and files that are broken."""

import pytest
from PyQt6.QtCore import Qt
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QInputDialog, QMessageBox

from tests.app.gui.conftest import MakeStage, Stage

YES, NO = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch):
    """Sets what the dialogs are answered with: a name, and yes or no."""

    def answers(name: str = "", button: QMessageBox.StandardButton = YES) -> None:
        monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: (name, bool(name)))
        monkeypatch.setattr(QMessageBox, "question", lambda *_: button)

    return answers


def _menu(stage: Stage, text: str) -> None:
    """Chooses an entry of the preset's menu."""
    bar = stage.window.presets
    bar.menu.aboutToShow.emit()
    (action,) = (action for action in bar.menu.actions() if action.text() == text)
    assert action.isEnabled()
    action.trigger()


def _save(stage: Stage, answer, name: str, **values: float) -> None:
    stage.window.sliders.set_values(values)
    answer(name)
    stage.window.presets.save.click()


def test_a_preset_is_saved_picked_and_has_a_key(stage: Stage, answer) -> None:
    _save(stage, answer, "Old", age=1.0)
    _save(stage, answer, "Glad", smile=0.5, age=-0.25)
    stage.window.reset.click()
    handle = stage.window.windowHandle()
    QTest.keyClick(handle, Qt.Key.Key_1)
    assert stage.bridge.controls.values == {"age": 1.0}
    assert stage.window.presets.current == "Old"
    QTest.keyClick(handle, Qt.Key.Key_2)
    assert stage.bridge.controls.values == {"smile": 0.5, "age": -0.25}
    QTest.keyClick(handle, Qt.Key.Key_9)
    assert stage.bridge.controls.values == {"smile": 0.5, "age": -0.25}
    box = stage.window.presets.choice
    box.choose("Old")
    box.activated.emit(box.currentIndex())
    assert stage.bridge.controls.values == {"age": 1.0}


def test_a_typed_number_is_no_preset_key(stage: Stage, answer) -> None:
    _save(stage, answer, "Old", age=1.0)
    number = stage.window.sliders.rows["smile"].number
    stage.window.activateWindow()
    number.setFocus()
    number.selectAll()
    QTest.keyClicks(number, "0.1")
    QTest.keyClick(number, Qt.Key.Key_Return)
    assert stage.bridge.controls.values == {"age": 1.0, "smile": 0.1}


def test_keys_can_be_given_and_taken(stage: Stage, answer) -> None:
    _save(stage, answer, "Old", age=1.0)
    _save(stage, answer, "Glad", smile=0.5)
    bar = stage.window.presets
    bar.give_key("Glad", 1)
    assert bar.keys == {1: "Glad"}
    bar.give_key("Old", 7)
    bar.give_key("Glad", None)
    assert bar.keys == {7: "Old"}
    assert bar.choice.itemText(bar.choice.findData("Old")) == "Old  (7)"


def test_rename_and_delete_ask_first(stage: Stage, answer) -> None:
    _save(stage, answer, "Old", age=1.0)
    answer("Ancient")
    _menu(stage, "Rename…")
    assert stage.window.presets.keys == {1: "Ancient"}
    assert stage.window.presets.current == "Ancient"
    answer(button=NO)
    _menu(stage, "Delete…")
    assert stage.window.presets.choice.findData("Ancient") > 0
    answer(button=YES)
    _menu(stage, "Delete…")
    assert stage.window.presets.choice.findData("Ancient") < 0
    assert stage.window.presets.keys == {}


def test_replacing_asks_first(stage: Stage, answer) -> None:
    _save(stage, answer, "Old", age=1.0)
    stage.window.sliders.set_values({"age": 0.5})
    answer("Old", NO)
    stage.window.presets.save.click()
    stage.window.presets.pick("Old")
    assert stage.bridge.controls.values == {"age": 1.0}


def test_a_broken_preset_is_told_and_changes_nothing(stage: Stage, answer) -> None:
    _save(stage, answer, "Old", age=1.0)
    (stage.memory.folder / "presets" / "Old.toml").write_text("[set]\nage = 9\n", encoding="utf-8")
    stage.window.sliders.set_values({"smile": 0.5})
    stage.window.presets.pick_key(1)
    assert "from -1 to 1" in stage.window.banner.text.text()
    assert stage.window.banner.isVisible()
    assert stage.bridge.controls.values == {"smile": 0.5}


def test_a_name_that_no_file_can_have_is_told(stage: Stage, answer) -> None:
    _save(stage, answer, "a/b", age=1.0)
    assert "cannot be a preset's name" in stage.window.banner.text.text()


def test_what_another_bundle_knew_is_told_and_left_out(stage: Stage, answer, make_stage: MakeStage) -> None:
    _save(stage, answer, "Old", age=1.0, smile=0.5)
    stage.window.close()
    other = make_stage(labels={"smile": "Smile"})
    other.window.presets.pick("Old")
    assert other.window.banner.text.text().endswith("no age, which was left out.")
    assert other.bridge.controls.values == {"smile": 0.5}
