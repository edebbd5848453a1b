"""Where edited frames go: nowhere, a virtual camera, or a video file."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from app.sources import SourceInfo
from engine.errors import SinkError, UsageError
from engine.frames import EditedFrame, ImageU8

NULL, VIRTUAL = "null", "virtual"
FILE_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
"""The containers that hold H.264 with times of their own for every frame."""


class Sink(Protocol):
    """Takes edited frames from one thread. Ends with `finish` or `discard`; a `discard` after either does nothing.

    standing: what was written last is seen until something else is. When a live source stands still, what may be seen
    of it is written on into such a sink.
    """

    @property
    def standing(self) -> bool: ...

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Takes one frame, and the one from the source that it was made from; SinkError when it cannot."""

    def finish(self, *, whole: bool) -> None:
        """Makes what was written final. whole: the source was read to its end. SinkError when it cannot."""

    def discard(self) -> None:
        """Leaves nothing behind."""


class NullSink:
    """Takes every frame and keeps none: for measuring, and for trying a source."""

    standing = False

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Drops the frame."""

    def finish(self, *, whole: bool) -> None:
        """Nothing to do."""

    def discard(self) -> None:
        """Nothing to do."""


def check_sinks(names: tuple[str, ...], source: str) -> None:
    """Refuses, before any work, sinks that cannot be opened later: UsageError or SinkError says why."""
    for name in names:
        if name in (NULL, VIRTUAL):
            continue
        if "://" in name:
            raise UsageError(f"sink {name!r}: this version cannot send to a URL; name a file, `virtual` or `null`")
        check_writable(Path(name))
        if Path(name).suffix.lower() not in FILE_SUFFIXES:
            raise UsageError(
                f"sink {name!r} is of a kind that cannot be written; use one of {', '.join(FILE_SUFFIXES)}"
            )
        if Path(source).exists() and Path(name).resolve() == Path(source).resolve():
            raise UsageError(f"sink {name!r} is the source itself; name another file")
    kept = [Path(name).resolve() for name in names if name != NULL]
    if len(set(kept)) < len(kept):
        raise UsageError(f"one sink was named twice: {', '.join(names)}")


def check_writable(path: Path) -> None:
    """Raises SinkError when a file of that name cannot be written."""
    folder = path.parent
    if path.is_dir():
        raise SinkError(f"output {path} is a folder; expected the name of a file")
    if not folder.is_dir():
        raise SinkError(f"output {path} cannot be written: {folder} is not an existing folder")
    if not os.access(folder, os.W_OK):
        raise SinkError(f"output {path} cannot be written: no permission to write in {folder}")


def open_sink(name: str, info: SourceInfo, *, compare: bool) -> Sink:
    """Opens what `--sink` names, for frames of the source that info describes; SinkError when it cannot be.

    compare: frames go out side by side, before the edit on the left.
    """
    if name == NULL:
        return NullSink()
    if name == VIRTUAL:
        from app.virtual_camera import open_camera_sink

        return open_camera_sink(pixel_size(info, compare=compare), compare=compare)
    from app.video_sink import FileSink

    return FileSink(Path(name), info, compare=compare)


def pixel_size(info: SourceInfo, *, compare: bool) -> tuple[int, int]:
    """Width and height of an output picture in px: even, as 4:2:0 wants them, an odd edge being repeated."""
    width = info.width_px * (2 if compare else 1)
    return width + width % 2, info.height_px + info.height_px % 2


def exact_rate(fps: float) -> Fraction:
    """The nominal rate as a fraction of small numbers, 25 when it is not known."""
    return Fraction(fps).limit_denominator(1001) if fps > 0 else Fraction(25)
