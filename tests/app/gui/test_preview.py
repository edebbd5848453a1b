"""The divider, and where the picture is."""

import pytest
from PyQt6.QtCore import QPoint, Qt
from pytestqt.qtbot import QtBot

from app.gui.preview import Preview
from app.live import LiveFrame
from engine.frames import EditedFrame, Phase
from tests.app.clips import numbered

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def preview(qtbot: QtBot) -> Preview:
    """A preview 400x400 with a picture of 320x180 in split view."""
    made = Preview()
    qtbot.addWidget(made)
    made.resize(400, 400)
    image = numbered(5, 320, 180)
    made.show_frame(LiveFrame(EditedFrame(0, 0, 255 - image, Phase.TRACKING, {}), image, 25.0, (1.0,), 0))
    made.set_view("split")
    made.show()
    return made


def test_the_picture_keeps_its_shape_in_the_middle(preview: Preview) -> None:
    place = preview.picture_rect()
    assert (place.left(), place.width(), place.height()) == (0, 400, 225)
    assert place.center().y() == 200
    assert preview.grab().toImage().pixelColor(200, 20).lightness() < 30, "beside the picture nothing is drawn"


def test_the_divider_is_dragged_and_stays_inside(preview: Preview, qtbot: QtBot) -> None:
    qtbot.mousePress(preview, LEFT, pos=QPoint(200, 200))
    qtbot.mouseMove(preview, QPoint(100, 210))
    assert preview.divider == 0.25
    qtbot.mouseMove(preview, QPoint(-50, 210))
    assert preview.divider == 0.0
    qtbot.mouseRelease(preview, LEFT)
    qtbot.mouseMove(preview, QPoint(300, 210))
    assert preview.divider == 0.0, "it was let go"


def test_only_the_divider_is_taken_hold_of(preview: Preview, qtbot: QtBot) -> None:
    qtbot.mousePress(preview, LEFT, pos=QPoint(300, 200))
    qtbot.mouseMove(preview, QPoint(100, 200))
    assert preview.divider == 0.5
    preview.set_view("after")
    qtbot.mousePress(preview, LEFT, pos=QPoint(200, 200))
    qtbot.mouseMove(preview, QPoint(100, 200))
    assert preview.divider == 0.5


def test_keys_move_the_divider(preview: Preview, qtbot: QtBot) -> None:
    qtbot.keyClick(preview, Qt.Key.Key_Left)
    assert preview.divider == 0.48
    qtbot.keyClick(preview, Qt.Key.Key_End)
    assert preview.divider == 1.0
    qtbot.mouseDClick(preview, LEFT, pos=QPoint(399, 200))
    assert preview.divider == 0.5


def test_the_message_is_drawn_over_the_picture(preview: Preview) -> None:
    before = preview.grab().toImage()
    preview.set_message("Loading the networks…")
    assert preview.grab().toImage() != before
    preview.set_message("")
    assert preview.grab().toImage() == before


def test_a_sharp_picture_on_a_dense_screen(preview: Preview) -> None:
    """A one pixel line of a large picture is still there where a point of the widget has four pixels."""
    image = numbered(0, 800, 450)
    image[:, 400] = 255
    preview.set_view("after")
    preview.show_frame(LiveFrame(EditedFrame(0, 0, image, Phase.TRACKING, {}), image, 25.0, (1.0,), 0))
    from PyQt6.QtGui import QImage

    dense = QImage(800, 800, QImage.Format.Format_RGB32)
    dense.setDevicePixelRatio(2.0)
    preview.render(dense)
    row = [dense.pixelColor(x, 400).lightness() for x in range(395, 406)]
    assert max(row) > 200
    assert sum(level > 100 for level in row) <= 2
