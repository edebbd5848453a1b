"""The switches of what goes out: virtual camera and recording."""

import os
import signal

from PyQt6.QtCore import QSize, Qt
from PyQt6.QtGui import QColor, QIcon
from pytestqt.qtbot import QtBot

from app.gui.outputs import Outputs
from app.gui.theme import DARK, LIGHT
from app.settings import RunSettings
from tests.app.gui.conftest import MakeStage, Stage
from tests.app.registered_camera import Log, is_running

LEFT = Qt.MouseButton.LeftButton


def test_the_camera_is_switched_on_told_and_off(log: Log, stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    qtbot.mouseClick(window.outputs.camera, LEFT)
    assert stage.bridge.settings.sink == ("virtual",)
    qtbot.waitUntil(lambda: "pick the camera Test Camera (test)" in window.banner.text.text())
    qtbot.waitUntil(lambda: len(log.rows) > 5)
    window.outputs.record.click()
    assert stage.bridge.settings.sink[0] == "virtual"
    assert stage.bridge.settings.sink[1].endswith(".mp4")
    qtbot.waitUntil(lambda: bool(stage.bridge.state.recording))
    window.outputs.camera.click()
    assert len(stage.bridge.settings.sink) == 1, "the recording goes on without the camera"
    qtbot.waitUntil(lambda: log.numbers[-1] == "closed")
    window.outputs.record.click()
    assert stage.bridge.settings.sink == ("null",)


def test_a_killed_camera_is_told_and_the_window_goes_on(log: Log, stage: Stage, qtbot: QtBot) -> None:
    stage.window.outputs.camera.click()
    qtbot.waitUntil(lambda: bool(log.rows))
    os.kill(log.rows[-1][2], signal.SIGKILL)
    qtbot.waitUntil(lambda: "camera's process ended" in stage.window.banner.text.text())
    shown = stage.window.preview.frame
    qtbot.waitUntil(lambda: stage.window.preview.frame is not shown)


def test_closing_ends_the_camera(log: Log, make_stage: MakeStage, qtbot: QtBot) -> None:
    stage = make_stage(RunSettings(sink=("virtual",)))
    assert stage.window.outputs.camera.isChecked()
    qtbot.waitUntil(lambda: bool(log.rows))
    stage.window.close()
    assert stage.window.ended_well
    assert not is_running(log.rows[-1][2])


def test_what_the_run_starts_with_is_shown(qtbot: QtBot) -> None:
    outputs = Outputs(("virtual", "a.mp4"))
    qtbot.addWidget(outputs)
    assert outputs.camera.isChecked()
    assert outputs.record.isChecked()
    sinks: list[tuple[str, ...]] = []
    outputs.changed.connect(sinks.append)
    outputs.camera.click()
    outputs.record.click()
    assert sinks == [("a.mp4",), ("null",)]


def test_the_sign_of_a_recording_is_seen_while_it_runs(qtbot: QtBot) -> None:
    outputs = Outputs(("out.mp4",))
    qtbot.addWidget(outputs)
    for colours in (DARK, LIGHT):
        outputs.set_colours(colours)
        for state, behind in ((QIcon.State.Off, colours.raised), (QIcon.State.On, colours.record)):
            sign = outputs.record.icon().pixmap(QSize(24, 24), QIcon.Mode.Normal, state).toImage().pixelColor(12, 12)
            apart = zip(sign.getRgb(), QColor(behind).getRgb(), strict=True)
            assert max(abs(one - other) for one, other in apart) > 100, colours
