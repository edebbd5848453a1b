"""Five minutes of a person who tries everything, on real runtimes: no crash, no leak, nothing left behind."""

import ctypes
import faulthandler
import gc
import logging
import os
import platform
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from pytestqt.qtbot import QtBot

from app.loader import Backend, open_live_session, read_labels
from app.settings import RunSettings
from app.sources import Source, open_playing
from engine.errors import SourceError
from tests.app.clips import clip
from tests.app.fakes import EndlessSource, our_threads
from tests.app.gui.conftest import OPENING_MS, MakeStage, Stage
from tests.app.registered_camera import Log, need_pyvirtualcam
from tests.engine import tiny_bundle

pytestmark = pytest.mark.slow

log = logging.getLogger(__name__)

SECONDS = 300.0
WARM_S = 100.0
"""After this long every part has been used, and the memory that libraries keep for good is there."""
MOST = 30.0, 12, 4
"""More megabytes, threads and files than this at the end are a leak."""
NOBODY = "rtsp://nobody"
"""A source that never gives a frame."""
ENDING_S = 20.0
"""Threads of a session that was closed may take so long to end on a busy machine; a leak stays."""
SILENT_S = 30.0
"""Longer than a session takes to open on a busy machine: without a frame for so long, something is stuck."""


class _Allocated(ctypes.Structure):
    """`struct mallinfo2` of the GNU library: bytes, over all of its arenas."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


@dataclass(frozen=True)
class Held:
    """What the process holds. megabytes: allocated and not freed.

    The resident set says less: what threads that have ended leave free between their neighbours' blocks stays resident,
    a hundred megabytes more or less from one look to the next.
    """

    megabytes: float
    threads: int
    files: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _Allocated
        allocated = ask()
        threads, files = (len(os.listdir(f"/proc/self/{folder}")) for folder in ("task", "fd"))
        return cls((allocated.uordblks + allocated.hblkhd) / 1e6, threads, files)

    def has_grown(self, since: "Held") -> bool:
        more = self.megabytes - since.megabytes, self.threads - since.threads, self.files - since.files
        return any(grown > limit for grown, limit in zip(more, MOST, strict=True))


def _children() -> set[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text(encoding="ascii").split()}


def _stacks(folder: Path) -> str:
    """Where every thread is."""
    with (folder / "stacks.txt").open("w+", encoding="utf-8") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()


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


def _rest(stage: Stage, qtbot: QtBot) -> None:
    """Loads both runtimes, whose libraries stay, switches off what can be, and waits until nothing is under way."""
    window = stage.window
    window.outputs.record.setChecked(False)
    window.outputs.camera.setChecked(False)
    window.source.pick("0")
    for runtime in ("onnxruntime", "openvino"):
        window.setup.changed.emit({"runtime": runtime, "max_faces": 1})
        qtbot.wait(1000)  # the engine thread takes it up
        qtbot.waitUntil(lambda: not stage.bridge.state.loading, timeout=OPENING_MS)
    qtbot.wait(1000)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the GNU library tells what is allocated")
def test_everything_at_random(
    make_stage: MakeStage,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "app")  # hundreds of warnings that are wanted would hide what failed
    need_pyvirtualcam()
    Log(tmp_path / "sent.txt").take_the_place_of_every_camera(monkeypatch)
    monkeypatch.setattr("app.feed._RETRY_S", 0.2)
    cameras: list[EndlessSource] = []
    file = str(clip(tmp_path / "sounding.mp4", 50, sound="aac"))

    def open_source(name: str) -> Source:
        if name == NOBODY:
            raise SourceError(f"{name} does not answer")
        if not name.isdecimal():
            return open_playing(name)
        cameras[:] = [EndlessSource(name, 0.03, (320, 180))]
        return cameras[0]

    chance, before = random.Random(7), _children()
    settings = RunSettings(bundle=str(tiny_bundle.build(tmp_path / "tiny")))
    stage = make_stage(settings, real=Backend(read_labels, open_live_session), sources=open_source)
    names = ["demo", "0", "1", file, NOBODY]
    frame, warm, moved_s = stage.window.preview.frame, None, time.monotonic()
    for seconds in (WARM_S, SECONDS - WARM_S):
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            _do_something(stage, chance, cameras, names)
            qtbot.wait(chance.randrange(30))
            if frame is not stage.window.preview.frame or stage.bridge.settings.source == NOBODY:
                frame, moved_s = stage.window.preview.frame, time.monotonic()
            assert time.monotonic() - moved_s < SILENT_S, f"{stage.bridge.state}\n{_stacks(tmp_path)}"
        _rest(stage, qtbot)
        held, moved_s = Held.now(), time.monotonic()
        warm = warm or held
        while held.has_grown(warm) and time.monotonic() - moved_s < ENDING_S:
            qtbot.wait(500)
            held = Held.now()
        moved_s = time.monotonic()
    said = f"{held} at the end, {warm} after {WARM_S:.0f} s, both at rest"
    log.info("%s", said)
    assert not held.has_grown(warm), said
    stage.window.close()
    assert stage.window.ended_well
    give_up = time.monotonic() + 10
    while (our_threads() or _children() - before) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not our_threads()
    assert _children() <= before
