"""Where frames come from: the demo clip, a camera, a file or a URL."""

import threading
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from engine.errors import SourceError
from engine.frames import CameraFrame

if TYPE_CHECKING:
    from app.sound_tap import LoopingSound, SoundTap
    from app.video import VideoSource

UNSPECIFIED = 2
"""Code point of "not said" in the colour tags of a video stream (ISO/IEC 23091-2)."""

_MAX_LAG_NS = 1_000_000_000
"""A file that plays later than this goes on from where it is."""


@dataclass(frozen=True)
class ColourTags:
    """Colour tags of a stream, code points of ISO/IEC 23091-2; a sink writes the ones that its source carried."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class SourceInfo:
    """What is known about a source once it is open.

    width_px, height_px: of the first frame, upright. fps: nominal, 0 when unknown. frames: how many the source
    says it holds, 0 when it does not say. live: frames come whether they are wanted or not. time_base: the unit,
    in seconds, in which presentation times are exact. pixel_aspect: width over height of one pixel.
    sound: where a sink finds the sound that belongs to the frames of a file, None when there is none. live_sound: the
    sound of a source that goes on, on the clock of its frames.
    """

    name: str
    width_px: int
    height_px: int
    fps: float
    frames: int = 0
    live: bool = False
    time_base: Fraction = Fraction(1, 90_000)
    pixel_aspect: Fraction = Fraction(1)
    colour: ColourTags = ColourTags()
    sound: str | None = None
    live_sound: "SoundTap | None" = None


class Source(Protocol):
    """One frame after the other, read by one thread; `close` may be called twice."""

    @property
    def info(self) -> SourceInfo:
        """What is known about the source; the same from opening to closing."""

    def read(self) -> CameraFrame | None:
        """The next frame, None after the last; SourceError when the source breaks. May block."""

    def cancel(self) -> None:
        """Makes a `read` that waits in another thread come back soon, with None."""

    def close(self) -> None:
        """Gives back the camera, file or connection; nobody may be reading."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closing:
    """Makes a class with `close` a context manager."""

    def close(self) -> None:
        """Overridden by the class that is closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(name: str, *, keep_partial: bool = False) -> Source:
    """Opens what `--source` names: `demo`, a camera's index, a URL, or else a file.

    keep_partial: read a truncated file as far as it goes before failing. Raises SourceError when it cannot be
    opened or holds no frame.
    """
    if name.isdecimal():
        from app.camera import CameraSource  # OpenCV and FFmpeg take long to load: only what is needed is

        return CameraSource(int(name))
    return _open_video(name, keep_partial=keep_partial)


def _open_video(name: str, *, keep_partial: bool) -> "VideoSource":
    from app.video import VideoSource

    if "://" in name:
        return VideoSource(name, keep_partial=keep_partial)
    path = demo_clip() if name == "demo" else Path(name)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise SourceError(f"source {path} {found}; expected a video file, a camera's index, a URL or `demo`")
    return VideoSource(str(path), keep_partial=keep_partial)


def open_playing(name: str, *, keep_partial: bool = False) -> Source:
    """Opens what `--source` names for watching: a file plays at its own rate and starts over at its end.

    Raises SourceError when it cannot be opened.
    """
    if name.isdecimal():
        return open_source(name)
    video = _open_video(name, keep_partial=keep_partial)
    if video.info.live:
        return video
    sound = None
    if video.info.sound:
        from app.sound_tap import LoopingSound

        sound = LoopingSound(video.info.sound)
    return LoopingSource(video, sound)


def demo_clip() -> Path:
    """The clip of a synthetic person that ships with the program."""
    return Path(str(files("app") / "demo.mp4"))


class _PlayingSource(Closing):
    """What sources that play a file at its own rate share. info: what they say of it."""

    def __init__(self, source: Source, info: SourceInfo) -> None:
        self._source = source
        self._info = info
        self._cancelled = threading.Event()

    @property
    def info(self) -> SourceInfo:
        """What is played, as if it were live."""
        return self._info

    def cancel(self) -> None:
        """Ends a wait that is under way."""
        self._cancelled.set()
        self._source.cancel()

    def close(self) -> None:
        """Closes the file."""
        self._source.close()


class PacedSource(_PlayingSource):
    """Plays a file at its own rate, as if it were live."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, replace(source.info, live=True))
        self._start_ns: int | None = None

    def read(self) -> CameraFrame | None:
        """The next frame, not before it is due; None after the last one or once cancelled."""
        frame = self._source.read()
        if frame is None:
            return None
        if self._start_ns is None:
            self._start_ns = time.monotonic_ns() - frame.captured_ns
        wait_ns = self._start_ns + frame.captured_ns - time.monotonic_ns()
        if self._cancelled.wait(max(wait_ns, 0) / 1e9):
            return None
        return frame


class LoopingSource(_PlayingSource):
    """Plays a file over and over at its own rate, as if it were live.

    Every frame carries the monotonic time at which it was due, so that times go on where the file starts over, and
    the frame's index says that it did: it is 0 again.
    """

    def __init__(self, video: "VideoSource", sound: "LoopingSound | None" = None) -> None:
        """video: a file at its start. sound: what belongs to it."""
        info = video.info
        tap = sound.tap if sound else None
        super().__init__(video, replace(info, live=True, frames=0, sound=None, live_sound=tap))
        self._video = video
        self._sound = sound
        self._interval_ns = round(1e9 / info.fps) if info.fps > 0 else 40_000_000
        self._start_ns = time.monotonic_ns()
        self._due_ns = self._start_ns

    def read(self) -> CameraFrame | None:
        """The next frame, not before it is due; None once cancelled."""
        frame, again = self._video.read(), False
        if frame is None:
            self._video.rewind()
            self._start_ns = self._due_ns + self._interval_ns
            frame, again = self._video.read(), True
        assert frame is not None
        now_ns = time.monotonic_ns()
        if now_ns - (self._start_ns + frame.captured_ns) > _MAX_LAG_NS:  # the machine slept: go on, do not catch up
            self._start_ns = now_ns - frame.captured_ns
        self._due_ns = self._start_ns + frame.captured_ns
        if self._sound:
            self._sound.follow(frame.captured_ns, self._start_ns, again=again)
        if self._cancelled.wait(max(self._due_ns - now_ns, 0) / 1e9):
            return None
        return replace(frame, captured_ns=self._due_ns)

    def close(self) -> None:
        """Closes the file and its sound."""
        super().close()
        if self._sound:
            self._sound.close()
