"""The newest frame of one process, seen by another through memory that both map."""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Self

import numpy as np

from engine.errors import SinkError
from engine.frames import ImageU8

_SLOTS = 3
_HEADER_BYTES = 64
_IN_MEMORY = Path("/dev/shm")


class SharedFrame:
    """One writer, one reader, no lock and no queue: the newest frame wins.

    Frames go round three slots. The number of the newest is written last, so that a reader which finds the number no
    more than one further after copying has copied a slot that nobody touched. A process that dies holds up nobody.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        """Maps the file that `create` made for pictures of that size, (width, height) in px."""
        self.path, self.size = path, size
        width, height = size
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _file_bytes(size))
        self._number = np.frombuffer(self._memory, np.uint64, 1)
        self._slots = np.frombuffer(self._memory, np.uint8, offset=_HEADER_BYTES).reshape(_SLOTS, height, width, 3)

    @classmethod
    def create(cls, size: tuple[int, int]) -> Self:
        """Makes a file that only this user can read, in memory where the system has a place for that.

        Raises SinkError when there is no room for it.
        """
        folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
        handle, name = tempfile.mkstemp(".frames", "rigid-live-", folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(bytes(_file_bytes(size)))  # a file with holes would end the program once there is no room
        except OSError as error:
            Path(name).unlink()
            raise SinkError(f"the virtual camera has no room for its frames in {name}: {error.strerror}") from error
        return cls(Path(name), size)

    def put(self, image_u8: ImageU8) -> None:
        """Makes a BGR picture [H, W, 3] of the frame's size the newest."""
        number = int(self._number[0]) + 1
        self._slots[number % _SLOTS] = image_u8
        self._number[0] = number

    def take(self) -> tuple[int, ImageU8]:
        """Number and copy of the newest picture; number 0 and black before the first."""
        while True:
            number = int(self._number[0])
            image = self._slots[number % _SLOTS].copy()
            if int(self._number[0]) - number < _SLOTS - 1:
                return number, image

    def remove(self) -> None:
        """Removes the file; who has it mapped keeps what is there."""
        self.path.unlink(missing_ok=True)


def _file_bytes(size: tuple[int, int]) -> int:
    return _HEADER_BYTES + _SLOTS * size[0] * size[1] * 3
