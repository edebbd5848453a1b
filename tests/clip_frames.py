"""Frames of real clips, as a source would give them."""

from collections.abc import Iterator
from pathlib import Path

import av

from engine.frames import CameraFrame


def frames_of(path: Path) -> Iterator[CameraFrame]:
    """Every frame of a clip with its presentation time; 25 frames/s where the file has none."""
    with av.open(path) as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield CameraFrame(index, int((frame.time or index / 25) * 1e9), frame.to_ndarray(format="bgr24"))
