"""The demo and the pace."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from app.sources import PacedSource, demo_clip, open_playing, open_source
from engine.errors import SourceError
from tests.app.clips import clip, number_of
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


def test_a_file_plays_over_and_over_at_its_own_rate(tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mp4", 5, sound="aac")
    with open_playing(str(path)) as source:
        assert source.info.live
        assert source.info.sound is None
        started = time.monotonic()
        frames = [source.read() for _ in range(12)]
        spent_s = time.monotonic() - started
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert [number_of(frame.image) for frame in frames] == [frame.index for frame in frames]
    assert 0.4 < spent_s < 3
    steps_ns = np.diff([frame.captured_ns for frame in frames])
    assert np.allclose(steps_ns, 40_000_000, atol=2_000_000), "times go on where the file starts over"


def test_a_playing_file_can_be_cancelled(tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mkv", 2, rate=1)
    with open_playing(str(path)) as source:
        source.read()
        threading.Timer(0.1, source.cancel).start()
        started = time.monotonic()
        assert source.read() is None
        assert time.monotonic() - started < 0.8


def test_what_cannot_be_opened_cannot_be_played(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_playing(str(tmp_path / "none.mp4"))
