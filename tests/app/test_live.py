"""A run that goes on: it follows what is swapped, survives what fails, and always ends."""

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from app.feed import Feed
from app.live import LiveFrame
from app.settings import RunSettings
from app.sources import Source
from engine.errors import SourceError
from engine.frames import Controls, Phase
from tests.app.clips import number_of, numbers_in
from tests.app.fakes import FakeLiveSession, our_threads
from tests.app.live_bench import LABELS, SMILE, Bench


def _is_unedited(frame: LiveFrame) -> bool:
    return bool(np.array_equal(frame.edited.image, frame.original))


def test_frames_come_edited_with_what_they_were_made_from(bench: Bench) -> None:
    bench.running()
    frame = bench.frame()
    np.testing.assert_array_equal(frame.edited.image, 255 - frame.original)
    assert number_of(frame.original) == frame.edited.index % 256
    assert 0 <= frame.latencies_ms[-1] < 1000
    bench.until(lambda: bench.frame().fps > 20)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own")
def test_the_window_goes_first(bench: Bench) -> None:
    bench.running()
    nice = {thread.name: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in threading.enumerate()}
    lower = min(nice["MainThread"] + 5, 19)
    assert nice["engine"] == lower
    assert nice["loader_0"] == lower, "what it opens starts threads of its own"


def test_controls_are_in_force_from_the_next_frame_on(bench: Bench) -> None:
    bench.running()
    (session,) = bench.sessions
    for value in (0.01, -1.0, 0.0):
        asked = Controls({"smile": value})
        bench.editor.controls = asked
        before = len(session.seen)
        bench.until(lambda before=before: len(session.seen) > before + 1)
        assert all(seen is asked for seen in session.seen[before + 1 :])


def test_the_session_is_told_of_frames_as_they_arrive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Semaphore(0)
    monkeypatch.setattr(FakeLiveSession, "expect", lambda self, frame: told.release())
    bench.running()
    for _ in range(3):
        assert told.acquire(timeout=60)


def test_while_the_networks_load_the_picture_moves_and_shows_no_unedited_face() -> None:
    bench = Bench()
    bench.may_open.clear()
    bench.editor.start()
    try:
        first, second = bench.frame(), bench.frame()
        assert bench.editor.state.loading
        bench.until(lambda: bench.editor.state.labels == LABELS)
        assert second.edited.index > first.edited.index
        assert not _is_unedited(second)
        bench.editor.controls = Controls()
        bench.frame()
        assert _is_unedited(bench.frame()), "with nothing set the source's picture is shown"
        bench.change(lost_face="blank")
        bench.editor.controls = SMILE
        bench.frame()
        assert np.unique(bench.frame().edited.image).tolist() == [128]
    finally:
        bench.may_open.set()
        assert bench.editor.end(60)


def test_a_failing_engine_puts_the_policy_in_force_is_told_and_recovers(bench: Bench) -> None:
    bench.running()
    bench.sessions[-1].broken = True
    bench.until(lambda: bench.editor.state.problems)
    frame = bench.frame()
    assert frame.edited.phase is Phase.HOLDING
    assert not frame.edited.image.any()
    assert "out of order" in bench.editor.state.problems[0]
    bench.sessions[-1].broken = False
    bench.until(lambda: not bench.editor.state.problems)
    assert bench.frame().edited.phase is Phase.TRACKING


def test_a_session_that_keeps_failing_is_replaced(bench: Bench) -> None:
    bench.running()
    dead = bench.sessions[-1]
    dead.broken = True
    bench.until(lambda: len(bench.sessions) == 2 and bench.sessions[-1].seen)
    assert dead.closed
    bench.until(lambda: not bench.editor.state.problems)
    assert bench.frame().edited.phase is Phase.TRACKING


def test_an_error_anywhere_in_the_engine_thread_is_told_and_does_not_end_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.running()
    with monkeypatch.context() as patch:
        patch.setattr(Feed, "take", lambda self, timeout_s: 1 / 0)
        bench.until(lambda: bench.editor.state.problems)
        assert "division" in bench.editor.state.problems[0]
    bench.until(lambda: not bench.editor.state.problems)
    bench.frame()


def test_another_source_is_taken_up_and_the_session_forgets_the_old_one(bench: Bench) -> None:
    bench.running()
    resets = bench.sessions[-1].resets
    bench.change(source="two")
    bench.until(lambda: len(bench.sources) == 2 and bench.sources[0].closed)
    assert bench.sources[1].info.name == "two"
    bench.until(lambda: bench.sessions[-1].resets == resets + 1)
    assert len(bench.sessions) == 1


def test_a_source_that_breaks_is_told_and_taken_up_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.feed._RETRY_S", 600.0)  # it stays away until that has been seen
    bench.running()
    resets = bench.sessions[-1].resets
    bench.no_source = "still gone"
    bench.sources[-1].pulled = True
    bench.until(lambda: bench.editor.state.problems == ("one is gone",))
    assert not bench.frame().edited.image.any(), "the policy decides what stays of the last picture"
    monkeypatch.setattr("app.feed._RETRY_S", 0.0)
    bench.until(lambda: bench.editor.state.problems == ("still gone",))
    bench.no_source = ""
    bench.until(lambda: not bench.editor.state.problems)
    assert bench.frame().edited.phase is Phase.TRACKING
    assert bench.sessions[-1].resets == resets + 1, "the source starts over, so the session forgets the old frames"


def test_a_source_that_falls_silent_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.feed._STALL_S", 0.1)
    bench.running()
    bench.sources[-1].silence.set()
    bench.until(lambda: bench.editor.state.problems == ("one gives no picture",))
    assert not bench.frame().edited.image.any()
    bench.sources[-1].silence.clear()
    bench.until(lambda: not bench.editor.state.problems)


def test_a_file_that_fails_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.feed._RETRY_S", 0.05)
    path, tries = tmp_path / "bad.mp4", []
    path.write_text("no video", encoding="utf-8")

    def refuse(name: str) -> Source:
        tries.append(name)
        raise SourceError("no video")

    feed = Feed(refuse)
    for _ in range(20):
        feed.follow(str(path))
        feed.take(0.02)
    assert tries == [str(path)]
    assert feed.problem == "no video"
    assert feed.end(1)


def test_another_runtime_takes_over_without_a_gap(bench: Bench) -> None:
    bench.running()
    bench.may_open.clear()
    bench.change(runtime="onnxruntime")
    bench.until(lambda: bench.editor.state.loading)
    before = len(bench.sessions[0].seen)
    bench.until(lambda: len(bench.sessions[0].seen) > before + 5)
    bench.may_open.set()
    bench.until(lambda: bench.editor.state.runtime == "onnxruntime")
    assert bench.sessions[0].closed


def test_a_runtime_that_cannot_be_used_is_told_and_the_old_one_goes_on(bench: Bench) -> None:
    bench.running()
    bench.no_session = "no such card"
    bench.change(runtime="tensorrt")
    bench.until(lambda: bench.editor.state.problems == ("no such card",))
    assert bench.editor.state.runtime == "auto"
    assert bench.frame().edited.phase is Phase.TRACKING
    bench.no_session = ""
    bench.change(runtime="openvino")
    bench.until(lambda: bench.editor.state.runtime == "openvino")
    assert not bench.editor.state.problems


def test_another_policy_needs_no_new_session(bench: Bench) -> None:
    bench.running()
    bench.change(lost_face="freeze")
    bench.until(lambda: bench.sessions[-1].lost_face == "freeze")
    assert len(bench.sessions) == 1


def test_a_recording_starts_and_ends_while_the_run_goes_on(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    bench.running()
    bench.change(sink=(str(path),))
    bench.until(lambda: bench.editor.state.recording == (str(path),))
    for _ in range(20):
        bench.frame()
    bench.change(sink=("null",))
    bench.until(lambda: bench.editor.state.recorded == str(path))
    assert not bench.editor.state.recording
    assert len(numbers_in(path)) >= 20
    bench.frame()


def test_a_recording_is_finished_when_the_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    bench = Bench(settings=RunSettings(source="one", sink=(str(path),)))
    bench.editor.start()
    bench.until(lambda: bench.editor.run_log.frames_out > 10)
    assert bench.editor.end(60)
    assert len(numbers_in(path)) > 10
    assert list(tmp_path.iterdir()) == [path]


def test_a_recording_that_fails_does_not_end_the_run(bench: Bench, tmp_path: Path) -> None:
    bench.running()
    bench.change(sink=(str(tmp_path / "nowhere" / "out.mp4"),))
    bench.until(lambda: bench.editor.state.recording_problem)
    assert "nowhere" in bench.editor.state.recording_problem
    assert bench.frame().edited.phase is Phase.TRACKING
    bench.change(sink=("null",))
    bench.until(lambda: not bench.editor.state.recording_problem)


def test_the_run_is_over_after_the_frames_that_were_asked_for() -> None:
    bench = Bench(settings=RunSettings(source="one", frames=5))
    bench.editor.start()
    bench.until(lambda: bench.editor.state.over)
    assert bench.editor.end(60)
    assert bench.editor.run_log.frames_out == 5


def test_the_end_closes_all_and_leaves_no_thread() -> None:
    bench = Bench()
    bench.editor.start()
    bench.running()
    assert bench.editor.end(60)
    bench.until(lambda: not our_threads())
    assert bench.sources[-1].closed
    assert bench.sessions[-1].closed
    assert bench.editor.end(60), "ending twice does nothing"


def test_the_end_waits_for_a_session_that_is_being_opened() -> None:
    bench = Bench()
    bench.may_open.clear()
    bench.editor.start()
    bench.frame()
    threading.Timer(0.3, bench.may_open.set).start()
    assert bench.editor.end(60)
    assert [session.closed for session in bench.sessions] == [True]


def test_the_end_does_not_wait_for_ever() -> None:
    bench = Bench()
    bench.may_open.clear()
    bench.editor.start()
    bench.frame()
    started = time.monotonic()
    assert not bench.editor.end(timeout_s=0.3)
    assert time.monotonic() - started < 2
    bench.may_open.set()
    bench.until(lambda: bench.sessions and bench.sessions[0].closed)
