"""Glass to glass: the time at which a frame arrived, in its own pixels, read again where the frame goes out.

A stamp is a row of 40 black or white squares in the frame's top left corner: the time in microseconds modulo 2^32,
then its checksum. It shows what really went out: a frame that was held is as old as its stamp says.
"""

import time

import numpy as np

from app.report import Samples
from app.sinks import NullSink
from app.sources import Source, SourceInfo
from engine.errors import UsageError
from engine.frames import CameraFrame, EditedFrame, ImageU8

_SQUARE_PX = 4
_TIME_BITS, _CHECK_BITS = 32, 8
_BITS = _TIME_BITS + _CHECK_BITS
WIDTH_PX, HEIGHT_PX = _BITS * _SQUARE_PX, _SQUARE_PX
_CHECK_FACTOR = 0x9E3779B1  # the golden ratio's bits spread every bit of the time over the product's upper ones


def stamped(image: ImageU8, time_us: int) -> ImageU8:
    """A copy of the frame with the time in it; UsageError when the frame is too small for it."""
    if image.shape[1] < WIDTH_PX or image.shape[0] < HEIGHT_PX:
        raise UsageError(
            f"a frame of {image.shape[1]}x{image.shape[0]} px is too small for a stamp of {WIDTH_PX}x{HEIGHT_PX}"
        )
    word = time_us % (1 << _TIME_BITS)
    word = word << _CHECK_BITS | _checksum(word)
    levels = np.array([255 * (word >> (_BITS - 1 - bit) & 1) for bit in range(_BITS)], np.uint8)
    copy = image.copy()
    copy[:HEIGHT_PX, :WIDTH_PX] = np.repeat(levels, _SQUARE_PX)[None, :, None]
    return copy


def time_since(image: ImageU8, now_us: int) -> int | None:
    """Microseconds from the frame's stamp to now; None when no stamp can be read."""
    if image.shape[1] < WIDTH_PX or image.shape[0] < HEIGHT_PX:
        return None
    squares = image[:HEIGHT_PX, :WIDTH_PX].reshape(HEIGHT_PX, _BITS, _SQUARE_PX, 3)[1:-1, :, 1:-1]
    word = 0
    for level in squares.mean(axis=(0, 2, 3)):
        word = word << 1 | int(level > 127.5)
    stamp = word >> _CHECK_BITS
    if word & (1 << _CHECK_BITS) - 1 != _checksum(stamp):
        return None
    return (now_us - stamp) % (1 << _TIME_BITS)


def _checksum(word: int) -> int:
    # Not 0 for 0: a black corner is no stamp.
    return ((word + 1) * _CHECK_FACTOR >> _TIME_BITS - _CHECK_BITS) % (1 << _CHECK_BITS)


class StampedSource:
    """A source whose frames carry the time at which they arrived."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.cancel = source.cancel
        self.close = source.close

    @property
    def info(self) -> SourceInfo:
        """The source's own."""
        return self._source.info

    def read(self) -> CameraFrame | None:
        """The next frame, stamped; None after the last."""
        frame = self._source.read()
        if frame is None:
            return None
        arrived_us = time.monotonic_ns() // 1000  # before the copy, which is part of the way
        return CameraFrame(frame.index, frame.captured_ns, stamped(frame.image, arrived_us))

    def __enter__(self) -> "StampedSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GlassSink(NullSink):
    """Reads the stamps of what goes out. ages: in ms; unreadable: frames without a stamp, as blurred ones are."""

    def __init__(self) -> None:
        self.ages = Samples()
        self.read = 0
        self.unreadable = 0

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Notes how old the frame is."""
        age_us = time_since(edited.image, time.monotonic_ns() // 1000)
        if age_us is None:
            self.unreadable += 1
        else:
            self.read += 1
            self.ages.add(age_us / 1000)
