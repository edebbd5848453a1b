"""Sliders: the mouse, the keys, the number, and the groups."""

import pytest
from PyQt6.QtCore import QPoint, QPointF, Qt
from PyQt6.QtGui import QWheelEvent
from PyQt6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.gui.sliders import SliderPanel, grouped

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def panel(qtbot: QtBot) -> SliderPanel:
    made = SliderPanel()
    qtbot.addWidget(made)
    made.build({"age": "Age", "smile": "Smile"}, {"age": 0.3})
    made.resize(330, 200)
    made.show()
    return made


def _at(panel: SliderPanel, name: str, value: int) -> QPoint:
    slider = panel.rows[name].slider
    return QPoint(round(slider._x_of(value)), slider.height() // 2)


def test_sliders_start_where_they_are_told(panel: SliderPanel) -> None:
    assert panel.values == {"age": 0.3}
    assert panel.rows["age"].number.value() == 0.3


def test_dragging_follows_the_mouse_and_snaps_to_the_middle(panel: SliderPanel, qtbot: QtBot) -> None:
    slider = panel.rows["smile"].slider
    qtbot.mousePress(slider, LEFT, pos=_at(panel, "smile", 0))
    qtbot.mouseMove(slider, _at(panel, "smile", 60))
    assert abs(panel.values["smile"] - 0.6) < 0.02
    qtbot.mouseMove(slider, _at(panel, "smile", 3))
    assert "smile" not in panel.values
    qtbot.mouseMove(slider, _at(panel, "smile", -100) - QPoint(50, 0))
    assert panel.values["smile"] == -1.0
    qtbot.mouseRelease(slider, LEFT)
    qtbot.mouseMove(slider, _at(panel, "smile", 60))
    assert panel.values["smile"] == -1.0


@pytest.mark.parametrize("part", ["slider", "name"])
def test_a_double_click_resets(panel: SliderPanel, qtbot: QtBot, part: str) -> None:
    with qtbot.waitSignal(panel.changed):
        qtbot.mouseDClick(getattr(panel.rows["age"], part), LEFT)
    assert panel.values == {}


@pytest.mark.parametrize("key", [Qt.Key.Key_Backspace, Qt.Key.Key_Delete, Qt.Key.Key_0])
def test_a_key_resets(panel: SliderPanel, qtbot: QtBot, key: Qt.Key) -> None:
    qtbot.keyClick(panel.rows["age"].slider, key)
    assert panel.values == {}


def test_the_arrow_and_page_keys_move(panel: SliderPanel, qtbot: QtBot) -> None:
    slider = panel.rows["smile"].slider
    qtbot.keyClick(slider, Qt.Key.Key_Right)
    assert panel.values["smile"] == 0.02
    qtbot.keyClick(slider, Qt.Key.Key_PageUp)
    assert panel.values["smile"] == 0.12
    qtbot.keyClick(slider, Qt.Key.Key_Home)
    assert panel.values["smile"] == -1.0


def test_a_typed_number_moves_the_slider_and_keeps_its_digits(panel: SliderPanel, qtbot: QtBot) -> None:
    row = panel.rows["smile"]
    row.number.selectAll()
    with qtbot.waitSignal(panel.changed):
        qtbot.keyClicks(row.number, "-0.47")
        qtbot.keyClick(row.number, Qt.Key.Key_Return)
    assert panel.values["smile"] == -0.47
    assert row.slider.value() == -47
    row.number.selectAll()
    qtbot.keyClicks(row.number, "7")
    qtbot.keyClick(row.number, Qt.Key.Key_Return)
    assert -1 <= row.value <= 1


def test_the_wheel_moves_only_a_slider_that_was_chosen(panel: SliderPanel) -> None:
    slider = panel.rows["age"].slider
    panel.activateWindow()

    def turn() -> None:
        place = QPointF(slider.rect().center())
        event = QWheelEvent(
            place, place, QPoint(), QPoint(0, 120), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(slider, event)

    turn()
    assert panel.values == {"age": 0.3}
    slider.setFocus()
    turn()
    assert panel.values["age"] > 0.3


def test_many_values_are_told_once(panel: SliderPanel) -> None:
    told = []
    panel.changed.connect(lambda: told.append(panel.values))
    panel.set_values({"smile": 1.0, "unknown": 1.0})
    assert told == [{"smile": 1.0}]


def test_another_bundle_has_other_sliders(panel: SliderPanel) -> None:
    panel.build({"smile": "Smile", "tan": "Suntan"}, {"smile": 0.5, "age": 1.0})
    assert panel.values == {"smile": 0.5}
    assert list(panel.rows) == ["smile", "tan"]


def test_every_attribute_is_in_one_group() -> None:
    groups = grouped({"tan": "", "yaw": "", "age": "", "smile": ""})
    assert groups == {"Expression": ["smile"], "Person": ["age"], "Pose": ["yaw"], "More": ["tan"]}
