"""Faces followed into a frame before the frame's turn: while the networks still work on the one before."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from engine.detection import Detection
from engine.frames import CameraFrame, ImageU8
from engine.tracking import FaceTrack

Tracks = tuple[FaceTrack, ...]


class FaceTracker(Protocol):
    """What a session needs of `engine.tracking.Tracker`."""

    def detect(self, image_u8: ImageU8, threshold: float) -> Sequence[Detection]:
        """Faces with a score of at least `threshold`."""
        ...

    def track(self, tracks: Tracks, image_u8: ImageU8, captured_ns: int, wanted: int) -> Tracks:
        """The tracks of the frame before, on this frame; up to `wanted`, new ones included."""
        ...


@dataclass(frozen=True)
class _Answer:
    """What a tracker gave for an image. wanted: how many faces it was asked for."""

    image: ImageU8
    tracks: Tracks
    wanted: int


class AheadTracker:
    """A tracker that can be told which frame comes next, and then has the answer when it is asked.

    A track depends on nothing but the tracks of the frame before and the image. So the answer is taken only where it
    was made from the very tracks and the very image that are asked for; else, as when a frame was left out, the face
    is followed anew. One call at a time reaches the tracker, from whatever thread.
    """

    def __init__(self, tracker: FaceTracker) -> None:
        self._tracker = tracker
        self._lock = Lock()
        self._latest: _Answer | None = None
        self._ahead: tuple[Tracks, _Answer] | None = None

    def detect(self, image_u8: ImageU8, threshold: float) -> Sequence[Detection]:
        """As the tracker's."""
        with self._lock:
            return self._tracker.detect(image_u8, threshold)

    def track(self, tracks: Tracks, image_u8: ImageU8, captured_ns: int, wanted: int) -> Tracks:
        """As the tracker's; at once where the frame was expected."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
            if ahead and ahead[1].image is image_u8 and ahead[1].wanted == wanted and _same(ahead[0], tracks):
                self._latest = ahead[1]
            else:
                self._latest = _Answer(image_u8, self._tracker.track(tracks, image_u8, captured_ns, wanted), wanted)
            return self._latest.tracks

    def expect(self, frame: CameraFrame) -> None:
        """Follow the faces of the frame that was tracked last into this one, which is likely to come next.

        Where it had none nothing is done: who looks for a face knows more than its tracks, such as where one was lost.
        """
        with self._lock:
            before = self._latest
            if before is None or not before.tracks or before.image is frame.image:
                return
            try:
                tracks = self._tracker.track(before.tracks, frame.image, frame.captured_ns, before.wanted)
            except Exception:  # noqa: BLE001 - the frame's own turn tells of it
                return
            self._ahead = before.tracks, _Answer(frame.image, tracks, before.wanted)


def _same(some: Tracks, others: Tracks) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))
