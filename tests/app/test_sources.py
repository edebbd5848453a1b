"""The demo and the pace."""

import threading
import time

import pytest

from app.sources import PacedSource, demo_clip, open_source
from engine.errors import SourceError
from tests.app.fakes import PatternSource


def test_the_demo_is_the_clip_that_ships_with_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_clip().parent.name == "app"
    monkeypatch.setattr("app.sources.demo_clip", lambda: demo_clip().with_name("gone.mp4"))
    with pytest.raises(SourceError, match=r"gone\.mp4 does not exist"):
        open_source("demo")


def test_a_paced_source_gives_no_frame_before_its_time() -> None:
    source = PacedSource(PatternSource(6))
    assert source.info.live
    started = time.monotonic()
    times = []
    while (frame := source.read()) is not None:
        times.append((frame.captured_ns / 1e9, time.monotonic() - started))
    assert len(times) == 6
    assert all(read_s >= due_s - 0.005 for due_s, read_s in times)


def test_cancelling_wakes_a_paced_source() -> None:
    with PacedSource(PatternSource(100)) as source:
        source.read()
        threading.Timer(0.05, source.cancel).start()
        started = time.monotonic()
        while source.read() is not None:
            pass
        assert time.monotonic() - started < 2.0
