"""Two minutes of a person who tries everything: no crash, no leak, no thread left behind."""

import random
import time
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from tests.app.fakes import our_threads
from tests.app.gui.conftest import MakeStage, Stage

pytestmark = pytest.mark.slow

SECONDS = 120.0
GROWTH_MB = 60.0


def _do_something(stage: Stage, chance: random.Random) -> None:
    window, setup = stage.window, stage.window.setup
    row = chance.choice(list(window.sliders.rows.values()))
    chance.choice(
        [
            *[lambda: row.slider.setValue(chance.randrange(-100, 101))] * 20,
            *[lambda: row.number.setValue(chance.uniform(-1, 1))] * 5,
            window.edits_on.toggle,
            window.mirror.toggle,
            window.outputs.record.toggle,
            window.snapshot.click,
            window.reset.click,
            lambda: window.views[chance.choice(("before", "after", "split"))].click(),
            lambda: window.source.pick(chance.choice(("demo", "0", "1", "rtsp://host/a"))),
            lambda: setup.changed.emit({"runtime": chance.choice(("auto", "openvino", "onnxruntime"))}),
            lambda: setup.changed.emit({"lost_face": chance.choice(("hold", "freeze", "blank"))}),
            lambda: setup.changed.emit({"max_faces": chance.choice((1, 2, 3))}),
            lambda: setattr(stage.session, "broken", chance.random() < 0.3),
            lambda: setattr(stage.sources[-1], "pulled", True),
            lambda: window.resize(chance.randrange(780, 1400), chance.randrange(480, 900)),
        ]
    )()


def _resident_mb() -> float:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_everything_at_random(make_stage: MakeStage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.feed._RETRY_S", 0.2)
    chance = random.Random(7)
    stage = make_stage(size=(320, 180))
    began, at_a_third = time.monotonic(), 0.0
    frames = 0
    while (gone_s := time.monotonic() - began) < SECONDS:
        _do_something(stage, chance)
        qtbot.wait(chance.randrange(30))
        del stage.sessions[:-3], stage.sources[:-3]
        for session in stage.sessions:
            del session.seen[:-10]
        if not at_a_third and gone_s > SECONDS / 3:
            at_a_third, frames = _resident_mb(), int(str(stage.bridge.report["frames_out"]))
    grown_mb = _resident_mb() - at_a_third
    assert int(str(stage.bridge.report["frames_out"])) > frames + 500
    assert grown_mb < GROWTH_MB, f"{grown_mb:.0f} MB more than after a third of the time"
    stage.session.broken = False
    stage.window.close()
    assert stage.window.ended_well
    give_up = time.monotonic() + 10
    while (left := our_threads()) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not left
