"""The newest frame, seen by another process, whole."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.shared_frame import SharedFrame
from engine.errors import SinkError

SIZE = (320, 180)

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from app.shared_frame import SharedFrame
frames = SharedFrame(Path(sys.argv[1]), (320, 180))
for number in range(1, 3001):
    frames.put(np.full((180, 320, 3), number % 251, np.uint8))
"""


def test_the_newest_frame_wins_and_before_the_first_it_is_black() -> None:
    frames = SharedFrame.create(SIZE)
    try:
        number, image = frames.take()
        assert number == 0
        assert not image.any()
        for level in (3, 7):
            frames.put(np.full((180, 320, 3), level, np.uint8))
        seen = SharedFrame(frames.path, SIZE).take()
        assert seen[0] == 2
        assert np.unique(seen[1]).tolist() == [7]
        assert seen[1].shape == (180, 320, 3)
    finally:
        frames.remove()
    assert not frames.path.exists()


def test_a_frame_is_never_seen_half_written() -> None:
    frames = SharedFrame.create(SIZE)
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(frames.path)]) as writer:
        seen = set()
        try:
            while writer.poll() is None or not seen:
                number, image = frames.take()
                assert np.unique(image).tolist() == [number % 251]
                seen.add(number)
        finally:
            writer.kill()
            frames.remove()
    assert writer.returncode == 0
    assert len(seen) > 5


class _Overtaken:
    """Slots that are written over once while they are read."""

    def __init__(self, slots: np.ndarray, write: Callable[[], None]) -> None:
        self._slots, self._write = slots, write

    def __getitem__(self, place: int) -> np.ndarray:
        self._write()
        return self._slots[place]


def test_a_slot_that_was_written_over_meanwhile_is_read_again() -> None:
    frames, levels = SharedFrame.create(SIZE), iter(range(1, 4))
    writer = SharedFrame(frames.path, SIZE)

    def write() -> None:
        for level in levels:
            writer.put(np.full((180, 320, 3), level, np.uint8))

    frames._slots = _Overtaken(frames._slots, write)
    number, image = frames.take()
    frames.remove()
    assert number == 3
    assert np.unique(image).tolist() == [3]


def test_only_the_user_can_read_it() -> None:
    frames = SharedFrame.create(SIZE)
    assert os.stat(frames.path).st_mode & 0o077 == 0
    frames.remove()


def test_too_little_room_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.shared_frame._IN_MEMORY", tmp_path)
    monkeypatch.setattr("app.shared_frame._file_bytes", lambda size: (_ for _ in ()).throw(OSError(28, "No room")))
    with pytest.raises(SinkError, match="No room"):
        SharedFrame.create(SIZE)
    assert not list(tmp_path.iterdir())
