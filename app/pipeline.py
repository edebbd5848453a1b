"""A run: frames from a source through the engine into the sinks.

A file is read frame by frame and nothing is dropped: every frame in is a frame out. A live source is read by a capture
thread that leaves frames in a one-slot mailbox, where the newest wins: when the engine is slow, frames are dropped and
latency stays bounded. While the networks work on one frame, the faces are tracked into the next, and the one before is
written; of a file, it is laid over its picture meanwhile too, which gives more frames a second, each of them later.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from app.bundles import prepare_bundle
from app.capture import Capture
from app.likeness import LikenessSwitch
from app.people import People
from app.report import RunLog, versions, write_report
from app.settings import RunSettings
from app.sinks import Sink, check_sinks, check_writable, open_sink
from app.sources import PacedSource, Source, SourceInfo, open_source
from engine.errors import RigidError, RuntimeUnavailable, SinkError, SourceError, UnknownAttribute, UsageError
from engine.frames import CameraFrame, Controls, EditedFrame

if TYPE_CHECKING:
    from engine.runtimes.base import Device, Precision, Runtime
    from engine.session import Session

log = logging.getLogger(__name__)

_POLL_S = 0.1
_STILL_NS = 500_000_000
"""A live source that gave nothing for this long stands still."""
_FAILURES_IN_A_ROW = 100
"""A live run goes on after a failing frame, but not when all frames fail."""

TORCH_RUNTIMES: Mapping[str, tuple[str, str]] = {
    "eager": ("export.eager", "EagerRuntime"),
    "torch-tensorrt": ("export.torch_tensorrt", "TorchTensorRtRuntime"),
}
"""Runtimes by the names that `--runtime` has for them: module and class."""

_LIKENESS_WITHIN_NS = 12_000_000_000
"""A face is looked for so long when the likeness is sought in a file."""

Notice = Callable[[SourceInfo, RunLog], None]
"""Called after every frame that was written."""


Finish = Callable[[], EditedFrame]
"""Gives the frame that `Editor.begin` began."""


class Editor(Protocol):
    """What the pipeline needs of an engine session."""

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """Edits one frame; when it fails it has changed nothing."""

    def begin(self, frame: CameraFrame, controls: Controls) -> Finish:
        """Edits one frame as far as the next one needs; what it returns does the rest, in any thread."""

    def expect(self, frame: CameraFrame) -> None:
        """Told of the frame that is likely to be begun next, in any thread."""

    def policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """What may be shown of a frame that cannot be edited."""


@dataclass(frozen=True)
class Job:
    """One source, one editor, its sinks, and how far to go.

    limit: frames to write, 0 for all. attend: called after each frame of a live source that the editor stepped.
    """

    source: Source
    editor: Editor
    sinks: tuple[Sink, ...]
    controls: Controls
    limit: int
    stop: threading.Event
    run_log: RunLog
    notice: Notice
    attend: Callable[[CameraFrame], None] = lambda frame: None

    @property
    def over(self) -> bool:
        """True when the run is to end although the source may have more."""
        return self.stop.is_set() or 0 < self.limit <= self.run_log.frames_out


def run(settings: RunSettings, stop: threading.Event, notice: Notice = lambda info, run_log: None) -> dict[str, Any]:
    """Does what the settings ask for and returns the report, which is written too where settings name a file.

    stop: set from outside to end the run early; what was done until then is kept. Raises a RigidError when the run
    cannot be done; then nothing is left behind unless `keep_partial` is set.
    """
    check_sinks(settings.sink, settings.source)
    if settings.report:
        check_writable(Path(settings.report))
    with ExitStack() as stack:
        source = stack.enter_context(open_source(settings.source, keep_partial=settings.keep_partial))
        if settings.pace and not source.info.live:
            source = stack.enter_context(PacedSource(source))
        session = stack.enter_context(open_session(settings))
        check_attributes(settings.set, session.attributes)
        sinks: list[Sink] = []
        for name in settings.sink:
            sinks.append(open_sink(name, source.info, compare=settings.compare))
            stack.callback(sinks[-1].discard)
        switch = LikenessSwitch(People())
        stack.callback(switch.end)
        if settings.likeness and not source.info.live:
            improve_first(settings, session, switch, stop)
        switch.follow(settings, session, None)
        refuse_without_likeness(switch)
        controls, run_log = settings.controls, RunLog()
        attend = partial(switch.follow, settings, session)
        job = Job(source, session, tuple(sinks), controls, settings.frames, stop, run_log, notice, attend)
        edit(job, keep_partial=settings.keep_partial)
    figures = job.run_log.as_json(live=source.info.live)
    report = {"settings": settings.as_json(), "versions": versions(), **figures}
    if settings.report:
        write_report(Path(settings.report), report)
    return report


def improve_first(settings: RunSettings, session: "Session", switch: LikenessSwitch, stop: threading.Event) -> None:
    """Looks for the likeness on a file's first seconds, before anything is edited; the session forgets those frames.

    Raises SourceError when no face is found in them.
    """
    with open_source(settings.source) as source:
        first_ns: int | None = None
        while switch.share in (None, 0.0) and not switch.searching and not stop.is_set():
            frame = source.read()
            first_ns = frame.captured_ns if frame and first_ns is None else first_ns
            if frame is None or frame.captured_ns - (first_ns or 0) > _LIKENESS_WITHIN_NS:
                if not switch.search(settings):
                    raise SourceError(f"{settings.source} shows no face in its first seconds to find a likeness of")
                break
            session.step(frame, Controls())
            switch.follow(settings, session, frame)
            refuse_without_likeness(switch)
    log.info("looking for the likeness")
    while switch.searching and not stop.wait(_POLL_S):
        switch.follow(settings, session, None)
    session.reset()


def refuse_without_likeness(switch: LikenessSwitch) -> None:
    """Raises RuntimeUnavailable when what was asked for cannot be had."""
    if switch.problem:
        raise RuntimeUnavailable(switch.problem)


def edit(job: Job, *, keep_partial: bool = False) -> None:
    """Takes frames to the end of the source, the limit or the stop, and finishes the sinks.

    Raises what the source, the editor or a sink raise. When it is not a sink that failed, the sinks are finished all
    the same with keep_partial or when the source is live.
    """
    try:
        if job.source.info.live:
            _edit_newest(job)
        else:
            _edit_every(job)
    except SinkError:
        raise
    except RigidError:
        if keep_partial or job.source.info.live:  # hours of recording are not thrown away with a lost connection
            _finish(job, whole=False)
        raise
    _finish(job, whole=not job.over)


def check_attributes(values: Mapping[str, float], known: Mapping[str, object]) -> None:
    """Raises UnknownAttribute when a value is set for something that the bundle has no direction for."""
    for name in values:
        if name not in known:
            raise UnknownAttribute(f"the bundle has no attribute {name!r}; it has {', '.join(sorted(known))}")


def _edit_every(job: Job) -> None:
    with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
        reading, writing = decoder.submit(_read_ahead, job), None
        while not job.stop.is_set() and (not job.limit or job.run_log.frames_in < job.limit):
            frame, read_ms = reading.result()
            if frame is None:
                break
            job.run_log.frames_in += 1
            reading = decoder.submit(_read_ahead, job)
            finish = job.editor.begin(frame, job.controls)
            if writing is not None:
                writing.result()
            writing = encoder.submit(_finish_and_write, job, frame, finish, {"read": read_ms})
        if writing is not None:
            writing.result()


def _finish_and_write(job: Job, frame: CameraFrame, finish: Finish, stages_ms: Mapping[str, float]) -> None:
    _write(job, frame, finish(), stages_ms)


def _read_ahead(job: Job) -> tuple[CameraFrame | None, float]:
    """The next frame, of which the editor is told, and how many ms the reading took."""
    started_s = time.perf_counter()
    frame = job.source.read()
    read_ms = (time.perf_counter() - started_s) * 1e3
    if frame is not None:
        job.editor.expect(frame)
    return frame, read_ms


def _edit_newest(job: Job) -> None:
    capture = Capture(lambda: job.source, notice=job.editor.expect)
    written_before = job.run_log.frames_out
    failures = 0
    last: tuple[CameraFrame, int] | None = None
    writing: Future[None] | None = None
    try:
        with ThreadPoolExecutor(1, "write") as writer:
            while not job.over and not capture.arrivals.drained:
                arrival = capture.arrivals.take(_POLL_S)
                if arrival is None:
                    if last is not None and (still_ns := time.monotonic_ns() - last[1]) > _STILL_NS:
                        writer.submit(_stand_still, job, last[0], still_ns).result()
                    continue
                frame, arrived_ns = last = arrival
                edited = _attempt(job, frame)
                failures = 0 if edited else failures + 1
                if failures == _FAILURES_IN_A_ROW:
                    raise RigidError(f"the engine failed on {failures} frames in a row; `--verbose` tells why")
                if edited:
                    job.attend(frame)
                if writing is not None:
                    writing.result()
                if not job.over:
                    shown = edited or job.editor.policy_frame(frame, job.controls)
                    writing = writer.submit(_write_arrived, job, frame, shown, arrived_ns)
            if writing is not None:
                writing.result()
    finally:
        capture.end()
        job.run_log.frames_in += capture.frames
        job.run_log.dropped += capture.frames - (job.run_log.frames_out - written_before)
    if capture.failure is not None:
        raise capture.failure


def _write_arrived(job: Job, frame: CameraFrame, shown: EditedFrame, arrived_ns: int) -> None:
    _write(job, frame, shown, {})
    job.run_log.arrived_late_by((time.monotonic_ns() - arrived_ns) / 1e6)


def _stand_still(job: Job, last: CameraFrame, still_ns: int) -> None:
    """Shows what the policy leaves of the last frame wherever it would be seen on and on; its clock goes on."""
    now = replace(last, captured_ns=last.captured_ns + still_ns)
    held = job.editor.policy_frame(now, job.controls)
    for sink in job.sinks:
        if sink.standing:
            sink.write(held, last.image)


def _attempt(job: Job, frame: CameraFrame) -> EditedFrame | None:
    """The frame, edited; None when the engine fails. What was asked for wrongly is still an error.

    The next frame is taken when this one is done. Begun while it is still laid over its picture, there would be a
    twelfth more frames a second, each a fifth later: the two hinder each other, and who is taken earlier is older.
    """
    try:
        return job.editor.step(frame, job.controls)
    except UsageError:
        raise
    except Exception as error:
        log.warning("the engine failed on frame %d; the lost-face policy is in force: %s", frame.index, error)
        log.debug("the failure", exc_info=True)
        return None


def _write(job: Job, frame: CameraFrame, edited: EditedFrame, stages_ms: Mapping[str, float]) -> None:
    started_s = time.perf_counter()
    for sink in job.sinks:
        sink.write(edited, frame.image)
    write_ms = (time.perf_counter() - started_s) * 1e3
    job.run_log.written(edited, {**stages_ms, "write": write_ms}, time.monotonic_ns())
    job.notice(job.source.info, job.run_log)


def _finish(job: Job, *, whole: bool) -> None:
    for sink in job.sinks:
        sink.finish(whole=whole)


def open_session(settings: RunSettings) -> "Session":
    """The engine session that the settings ask for; raises what `Session.open` raises."""
    from engine.session import Session  # loads the runtimes

    return Session.open(
        bundle=prepare_bundle(settings.bundle),
        runtime=torch_runtime(settings.runtime) if settings.runtime in TORCH_RUNTIMES else settings.runtime,
        device=cast("Device", settings.device),
        precision=cast("Precision", settings.precision),
        lost_face=settings.lost_face,
        max_faces=settings.max_faces,
        variant=settings.variant,
    )


def torch_runtime(name: str) -> "Runtime":
    """One of `TORCH_RUNTIMES`, which the engine does not know of; raises RuntimeUnavailable without torch."""
    module, kind = TORCH_RUNTIMES[name]
    try:
        runtime: Runtime = getattr(import_module(module), kind)()
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"{name}: it needs the package {error.name}; install the extra `train`") from error
    return runtime
