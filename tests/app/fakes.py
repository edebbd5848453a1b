"""A source, an editor and a sink that live in memory."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from app.sources import Closing, SourceInfo
from engine.errors import SourceError
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8, Phase
from tests.app.clips import numbered


class PatternSource(Closing):
    """Gives numbered frames; breaks at frame `breaks_at`. interval_s: the time between two frames of a live one."""

    def __init__(
        self, count: int, *, live: bool = False, interval_s: float = 0.0, breaks_at: int | None = None
    ) -> None:
        self.info = SourceInfo("pattern", 64, 48, 25.0, count, live=live)
        self.closed = False
        self._count = count
        self._interval_s = interval_s
        self._breaks_at = breaks_at
        self._next = 0

    def read(self) -> CameraFrame | None:
        if self._next == self._breaks_at:
            raise SourceError("the pattern broke")
        if self._next == self._count:
            return None
        time.sleep(self._interval_s)
        frame = CameraFrame(self._next, self._next * 40_000_000, numbered(self._next))
        self._next += 1
        return frame

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeSession:
    """Turns a picture upside down by arithmetic; fails on the frames in `fails_on`."""

    def __init__(self, *, seconds: float = 0.0, fails_on: tuple[int, ...] = (), error: Exception | None = None) -> None:
        self.attributes = {"age": None, "smile": None}
        self.held = 0
        """The grey level of what the policy shows."""
        self.face = True
        """Whether the frames show one."""
        self.likenesses: list[NDArray[np.float32] | None] = []
        """What it was given, one after another."""
        self.resets = 0
        self._seconds = seconds
        self._fails_on = fails_on
        self._error = error or RuntimeError("out of order")

    def set_likeness(self, likeness: NDArray[np.float32] | None) -> None:
        self.likenesses.append(likeness)

    def reset(self) -> None:
        self.resets += 1

    def crop(self, frame: CameraFrame) -> ImageU8 | None:
        return np.full((8, 8, 3), frame.index % 256, np.uint8) if self.face else None

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        time.sleep(self._seconds)
        if frame.index in self._fails_on:
            raise self._error
        image = frame.image if controls.neutral else 255 - frame.image
        return EditedFrame(frame.index, frame.captured_ns, image, Phase.TRACKING, {"track": 1.0, "total": 2.0})

    def begin(self, frame: CameraFrame, controls: Controls) -> Callable[[], EditedFrame]:
        edited = self.step(frame, controls)
        return lambda: edited

    def expect(self, frame: CameraFrame) -> None:
        pass

    def policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        image = frame.image if controls.neutral else np.full_like(frame.image, self.held)
        return EditedFrame(frame.index, frame.captured_ns, image, Phase.HOLDING, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class RecordingSink:
    """Keeps what it is given."""

    def __init__(self, *, standing: bool = False) -> None:
        self.standing = standing
        self.frames: list[EditedFrame] = []
        self.originals: list[ImageU8] = []
        self.ended: str | None = None

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        self.frames.append(edited)
        self.originals.append(original)

    def finish(self, *, whole: bool) -> None:
        self.ended = "whole" if whole else "part"

    def discard(self) -> None:
        self.ended = self.ended or "discarded"


class FakeLiveSession(FakeSession):
    """A session of a run that goes on. `broken` makes every step fail; `seen` are the controls of every step."""

    def __init__(self, runtime: str = "fake on cpu", *, seconds: float = 0.0) -> None:
        super().__init__(seconds=seconds)
        self.runtime = runtime
        self.broken = False
        self.closed = False
        self.lost_face = ""
        self.seen: list[Controls] = []

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        assert not self.closed
        self.seen.append(controls)
        if self.broken:
            raise RuntimeError("out of order")
        return super().step(frame, controls)

    def set_lost_face(self, lost_face: str) -> None:
        self.lost_face = lost_face

    def close(self) -> None:
        self.closed = True


class EndlessSource(Closing):
    """A live source of numbered frames. `pull` takes it away: reading fails; `silence` makes it wait for ever."""

    def __init__(self, name: str = "endless", interval_s: float = 0.005, size: tuple[int, int] = (64, 48)) -> None:
        self.info = SourceInfo(name, *size, 25.0, live=True)
        self.closed = False
        self.pulled = False
        self.silence = threading.Event()
        self._cancelled = threading.Event()
        self._interval_s = interval_s
        self._next = 0

    def read(self) -> CameraFrame | None:
        while self.silence.is_set() and not self._cancelled.wait(0.01):
            pass
        if self._cancelled.wait(self._interval_s):
            return None
        if self.pulled:
            raise SourceError(f"{self.info.name} is gone")
        image = numbered(self._next % 256, self.info.width_px, self.info.height_px)
        self._next += 1
        return CameraFrame(self._next - 1, time.monotonic_ns(), image)

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        self.closed = True


def our_threads() -> set[threading.Thread]:
    """The threads of a run that goes on which are alive; libraries have some of their own."""
    return {each for each in threading.enumerate() if each.name.startswith(("engine", "capture", "loader", "camera"))}
