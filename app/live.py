"""A run that goes on until it is ended, and can be changed while it goes on: what the window has under it.

One engine thread takes frames from the source, edits them and hands them to whoever looks; files are written in another
one. The engine thread follows two frozen objects that are swapped whole from outside: `settings` says what runs,
`controls` what is edited.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module

from app.camera_switch import CameraSwitch
from app.feed import Feed
from app.likeness import LikenessSwitch
from app.loader import ENGINE, Backend, LiveSession, Loader
from app.mailbox import Mailbox
from app.people import People
from app.priority import let_the_window_go_first
from app.recorder import Recorder
from app.report import RunLog
from app.settings import RunSettings
from app.sinks import VIRTUAL
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8, Phase

log = logging.getLogger(__name__)

_POLL_S = 0.1
_OPEN_AGAIN_AFTER = 30
"""Failing frames in a row after which the session is replaced."""
_LATENCIES = 120
_FPS_OVER_S = 3.0
_POLICIES = "engine.policies"
"""Loads OpenCV: not before the window is there."""


@dataclass(frozen=True)
class LiveFrame:
    """An edited frame, the picture it was made from, and how the run does.

    fps: over the last three seconds. latencies_ms: from arrival to this hand-over, of the last 120 frames, oldest
    first. dropped: frames of this source that nobody edited.
    """

    edited: EditedFrame
    original: ImageU8
    fps: float
    latencies_ms: tuple[float, ...]
    dropped: int


@dataclass(frozen=True)
class LiveState:
    """What a run does besides giving frames.

    opening: the source has given no frame yet. loading: a session is being opened. runtime: what the networks run
    on, empty until there is a session. labels: of the bundle's attributes, by name, None until it has been read.
    camera: what programs find the virtual camera as, empty while there is none. recording: the files being written.
    recorded: the one finished last. recording_problem: why one could not be written; it stays until something else is
    asked for. likeness: share of the search for it that is done, None while none goes on. likeness_found: whether one
    is in force. likeness_problem: why none is. problems: one line each; what else holds now. over: as many frames were
    written as the settings ask for.
    """

    opening: bool = True
    loading: bool = True
    runtime: str = ""
    labels: Mapping[str, str] | None = None
    camera: str = ""
    recording: tuple[str, ...] = ()
    recorded: str = ""
    recording_problem: str = ""
    likeness: float | None = None
    likeness_found: bool = False
    likeness_problem: str = ""
    problems: tuple[str, ...] = ()
    over: bool = False


@dataclass
class _Pace:
    """When the last frames went out, and how late each was."""

    times_s: deque[float] = field(default_factory=deque)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def note(self, now_s: float, latency_ms: float) -> None:
        self.times_s.append(now_s)
        self.latencies_ms.append(latency_ms)
        while self.times_s[0] < now_s - _FPS_OVER_S:
            self.times_s.popleft()

    @property
    def fps(self) -> float:
        spent_s = self.times_s[-1] - self.times_s[0] if self.times_s else 0.0
        return (len(self.times_s) - 1) / spent_s if spent_s > 0 else 0.0


class LiveEditor:
    """The engine thread and what it works with. `frames` holds the newest frame, `state` the newest state."""

    def __init__(
        self,
        settings: RunSettings,
        controls: Controls,
        on_frame: Callable[[], None],
        on_state: Callable[[], None],
        *,
        backend: Backend = ENGINE,
        feed: Feed | None = None,
        people: People | None = None,
    ) -> None:
        """on_frame, on_state: called in the engine thread when there is something new; they must not wait."""
        self.settings = settings
        """What runs. Swapped whole; the engine thread follows before its next frame."""
        self.controls = controls
        """What is edited. Swapped whole; in force from the next frame on."""
        self.frames: Mailbox[LiveFrame] = Mailbox()
        self.state = LiveState()
        self.run_log = RunLog()
        self._on_frame = on_frame
        self._on_state = on_state
        self._feed = feed or Feed()
        self._feed.notice = self._expect
        self._loader = Loader(backend)
        self._recorder = Recorder()
        self._camera = CameraSwitch()
        self._likeness = LikenessSwitch(people or People())
        self._pace = _Pace()
        self._last: CameraFrame | None = None
        self._failures = 0
        self._engine_problem = ""
        self._stop = threading.Event()
        self._ended_well = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the engine thread; the source and the session open in threads of their own."""
        self._thread.start()

    def end(self, timeout_s: float = 5.0) -> bool:
        """Finishes the recording and ends every thread; False when something still hangs after timeout_s seconds."""
        self._stop.set()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._ended_well

    def _work(self) -> None:
        let_the_window_go_first()
        if not self.controls.neutral:  # once the session loads, imports wait for each other, and the picture with them
            import_module(_POLICIES)
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception as error:
                log.debug("the engine thread failed", exc_info=True)
                self._engine_problem = f"{type(error).__name__}: {error}; trying again"
                self._publish_state()
                self._stop.wait(_POLL_S)
        self._recorder.follow((), None, compare=False)
        self._camera.follow(False, None, compare=False)
        self._likeness.end()
        fed, loaded = self._feed.end(_POLL_S * 10), self._loader.end(_POLL_S * 30)
        self._ended_well = fed and loaded

    def _turn(self) -> None:
        settings = self.settings
        changed = self._feed.follow(settings.source)
        if changed:
            self._last, self._pace = None, _Pace()
            self._likeness.another_source()
        session = self._loader.session
        self._loader.follow(settings)
        if self._loader.session is not session:
            self._failures, self._pace = 0, _Pace()
        arrival = self._feed.take(_POLL_S)
        controls = self.controls
        edited = self._edited(arrival[0], controls) if arrival else None
        self._recorder.follow(settings.sink, self._feed.info, compare=settings.compare)
        self._camera.follow(VIRTUAL in settings.sink, self._feed.info, compare=settings.compare)
        self._publish_state()
        if 0 < settings.frames <= self.run_log.frames_out:
            self._stop.set()
            self._set_state(replace(self.state, over=True))
        elif arrival:
            self._last, arrived_ns = arrival
            self._hand_over(edited or self._policy_frame(self._last, controls), self._last, arrived_ns)
        elif self._last is not None and self._feed.problem:
            # The picture stands still, so the policy decides what of it may stay; its clock goes on.
            frame = replace(self._last, captured_ns=time.monotonic_ns())
            self._show(self._policy_frame(frame, self.controls), frame)
        self._likeness.follow(settings, self._loader.session, arrival[0] if arrival and edited else None)

    def _edited(self, frame: CameraFrame, controls: Controls) -> EditedFrame | None:
        """The session's work on a frame; None while there is no session, or when it fails, which the state tells."""
        session = self._loader.session
        if session is None:
            return None
        try:
            if self._last is None or frame.index <= self._last.index:
                session.reset()
            edited = session.step(frame, controls)
        except Exception as error:  # noqa: BLE001 - a worker's loop; the state tells of it
            self._failed(frame, error)
            return None
        self._failures, self._engine_problem = 0, ""
        self._loader.works()
        return edited

    def _expect(self, frame: CameraFrame) -> None:
        """In the capture's thread: the faces can be followed while the networks are still at the frame before."""
        session = self._loader.session
        if session is not None:
            session.expect(frame)

    def _failed(self, frame: CameraFrame, error: Exception) -> None:
        if self._failures == 0:
            log.warning("the engine failed on frame %d; the lost-face policy is in force", frame.index)
        log.debug("the failure", exc_info=True)
        self._failures += 1
        if self._failures % _OPEN_AGAIN_AFTER == 0:
            self._loader.open_again()
        self._engine_problem = f"the engine failed: {error}; the lost-face policy is in force, trying again"

    def _policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """What may be shown of a frame that is not edited; without a session there is no frame to hold."""
        session = self._loader.session
        if session is not None:
            return session.policy_frame(frame, controls)
        image = frame.image if controls.neutral else _stand_in(self.settings.lost_face, frame)
        return EditedFrame(frame.index, frame.captured_ns, image, Phase.SEARCHING, {})

    def _hand_over(self, edited: EditedFrame, frame: CameraFrame, arrived_ns: int) -> None:
        now_ns = time.monotonic_ns()
        latency_ms = (now_ns - arrived_ns) / 1e6
        self.run_log.written(edited, {}, now_ns)
        self.run_log.arrived_late_by(latency_ms)
        self.run_log.frames_in = self._feed.frames
        self.run_log.dropped = self._feed.dropped
        self._pace.note(now_ns / 1e9, latency_ms)
        self._show(edited, frame)
        self._recorder.write(edited, frame.image)

    def _show(self, edited: EditedFrame, frame: CameraFrame) -> None:
        pace = self._pace
        self.frames.put(LiveFrame(edited, frame.image, pace.fps, tuple(pace.latencies_ms), self._feed.dropped))
        self._camera.show(edited, frame.image)
        self._on_frame()

    def _publish_state(self) -> None:
        problems = (self._feed.problem, self._loader.problem, self._engine_problem, self._camera.problem)
        session: LiveSession | None = self._loader.session
        self._set_state(
            LiveState(
                opening=self._feed.opening,
                loading=self._loader.loading,
                runtime=session.runtime if session else "",
                labels=self._loader.labels,
                camera=self._camera.name,
                recording=self._recorder.names,
                recorded=self._recorder.finished,
                recording_problem=self._recorder.problem,
                likeness=self._likeness.share,
                likeness_found=self._likeness.in_force,
                likeness_problem=self._likeness.problem,
                problems=tuple(filter(None, problems)),
            )
        )

    def _set_state(self, state: LiveState) -> None:
        if state != self.state:
            self.state = state
            self._on_state()


def _stand_in(lost_face: str, frame: CameraFrame) -> ImageU8:
    from engine.policies import LostFace, stand_in

    return stand_in(LostFace(lost_face), frame, None)
