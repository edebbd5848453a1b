"""The sound of a source that goes on: decoded beside its frames, on their clock, for whoever records it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from app.video import open_container, went_to_start

SOUND_HZ = 48_000
_KEPT_NS = 20_000_000_000
"""More than any frame takes from the source to a recording."""


@dataclass(frozen=True)
class Heard:
    """A piece of sound. start_ns: when it belongs to, on the clock of the frames' `captured_ns`.

    samples: float32 [2, N] in [-1, 1] at 48 kHz.
    """

    start_ns: int
    samples: NDArray[np.float32]


class SoundTap:
    """The last seconds of sound. One thread puts, another takes; nobody waits, and what nobody takes is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[Heard] = deque()
        self._forgotten = 0

    def put(self, piece: Heard) -> None:
        """Adds what comes next."""
        with self._lock:
            self._pieces.append(piece)
            while self._pieces[0].start_ns < piece.start_ns - _KEPT_NS:
                self._pieces.popleft()
                self._forgotten += 1

    def since(self, place: int) -> tuple[list[Heard], int]:
        """The pieces from a place on, 0 for all that are kept, and the place after them."""
        with self._lock:
            first = max(place - self._forgotten, 0)
            return list(self._pieces)[first:], self._forgotten + len(self._pieces)


class Ear:
    """Turns decoded sound of any kind into pieces."""

    def __init__(self) -> None:
        self._resampler = AudioResampler(format="fltp", layout="stereo", rate=SOUND_HZ)

    def pieces(self, frame: AudioFrame) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(start in ns by the stream's own clock, samples) of a decoded frame; without a time it is left out."""
        for resampled in self._resampler.resample(frame):
            if resampled.pts is not None and resampled.time_base is not None:
                start_ns = round(resampled.pts * resampled.time_base * 1_000_000_000)
                yield start_ns, np.asarray(resampled.to_ndarray(), dtype=np.float32)


class LoopingSound:
    """The sound of a file that plays over and over, decoded as far as its picture has come."""

    def __init__(self, location: str) -> None:
        """Raises SourceError when the file cannot be read."""
        self.tap = SoundTap()
        self._location = location
        self._container = open_container(location)
        self._pieces: Iterator[tuple[int, NDArray[np.float32]]] = self._decoded()
        self._next = next(self._pieces, None)

    def follow(self, shown_ns: int, start_ns: int, *, again: bool) -> None:
        """Puts the sound up to a frame's time into the tap.

        shown_ns: the frame's time from the start of the file. start_ns: when the file started, on the frames' clock.
        again: the file has just started over.
        """
        if again:
            self._start_over()
        while self._next is not None and self._next[0] <= shown_ns:
            self.tap.put(Heard(start_ns + self._next[0], self._next[1]))
            self._next = next(self._pieces, None)

    def close(self) -> None:
        """Closes the file; the decoder goes at once, and does not wait for the cycle collector."""
        self._pieces = iter(())  # it held this object, which held it
        self._container.close()

    def _start_over(self) -> None:
        if not went_to_start(self._container):
            self.close()
            self._container = open_container(self._location)
        self._pieces = self._decoded()
        self._next = next(self._pieces, None)

    def _decoded(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        ear, start_ns = Ear(), (self._container.start_time or 0) * 1000
        for frame in self._container.decode(self._container.streams.audio[0]):
            for piece_ns, samples in ear.pieces(frame):
                yield piece_ns - start_ns, samples
