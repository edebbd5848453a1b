"""Files lose no frame, live sources lose the old ones, and a run that fails leaves nothing behind."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.likeness import LikenessSwitch
from app.people import People
from app.pipeline import TORCH_RUNTIMES, Job, edit, open_session, run
from app.report import RunLog
from app.settings import RunSettings
from app.sinks import Sink
from app.sources import PacedSource, Source
from engine.errors import CardFailed, RigidError, RuntimeUnavailable, SourceError, UnknownAttribute
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8, Phase
from tests.app.clips import clip, cut, damage, number_of, numbered, numbers_in, sound_packets, write_clip
from tests.app.fakes import EndlessSource, FakeSession, PatternSource, RecordingSink
from tests.app.registered_camera import until
from tests.app.test_likeness import worker as stand_in


def _job(source: Source, session: FakeSession, sink: Sink, *, limit: int = 0) -> Job:
    controls = Controls({"age": 1.0})
    return Job(source, session, (sink,), controls, limit, threading.Event(), RunLog(), lambda info, run_log: None)


@pytest.fixture
def likeness_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for the process that finds likenesses, and nobody who was kept."""
    people = People(tmp_path / "people")
    monkeypatch.setattr("app.pipeline.People", lambda: people)
    monkeypatch.setattr("app.pipeline.LikenessSwitch", lambda people: LikenessSwitch(people, stand_in()))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """The editor of every `run` in the test."""
    made = FakeSession()
    monkeypatch.setattr("app.pipeline.open_session", lambda settings: made)
    return made


def test_every_frame_of_a_file_comes_out_edited_in_order() -> None:
    sink = RecordingSink()
    job = _job(PatternSource(50), FakeSession(), sink)
    edit(job)
    assert [number_of(255 - frame.image) for frame in sink.frames] == list(range(50))
    assert [number_of(image) for image in sink.originals] == list(range(50))
    assert sink.ended == "whole"
    assert (job.run_log.frames_in, job.run_log.frames_out, job.run_log.dropped) == (50, 50, 0)


def test_while_the_engine_works_the_next_frame_is_decoded_and_the_last_one_encoded() -> None:
    """Each step waits for both, and would wait for ever in a plain loop."""
    read, written = threading.Semaphore(0), threading.Semaphore(0)

    class Source(PatternSource):
        def read(self) -> CameraFrame | None:
            frame = super().read()
            read.release()
            return frame

    class Slow(FakeSession):
        def begin(self, frame: CameraFrame, controls: Controls) -> Callable[[], EditedFrame]:
            assert read.acquire(timeout=30)  # this frame
            assert read.acquire(timeout=30)  # the next one
            read.release()
            assert frame.index == 0 or written.acquire(timeout=30)
            return super().begin(frame, controls)

    class Sink(RecordingSink):
        def write(self, edited: EditedFrame, original: ImageU8) -> None:
            super().write(edited, original)
            written.release()

    sink = Sink()
    edit(_job(Source(20), Slow(), sink))
    assert [frame.index for frame in sink.frames] == list(range(20))


def test_of_a_live_source_the_next_frame_is_edited_while_one_is_written() -> None:
    another = threading.Semaphore(0)

    class Editor(FakeSession):
        def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
            another.release()
            return super().step(frame, controls)

    class Patient(RecordingSink):
        def write(self, edited: EditedFrame, original: ImageU8) -> None:
            for _ in range(1 if self.frames else 2):  # the first frame's own, and the next one
                assert another.acquire(timeout=30)
            super().write(edited, original)

    sink = Patient()
    job = _job(PatternSource(100_000, live=True, interval_s=0.001), Editor(), sink, limit=5)
    edit(job)
    assert len(sink.frames) == job.run_log.frames_out == 5


@pytest.mark.parametrize("live", [False, True])
def test_the_editor_is_told_of_the_next_frame_while_it_works(live: bool) -> None:
    told: dict[int, threading.Event] = defaultdict(threading.Event)

    class Patient(FakeSession):
        def expect(self, frame: CameraFrame) -> None:
            told[frame.index].set()

        def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
            assert told[frame.index + 1].wait(30)
            return super().step(frame, controls)

    sink = RecordingSink()
    edit(_job(PatternSource(100_000, live=live, interval_s=0.001), Patient(), sink, limit=5))
    assert len(sink.frames) == 5


def test_what_lies_behind_the_limit_does_not_matter() -> None:
    sink = RecordingSink()
    edit(_job(PatternSource(50, breaks_at=7), FakeSession(), sink, limit=7))
    assert (len(sink.frames), sink.ended) == (7, "part")


def test_a_limit_ends_the_run_early() -> None:
    sink = RecordingSink()
    job = _job(PatternSource(50), FakeSession(), sink, limit=7)
    edit(job)
    assert len(sink.frames) == job.run_log.frames_in == 7
    assert sink.ended == "part"


@pytest.mark.parametrize("live", [False, True])
def test_a_stop_ends_the_run_in_good_order(live: bool) -> None:
    sink = RecordingSink()
    job = _job(PatternSource(100_000, live=live, interval_s=0.001), FakeSession(), sink)
    threading.Timer(0.2, job.stop.set).start()
    edit(job)
    assert 0 < len(sink.frames) < 100_000
    assert sink.ended == "part"


def test_a_slow_engine_drops_old_frames_of_a_live_source() -> None:
    sink = RecordingSink()
    job = _job(PatternSource(100, live=True, interval_s=0.005), FakeSession(seconds=0.05), sink)
    edit(job)
    log = job.run_log
    assert log.frames_in == 100
    assert log.frames_out == len(sink.frames) < 40
    assert log.dropped == 100 - log.frames_out
    indices = [frame.index for frame in sink.frames]
    assert indices == sorted(indices)
    assert indices[-1] == 99, "the newest frame is never lost"
    assert log.as_json(live=True)["latency_ms"]["p95"] < 500


def test_a_live_frame_that_the_engine_fails_on_goes_out_as_the_policy_says(caplog: pytest.LogCaptureFixture) -> None:
    sink = RecordingSink()
    failing = tuple(range(0, 100, 2))
    session = FakeSession(fails_on=failing, error=CardFailed("the graphics card is out of memory"))
    edit(_job(PatternSource(100, live=True, interval_s=0.005), session, sink))
    held = [frame for frame in sink.frames if frame.phase is Phase.HOLDING]
    assert held
    assert len(held) < len(sink.frames)
    assert all((frame.index in failing) == (frame.phase is Phase.HOLDING) for frame in sink.frames)
    assert not any(frame.image.any() for frame in held)
    assert f"frame {held[0].index};" in caplog.text
    assert "in force: the graphics card is out of memory" in caplog.text


def test_a_live_source_that_stands_still_is_shown_as_the_policy_says_where_it_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.pipeline._STILL_NS", 50_000_000)
    monkeypatch.setattr("app.pipeline._POLL_S", 0.02)
    file, camera, source = RecordingSink(), RecordingSink(standing=True), EndlessSource()
    job = replace(_job(source, FakeSession(), file), sinks=(file, camera), limit=0)
    run = threading.Thread(target=edit, args=(job,))
    run.start()
    try:
        until(lambda: len(file.frames) > 3)
        source.silence.set()
        until(lambda: len(camera.frames) > 3 and camera.frames[-1].phase is Phase.HOLDING)
        source.silence.clear()
        until(lambda: camera.frames[-1].phase is Phase.TRACKING)
    finally:
        job.stop.set()
        run.join()
    assert all(frame.phase is Phase.TRACKING for frame in file.frames), "a file has no frame that the source had not"
    held = [frame for frame in camera.frames if frame.phase is Phase.HOLDING]
    assert not any(frame.image.any() for frame in held)
    times = [frame.captured_ns for frame in held]
    assert times == sorted(set(times)), "the policy's clock goes on"


def test_a_live_run_ends_when_the_engine_fails_on_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pipeline._FAILURES_IN_A_ROW", 5)
    source = PatternSource(1000, live=True, interval_s=0.002)
    with pytest.raises(RigidError, match="5 frames in a row"):
        edit(_job(source, FakeSession(fails_on=tuple(range(1000))), RecordingSink()))


def test_an_engine_that_fails_on_a_file_ends_the_run() -> None:
    sink = RecordingSink()
    with pytest.raises(RuntimeError, match="out of order"):
        edit(_job(PatternSource(6), FakeSession(fails_on=(2,)), sink))
    assert sink.ended is None


def test_what_was_recorded_from_a_live_source_is_kept_when_it_breaks() -> None:
    sink = RecordingSink()
    with pytest.raises(SourceError, match="broke"):
        edit(_job(PatternSource(9, live=True, interval_s=0.01, breaks_at=5), FakeSession(), sink))
    assert sink.ended == "part"


def test_a_paced_file_plays_at_its_own_rate() -> None:
    sink = RecordingSink()
    started = time.monotonic()
    edit(_job(PacedSource(PatternSource(11)), FakeSession(), sink))
    assert 0.4 <= time.monotonic() - started < 3.0
    assert sink.frames[-1].captured_ns == 400_000_000, "a paced frame keeps its presentation time"


def test_a_run_writes_the_file_its_sound_and_the_report(tmp_path: Path, session: FakeSession) -> None:
    source = clip(tmp_path / "in.mp4", 20, sound="aac")
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    settings = RunSettings(source=str(source), sink=(str(out), "null"), report=str(report))
    returned = run(settings, threading.Event())
    assert numbers_in(out) == list(range(20))
    assert sound_packets(out) == sound_packets(source)
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document == returned
    assert set(document) == {
        "settings", "versions", "frames_in", "frames_out", "dropped", "fps", "phases", "stages_ms",
    }  # fmt: skip
    assert document["frames_in"] == document["frames_out"] == 20
    assert document["phases"]["tracking"] == 20
    assert set(document["stages_ms"]) == {"track", "total", "read", "write"}
    assert document["settings"]["source"] == str(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "report.json"]


def test_a_paced_run_reports_latency(tmp_path: Path, session: FakeSession) -> None:
    settings = RunSettings(source=str(clip(tmp_path / "in.mp4", 8)), pace=True)
    report = run(settings, threading.Event())
    assert report["latency_ms"].keys() == {"p50", "p95", "p99"}
    assert np.isfinite(list(report["latency_ms"].values())).all()


def _unknown_attribute(folder: Path) -> RunSettings:
    return RunSettings(source=str(clip(folder / "in.mkv")), set={"beauty": 0.5})


def _truncated(folder: Path) -> RunSettings:
    return RunSettings(source=str(cut(clip(folder / "in.mkv", 40), 0.7)))


def _damaged_late(folder: Path) -> RunSettings:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(40)]
    return RunSettings(source=str(damage(write_clip(folder / "in.ts", noise), 0.7)))


def _unwritable_report(folder: Path) -> RunSettings:
    return RunSettings(source=str(clip(folder / "in.mkv")), report=str(folder / "nowhere" / "r.json"))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_unknown_attribute, UnknownAttribute),
        (_truncated, SourceError),
        (_damaged_late, SourceError),
        (_unwritable_report, RigidError),
    ],
)
def test_a_run_that_fails_leaves_nothing(
    tmp_path: Path, session: FakeSession, make: Callable[[Path], RunSettings], error: type[RigidError]
) -> None:
    settings = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error):
        run(replace(settings, sink=(str(tmp_path / "out.mp4"),)), threading.Event())
    assert sorted(tmp_path.iterdir()) == before


def test_the_part_before_the_damage_is_kept_on_request(tmp_path: Path, session: FakeSession) -> None:
    source, out = cut(clip(tmp_path / "in.mkv", 40), 0.7), tmp_path / "out.mp4"
    with pytest.raises(SourceError, match="truncated"):
        run(RunSettings(source=str(source), sink=(str(out),), keep_partial=True), threading.Event())
    numbers = numbers_in(out)
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < 40


def test_the_torch_runtimes_are_brought_by_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine cannot know torch: a session is handed the runtime itself."""
    opened: list[dict[str, object]] = []
    monkeypatch.setattr("engine.session.Session.open", lambda **settings: opened.append(settings))
    for name in ("eager", "torch-tensorrt", "openvino"):
        open_session(RunSettings(bundle=".", runtime=name))
    assert [type(given["runtime"]).__name__ for given in opened] == ["EagerRuntime", "TorchTensorRtRuntime", "str"]
    assert [getattr(given["runtime"], "name", "") for given in opened] == [*TORCH_RUNTIMES, ""]


def test_without_torch_eager_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name="torch")

    monkeypatch.setattr("app.pipeline.import_module", fail)
    with pytest.raises(RuntimeUnavailable, match="needs the package torch; install the extra `train`"):
        open_session(RunSettings(bundle=".", runtime="eager"))


@pytest.mark.usefixtures("likeness_worker")
class TestLikeness:
    """Sought in the first seconds of a file before anything is edited; beside a live run."""

    def settings(self, tmp_path: Path, frames: int, **others: object) -> RunSettings:
        source = tmp_path / "clip.mp4"
        write_clip(source, [numbered(index) for index in range(frames)])
        return RunSettings(str(source), set={"age": 1.0}, likeness=True, **others)

    def test_a_file_is_edited_with_the_likeness_from_its_first_frame_on(self, session, tmp_path: Path) -> None:
        begun: list[int] = []
        session.step, step = lambda frame, controls: _noted(begun, session, step, frame, controls), session.step
        report = run(self.settings(tmp_path, 100), threading.Event())
        assert report["frames_out"] == 100
        assert len(session.likenesses) == session.resets == 1
        assert begun == [1] * 100  # every edited frame came after it

    def test_a_short_clip_is_made_do_with(self, session, tmp_path: Path) -> None:
        run(self.settings(tmp_path, 10), threading.Event())
        assert len(session.likenesses) == 1

    def test_a_clip_without_a_face_is_an_error(self, session, tmp_path: Path) -> None:
        session.face = False
        with pytest.raises(SourceError, match="shows no face"):
            run(self.settings(tmp_path, 10), threading.Event())

    def test_somebody_who_was_not_kept_is_an_error(self, session, tmp_path: Path) -> None:
        settings = replace(self.settings(tmp_path, 10), likeness=False, person="anna")
        with pytest.raises(RuntimeUnavailable, match="anna"):
            run(settings, threading.Event())

    def test_a_live_run_goes_on_meanwhile(self, session, monkeypatch: pytest.MonkeyPatch) -> None:
        source = EndlessSource(interval_s=0.05)
        monkeypatch.setattr("app.pipeline.open_source", lambda name, keep_partial=False: source)
        stop = threading.Event()
        settings = RunSettings("0", set={"age": 1.0}, likeness=True)
        report: list[dict] = []
        running = threading.Thread(target=lambda: report.append(run(settings, stop)))
        running.start()
        until(lambda: session.likenesses)
        stop.set()
        running.join()
        assert report[0]["frames_out"] > 8
        assert session.resets == 0


def _noted(begun: list[int], session: FakeSession, step, frame, controls):
    if not controls.neutral:
        begun.append(len(session.likenesses))
    return step(frame, controls)
