"""Five minutes of a person who tries everything, on real runtimes: no crash, no leak, nothing left behind."""

import gc
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.loader import Backend, open_live_session, read_labels
from app.settings import RunSettings
from app.sources import Source, open_playing
from engine.errors import SourceError
from tests.app.clips import clip
from tests.app.fakes import EndlessSource, our_threads
from tests.app.gui.conftest import MakeStage, Stage
from tests.app.registered_camera import Log, need_pyvirtualcam
from tests.engine import tiny_bundle

pytestmark = pytest.mark.slow

SECONDS = 300.0
SILENT_S = 30.0
"""Longer than a session takes to open on a busy machine: without a frame for so long, something is stuck."""


@dataclass(frozen=True)
class Held:
    """What the process holds. The limits on growth leave room for what happens to be switched on when it is looked."""

    megabytes: float
    threads: int
    files: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()  # decoders of closed files wait for it: what Python has not tidied up yet is no leak
        status = Path("/proc/self/status").read_text(encoding="ascii")
        field = {name: text.split() for name, text in (line.split(":", 1) for line in status.splitlines())}
        return cls(int(field["VmRSS"][0]) / 1e3, threading.active_count(), len(os.listdir("/proc/self/fd")))

    def has_grown(self, since: "Held") -> bool:
        more = self.megabytes - since.megabytes, self.threads - since.threads, self.files - since.files
        return any(grown > limit for grown, limit in zip(more, (150.0, 6, 20), strict=True))


def _children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text(encoding="ascii").split()}


def _do_something(stage: Stage, chance: random.Random, sources: list[EndlessSource], names: list[str]) -> None:
    window, setup = stage.window, stage.window.setup
    row = chance.choice(list(window.sliders.rows.values()))
    chance.choice(
        [
            *[lambda: row.slider.setValue(chance.randrange(-100, 101))] * 40,
            *[lambda: row.number.setValue(chance.uniform(-1, 1))] * 10,
            window.edits_on.toggle,
            window.mirror.toggle,
            window.outputs.record.toggle,
            window.outputs.camera.toggle,
            window.snapshot.click,
            window.reset.click,
            lambda: window.views[chance.choice(("before", "after", "split"))].click(),
            lambda: window.source.pick(chance.choice(names)),
            lambda: setup.changed.emit({"runtime": chance.choice(("auto", "openvino", "onnxruntime", "tensorrt"))}),
            lambda: setup.changed.emit({"lost_face": chance.choice(("hold", "freeze", "blank"))}),
            lambda: setup.changed.emit({"max_faces": chance.choice((1, 2, 3))}),
            lambda: [setattr(source, "pulled", True) for source in sources],
            lambda: window.resize(chance.randrange(780, 1400), chance.randrange(480, 900)),
        ]
    )()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what the process holds is read from /proc")
def test_everything_at_random(
    make_stage: MakeStage,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pinned: Callable[[str], Path],
) -> None:
    pinned("face_detector_full"), pinned("face_mesh"), need_pyvirtualcam()
    Log(tmp_path / "sent.txt").take_the_place_of_every_camera(monkeypatch)
    monkeypatch.setattr("app.feed._RETRY_S", 0.2)
    cameras: list[EndlessSource] = []
    file = str(clip(tmp_path / "sounding.mp4", 50, sound="aac"))

    def open_source(name: str) -> Source:
        if name == "rtsp://nobody":
            raise SourceError(f"{name} does not answer")
        if not name.isdecimal():
            return open_playing(name)
        cameras[:] = [EndlessSource(name, 0.03, (320, 180))]
        return cameras[0]

    chance, before = random.Random(7), _children()
    settings = RunSettings(bundle=str(tiny_bundle.build(tmp_path / "tiny")))
    stage = make_stage(settings, real=Backend(read_labels, open_live_session), sources=open_source)
    names = ["demo", "0", "1", file, "rtsp://nobody"]
    began_s = moved_s = time.monotonic()
    frame, warm = stage.window.preview.frame, None
    while (gone_s := time.monotonic() - began_s) < SECONDS:
        _do_something(stage, chance, cameras, names)
        qtbot.wait(chance.randrange(30))
        if frame is not stage.window.preview.frame:
            frame, moved_s = stage.window.preview.frame, time.monotonic()
        assert time.monotonic() - moved_s < SILENT_S, stage.bridge.state
        if warm is None and gone_s > SECONDS / 2:
            warm = Held.now()
    now = Held.now()
    assert warm
    assert not now.has_grown(warm), f"{now} at the end, {warm} after half of the time"
    qtbot.waitUntil(lambda: not stage.bridge.state.loading)
    stage.window.close()
    assert stage.window.ended_well
    give_up = time.monotonic() + 10
    while (our_threads() or _children() - before) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not our_threads()
    assert _children() <= before
