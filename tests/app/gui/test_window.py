"""Every control of the window does what it says, and what goes wrong below is shown and not hidden."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest
from PyQt6.QtCore import QPoint, Qt
from PyQt6.QtGui import QColor, QImage
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QApplication, QFileDialog, QInputDialog, QWidget
from pytestqt.qtbot import QtBot

from app.cameras import Camera
from app.gui.theme import DARK, LIGHT
from app.settings import RunSettings
from engine.errors import RuntimeUnavailable
from engine.frames import Controls
from tests.app.clips import numbers_in
from tests.app.fakes import our_threads
from tests.app.gui.conftest import MakeStage, Stage

LEFT = Qt.MouseButton.LeftButton


def _press(stage: Stage, key: Qt.Key) -> None:
    QApplication.sendPostedEvents()
    handle = stage.window.windowHandle()
    assert handle is not None
    QTest.keyClick(handle, key)


def _pixel(stage: Stage, x: float, y: float = 0.5) -> QColor:
    """The colour that the preview shows at a share of the picture's width and height."""
    preview = stage.window.preview
    place = preview.picture_rect()
    image: QImage = preview.grab().toImage()
    ratio = image.devicePixelRatio()
    at = QPoint(int((place.left() + x * place.width()) * ratio), int((place.top() + y * place.height()) * ratio))
    return image.pixelColor(at)


def _values(stage: Stage) -> dict[str, float]:
    return dict(stage.bridge.controls.values)


def test_a_slider_is_in_the_next_edited_frame(stage: Stage, qtbot: QtBot) -> None:
    stage.window.sliders.rows["smile"].slider.setValue(50)
    asked = stage.bridge.controls
    assert asked == Controls({"smile": 0.5})
    before = len(stage.session.seen)
    qtbot.waitUntil(lambda: len(stage.session.seen) > before + 1)
    assert stage.session.seen[before + 1] is asked
    qtbot.waitUntil(lambda: _edited_is_shown(stage))


def _edited_is_shown(stage: Stage) -> bool:
    frame = stage.window.preview.frame
    return frame is not None and bool(np.array_equal(frame.edited.image, 255 - frame.original))


def test_the_switch_turns_all_edits_off_and_on(stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    window.sliders.set_values({"smile": 0.5, "age": -1.0})
    assert _values(stage) == {"smile": 0.5, "age": -1.0}
    qtbot.mouseClick(window.edits_on, LEFT)
    assert stage.bridge.controls.neutral
    assert window.edits_on.text() == "Edits off"
    _press(stage, Qt.Key.Key_E)
    assert _values(stage) == {"smile": 0.5, "age": -1.0}
    assert window.sliders.rows["age"].value == -1.0


def test_holding_shows_before_only_while_held(stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    window.sliders.set_values({"smile": 1.0})
    qtbot.mousePress(window.compare, LEFT)
    assert window.preview.shown_view == "before"
    qtbot.mouseRelease(window.compare, LEFT)
    assert window.preview.shown_view == "after"
    window.preview.setFocus()
    handle = window.windowHandle()
    QTest.keyPress(handle, Qt.Key.Key_C)
    assert window.preview.shown_view == "before"
    QTest.keyRelease(handle, Qt.Key.Key_C)
    assert window.preview.shown_view == "after"
    assert _values(stage) == {"smile": 1.0}, "comparing changes nothing that goes out"


def test_before_after_and_split_show_what_they_say(stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    window.sliders.set_values({"smile": 1.0})
    qtbot.waitUntil(lambda: _edited_is_shown(stage))
    stage.bridge.frame_ready.disconnect()
    frame = window.preview.frame
    assert frame is not None
    before, after = (image[24, 2].mean() for image in (frame.original, frame.edited.image))
    assert abs(before - after) > 100
    qtbot.mouseClick(window.views["before"], LEFT)
    assert abs(_pixel(stage, 2 / 64).lightness() - before) < 8
    qtbot.mouseClick(window.views["after"], LEFT)
    assert abs(_pixel(stage, 2 / 64).lightness() - after) < 8
    qtbot.mouseClick(window.views["split"], LEFT)
    assert abs(_pixel(stage, 2 / 64).lightness() - before) < 8
    assert abs(_pixel(stage, 63 / 64).lightness() - frame.edited.image[24, 62].mean()) < 8
    window.mirror.click()
    assert abs(_pixel(stage, 62 / 64).lightness() - after) < 8, "mirrored, the left edge's edit is on the right"


def test_the_view_key_goes_round(stage: Stage) -> None:
    seen = []
    for _ in range(4):
        _press(stage, Qt.Key.Key_V)
        seen.append(stage.window.preview.view)
    assert seen == ["split", "before", "after", "split"]
    assert stage.window.views["split"].isChecked()


def test_mirror_turns_only_what_is_seen(stage: Stage, qtbot: QtBot, tmp_path: Path) -> None:
    _press(stage, Qt.Key.Key_M)
    assert stage.window.mirror.isChecked()
    stage.bridge.frame_ready.disconnect()
    frame = stage.window.preview.frame
    assert frame is not None
    stage.window.snapshot.click()
    qtbot.waitUntil(lambda: bool(list(tmp_path.glob("pictures/*/*.png"))))
    (path,) = tmp_path.glob("pictures/*/*.png")
    np.testing.assert_array_equal(cv2.imread(str(path)), frame.edited.image)
    qtbot.waitUntil(lambda: str(path) in stage.window.banner.text.text())


def test_a_snapshot_that_cannot_be_written_is_told(stage: Stage, qtbot: QtBot, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("", encoding="utf-8")
    _press(stage, Qt.Key.Key_S)
    qtbot.waitUntil(lambda: "cannot be written" in stage.window.banner.text.text())


def test_recording_writes_a_file_and_says_where(stage: Stage, qtbot: QtBot, tmp_path: Path) -> None:
    window = stage.window
    qtbot.mouseClick(window.outputs.record, LEFT)
    qtbot.waitUntil(lambda: bool(stage.bridge.state.recording))
    written = len(stage.session.seen)
    qtbot.waitUntil(lambda: len(stage.session.seen) > written + 10)
    _press(stage, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: bool(stage.bridge.state.recorded))
    (path,) = tmp_path.glob("videos/*/*.mp4")
    assert len(numbers_in(path)) >= 10
    qtbot.waitUntil(lambda: str(path) in window.banner.text.text())


def test_a_recording_that_fails_lets_the_button_go(
    stage: Stage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.gui.outputs._new_file", lambda *_: tmp_path / "videos" / "a.unknown")
    stage.window.outputs.record.click()
    qtbot.waitUntil(lambda: not stage.window.outputs.record.isChecked())
    qtbot.waitUntil(lambda: "cannot be written" in stage.window.banner.text.text())


def test_all_to_zero(stage: Stage) -> None:
    stage.window.sliders.set_values({"smile": 0.5, "age": -1.0})
    stage.window.reset.click()
    assert stage.bridge.controls.neutral
    assert all(row.slider.value() == 0 for row in stage.window.sliders.rows.values())


def test_a_source_is_picked_from_the_list_that_follows_the_devices(
    stage: Stage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    picker = stage.window.source
    monkeypatch.setattr("app.gui.source_picker.list_cameras", lambda: (Camera(2, "Webcam"),))
    picker.look()
    assert picker.source == "demo"
    row = picker.findText("Webcam")
    picker.setCurrentIndex(row)
    picker.activated.emit(row)
    assert stage.bridge.settings.source == "2"
    qtbot.waitUntil(lambda: stage.sources[-1].info.name == "2")
    monkeypatch.setattr("app.gui.source_picker.list_cameras", lambda: ())
    picker.look()
    assert picker.currentText() == "Camera 2 (not connected)"


def test_a_file_and_a_stream_can_be_opened(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("/films/a.mp4", ""))
    stage.window.source.open_file()
    assert stage.bridge.settings.source == "/films/a.mp4"
    assert stage.window.source.currentText() == "a.mp4"
    row = stage.window.source.findText("Open stream…")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: (" rtsp://host/1 ", True))
    stage.window.source.activated.emit(row)
    assert stage.bridge.settings.source == "rtsp://host/1"
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("rtsp://host/2", False))
    stage.window.source.activated.emit(row)
    assert stage.bridge.settings.source == stage.window.source.value == "rtsp://host/1"


def test_the_set_up_page_changes_what_runs(stage: Stage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = stage.window.setup
    for field, value in ((setup.runtime, "onnxruntime"), (setup.lost_face, "blank"), (setup.max_faces, "3")):
        field.choose(value)
        field.activated.emit(field.currentIndex())
    assert stage.bridge.settings == RunSettings(runtime="onnxruntime", lost_face="blank", max_faces=3)
    qtbot.waitUntil(lambda: stage.session.lost_face == "blank")
    qtbot.waitUntil(lambda: stage.window.status.runtime.text() == "onnxruntime on fake")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "/bundles/mine")
    setup.bundle.setCurrentIndex(setup.bundle.count() - 1)
    setup.bundle.activated.emit(setup.bundle.count() - 1)
    assert stage.bridge.settings.bundle == "/bundles/mine"
    assert setup.bundle.currentText() == "mine"


def test_the_theme_is_chosen(stage: Stage) -> None:
    setup = stage.window.setup
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        setup.theme.choose(name)
        setup.theme.activated.emit(setup.theme.currentIndex())
        assert stage.window.preview.palette().window().color() == QColor(colours.panel)
        assert stage.window.looks.theme == name


def test_the_status_bar_says_how_it_goes(stage: Stage, qtbot: QtBot) -> None:
    status = stage.window.status
    qtbot.waitUntil(lambda: status.phase.text() == "Following the face")
    qtbot.waitUntil(lambda: float(status.fps.text().split()[0]) > 10)
    assert status.latency.text().endswith("ms (p95)")
    assert status.dropped.text().endswith("dropped")
    assert status.runtime.text() == "auto on fake"
    assert len(status.plot.values_ms) > 1


def test_a_narrow_window_cuts_no_figure_of_the_status_bar(stage: Stage, qtbot: QtBot) -> None:
    status = stage.window.status
    qtbot.waitUntil(lambda: status.phase.text() == "Following the face")
    status.runtime.setText("openvino 2026.4.1 on cpu in int8 or bf16")
    stage.window.resize(stage.window.minimumSizeHint())
    QApplication.processEvents()
    for label in (status.phase, status.fps, status.latency, status.dropped):
        assert label.width() >= label.sizeHint().width()


def test_what_is_loaded_is_said_and_the_picture_is_there_before(make_stage: MakeStage, qtbot: QtBot) -> None:
    stage = make_stage(RunSettings(set={"smile": 1.0}), wait=False)
    assert stage.window.preview.message == "Opening Demo clip…"
    opening = threading.Event()

    def late(settings: RunSettings) -> NoReturn:
        opening.wait(60)
        raise RuntimeUnavailable("the test is over")

    stage.bridge._editor._loader._backend = replace(stage.bridge._editor._loader._backend, open_session=late)
    stage.bridge.start()
    try:
        qtbot.waitUntil(lambda: stage.window.preview.frame is not None)
        qtbot.waitUntil(lambda: stage.window.preview.message.startswith("Loading the networks…"))
        assert "blurred" in stage.window.preview.message
        qtbot.waitUntil(lambda: set(stage.window.sliders.rows) == set(stage.bridge.state.labels or ()))
        assert stage.window.sliders.rows["smile"].value == 1.0
    finally:
        opening.set()


def test_a_failing_engine_is_told_and_shows_no_unedited_face(stage: Stage, qtbot: QtBot) -> None:
    stage.window.sliders.set_values({"smile": 1.0})
    stage.session.broken = True
    qtbot.waitUntil(lambda: "lost-face policy" in stage.window.banner.text.text())
    assert stage.window.banner.isVisible()
    for _ in range(5):
        shown = stage.window.preview.frame
        assert shown is not None
        qtbot.waitUntil(lambda shown=shown: stage.window.preview.frame is not shown)
        assert not stage.window.preview.frame.edited.image.any()
    stage.session.broken = False
    qtbot.waitUntil(lambda: not stage.window.banner.isVisible())
    qtbot.waitUntil(lambda: _edited_is_shown(stage))


def test_a_source_that_is_gone_is_told_and_comes_back(
    stage: Stage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.feed._RETRY_S", 600.0)  # it stays away until that has been seen
    stage.window.sliders.set_values({"smile": 1.0})
    stage.sources[-1].pulled = True
    qtbot.waitUntil(lambda: stage.window.banner.text.text() == "Demo is gone")
    qtbot.waitUntil(lambda: not stage.window.preview.frame.edited.image.any())
    monkeypatch.setattr("app.feed._RETRY_S", 0.0)
    qtbot.waitUntil(lambda: not stage.window.banner.isVisible())
    qtbot.waitUntil(lambda: _edited_is_shown(stage))


def test_a_runtime_that_cannot_be_used_is_told(stage: Stage, qtbot: QtBot) -> None:
    stage.no_session = "no card here"
    stage.window.setup.changed.emit({"runtime": "tensorrt"})
    qtbot.waitUntil(lambda: stage.window.banner.text.text() == "No card here")
    assert stage.window.status.runtime.text() == "auto on fake"
    qtbot.mouseClick(stage.window.banner.dismiss, LEFT)
    assert not stage.window.banner.isVisible()


def test_values_that_the_bundle_does_not_know_are_told(make_stage: MakeStage) -> None:
    stage = make_stage(RunSettings(set={"beauty": 0.5, "smile": 0.5}))
    assert stage.window.banner.text.text() == "This bundle has no beauty, which was left out."
    assert _values(stage) == {"smile": 0.5}


def test_what_was_chosen_is_remembered(make_stage: MakeStage) -> None:
    stage = make_stage()
    window = stage.window
    window.sliders.set_values({"smile": 0.37})
    window.mirror.click()
    window.views["split"].click()
    window.preview.set_divider(0.25)
    window.edits_on.click()
    window.setup.theme_changed.emit("light")
    window.setup.changed.emit({"lost_face": "freeze"})
    window.close()
    assert window.ended_well
    again = make_stage(RunSettings(**stage.memory.run_values()), wait=False).window
    assert stage.memory.run_values()["set"] == {"smile": 0.37}
    assert stage.memory.run_values()["lost_face"] == "freeze"
    assert again.mirror.isChecked()
    assert again.views["split"].isChecked()
    assert again.preview.divider == 0.25
    assert not again.edits_on.isChecked()
    assert again.looks.theme == "light"


def test_closing_ends_every_thread(make_stage: MakeStage, qtbot: QtBot) -> None:
    stage = make_stage()
    assert len(our_threads()) >= 3
    stage.window.close()
    assert stage.window.ended_well
    assert stage.sources[-1].closed
    assert stage.session.closed
    qtbot.waitUntil(lambda: not our_threads())


def test_every_control_is_reached_by_the_keyboard_and_has_a_name(stage: Stage, qtbot: QtBot) -> None:
    window = stage.window
    controls = [
        window.source, window.mirror, window.snapshot, window.outputs.camera, window.outputs.record, window.edits_on,
        window.compare, window.presets.choice, window.presets.save, window.presets.more, window.reset, window.preview,
    ]  # fmt: skip
    controls += [widget for row in window.sliders.rows.values() for widget in (row.slider, row.number)]
    reached: list[QWidget] = []
    window.activateWindow()
    window.preview.setFocus()
    for _ in range(60):
        focused = QApplication.focusWidget()
        if focused is None or focused in reached:
            break
        reached.append(focused)
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
    assert any(view in reached for view in window.views.values()), "the arrow keys go on from one to the others"
    missed = [control for control in controls if control not in reached]
    assert not missed, [widget.accessibleName() or widget.text() for widget in missed]
    assert not [widget for widget in reached if not (widget.accessibleName() or getattr(widget, "text", str)())]
