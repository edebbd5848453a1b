"""Improve likeness in the window: what the button asks for, what it shows, what is kept and deleted."""

from pathlib import Path

import numpy as np
import pytest
from PyQt6.QtWidgets import QMessageBox
from pytestqt.qtbot import QtBot

from app import likeness as likeness_module
from app import people as people_module
from app.gui.likeness_panel import LikenessPanel
from app.live import LiveState
from app.people import People
from tests.app.gui.conftest import MakeStage
from tests.app.test_likeness import worker

READY = LiveState(runtime="fake")


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    monkeypatch.setattr(people_module, "networks_of", lambda bundle: "these")
    return People(tmp_path / "people")


@pytest.fixture
def panel(qtbot: QtBot, people: People) -> LikenessPanel:
    made = LikenessPanel(people)
    qtbot.addWidget(made)
    made.show()
    made.show_state(READY)
    made.asked = []
    made.told = []
    made.changed.connect(made.asked.append)
    made.failed.connect(made.told.append)
    return made


def answer(monkeypatch: pytest.MonkeyPatch, *, yes: bool) -> None:
    button = QMessageBox.StandardButton.Yes if yes else QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *_: button)


def test_nothing_can_be_improved_before_the_networks_are_there(panel: LikenessPanel) -> None:
    panel.show_state(LiveState())
    assert not panel.improve.isEnabled()


def test_it_is_not_kept_unless_that_is_asked_for(panel: LikenessPanel) -> None:
    panel.name.setText("anna")
    panel.improve.click()
    assert panel.asked == [{"likeness": True, "person": ""}]


def test_it_is_kept_under_the_name(panel: LikenessPanel) -> None:
    panel.keep.click()
    panel.name.setText(" anna ")
    panel.improve.click()
    assert panel.asked == [{"likeness": True, "person": "anna"}]


def test_without_a_name_nothing_is_kept_or_begun(panel: LikenessPanel) -> None:
    panel.keep.click()
    panel.improve.click()
    assert panel.asked == []
    assert "a person's name" in panel.told[0]


def test_a_kept_one_is_replaced_only_after_a_question(panel, people, monkeypatch) -> None:
    people.save("anna", np.zeros((2, 3), np.float32), "default")
    panel.keep.click()
    panel.name.setText("anna")
    answer(monkeypatch, yes=False)
    panel.improve.click()
    assert panel.asked == []
    answer(monkeypatch, yes=True)
    panel.improve.click()
    assert panel.asked == [{"likeness": True, "person": "anna"}]


def test_while_it_searches_the_bar_moves_and_the_button_cancels(panel: LikenessPanel) -> None:
    assert not panel.bar.isVisible()
    panel.show_state(LiveState(runtime="fake", likeness=0.25))
    assert (panel.bar.isVisible(), panel.bar.value()) == (True, 25)
    assert panel.improve.text() == "Cancel"
    panel.improve.click()
    assert panel.asked == [{"likeness": False, "person": ""}]


def test_once_there_it_can_be_taken_back(panel: LikenessPanel) -> None:
    panel.show_state(LiveState(runtime="fake", likeness_found=True))
    assert panel.improve.text() == "Back to before"
    panel.improve.click()
    assert panel.asked == [{"likeness": False, "person": ""}]


def test_the_menu_uses_and_deletes_the_kept_ones(panel, people, monkeypatch) -> None:
    people.save("anna", np.zeros((2, 3), np.float32), "default")
    panel.menu.aboutToShow.emit()
    use, _, delete = panel.menu.actions()
    use.trigger()
    assert panel.asked == [{"likeness": False, "person": "anna"}]
    answer(monkeypatch, yes=False)
    delete.trigger()
    assert people.names() == ["anna"]
    answer(monkeypatch, yes=True)
    delete.trigger()
    assert people.names() == []


def test_from_the_button_to_the_session(make_stage: MakeStage, monkeypatch, qtbot: QtBot) -> None:
    monkeypatch.setattr(likeness_module, "APART_NS", 0)
    monkeypatch.setattr(likeness_module.Search.__init__, "__defaults__", (worker(),))
    monkeypatch.setattr(likeness_module.LikenessSwitch.__init__, "__defaults__", (worker(),))
    stage = make_stage()
    qtbot.waitUntil(stage.window.likeness.improve.isEnabled)
    stage.window.likeness.improve.click()
    qtbot.waitUntil(lambda: bool(stage.session.likenesses))
    qtbot.waitUntil(lambda: stage.window.likeness.improve.text() == "Back to before")
    stage.window.likeness.improve.click()
    qtbot.waitUntil(lambda: stage.session.likenesses[-1] is None)
    qtbot.waitUntil(lambda: stage.window.likeness.improve.text() == "Improve likeness")


def test_a_failure_is_told_and_can_be_tried_again(make_stage: MakeStage, monkeypatch, qtbot: QtBot) -> None:
    monkeypatch.setattr(likeness_module, "APART_NS", 0)
    monkeypatch.setattr(likeness_module.Search.__init__, "__defaults__", (worker("refuses"),))
    monkeypatch.setattr(likeness_module.LikenessSwitch.__init__, "__defaults__", (worker("refuses"),))
    stage = make_stage()
    qtbot.waitUntil(stage.window.likeness.improve.isEnabled)
    for _ in range(2):
        stage.window.likeness.improve.click()
        qtbot.waitUntil(lambda: "It has its reasons" in stage.window.banner.text.text())
        qtbot.waitUntil(lambda: not stage.bridge.settings.likeness)
        qtbot.waitUntil(lambda: stage.bridge.state.likeness_problem == "")
