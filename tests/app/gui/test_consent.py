"""The first start asks once, and nothing runs before the answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PyQt6.QtCore import Qt, QTimer
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.gui.consent import ConsentDialog
from app.gui.memory import Memory
from app.gui.start import _agreed


def _answer(do: Callable[[ConsentDialog], object]) -> None:
    """Does something to the dialog once it is open."""

    def look() -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, ConsentDialog):
            do(dialog)
        else:
            QTimer.singleShot(10, look)

    QTimer.singleShot(10, look)


def _click(name: str) -> Callable[[ConsentDialog], object]:
    return lambda dialog: getattr(dialog, name).click()


def test_consent_is_asked_once(qtbot: QtBot, tmp_path: Path) -> None:
    _answer(_click("agree"))
    assert _agreed(Memory(tmp_path), lambda: False)
    assert Memory(tmp_path).agreed
    assert _agreed(Memory(tmp_path), lambda: False), "no dialog: it would wait for ever"


@pytest.mark.parametrize(
    "answer", [_click("quit"), lambda dialog: QTest.keyClick(dialog, Qt.Key.Key_Escape), QWidget.close]
)
def test_anything_else_is_a_no(qtbot: QtBot, tmp_path: Path, answer: Callable[[ConsentDialog], object]) -> None:
    _answer(answer)
    assert not _agreed(Memory(tmp_path), lambda: False)
    assert not Memory(tmp_path).agreed


def test_a_request_to_end_closes_the_question(qtbot: QtBot, tmp_path: Path) -> None:
    assert not _agreed(Memory(tmp_path), lambda: True)


def test_another_note_is_asked_for_again(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(tmp_path).keep_agreement()
    monkeypatch.setattr("app.gui.memory._NOTE", "2")
    assert not Memory(tmp_path).agreed


def test_nothing_runs_before_the_answer(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.gui.start import run_window

    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("app.gui.start.QApplication", lambda *_: QApplication.instance())
    monkeypatch.setattr("app.gui.start._agreed", lambda *_: False)
    monkeypatch.setattr("app.gui.start.Bridge", lambda *_: 1 / 0)
    assert run_window({}, None, lambda: False)
