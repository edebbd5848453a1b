"""A tracker that follows a script, and pictures for it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from engine.detection import Detection
from engine.frames import CameraFrame, ImageU8
from engine.geometry import Affine, square_from_frame
from engine.runtimes.base import Networks
from engine.smoothing import start
from engine.tracking import FaceTrack

WIDTH, HEIGHT = 320, 240
FRAME_NS = 40_000_000

FULL_STRENGTH, UNSURE = 0.9, 0.3
"""Scores that the tracker finds, and that only the second look at 0.2 finds."""


@cache
def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> ImageU8:
    """A smooth coloured picture, uint8 BGR [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    phases, pace = rng.uniform(0, 6.28, 3), rng.uniform(20, 60, 3)
    waves = [np.sin(x / pace[n] + phases[n]) * np.cos(y / pace[n]) for n in range(3)]
    image = (127.5 + 100.0 * np.stack(waves, axis=-1)).astype(np.uint8)
    image.flags.writeable = False
    return image


def frames(count: int, first: int = 0, interval_ns: int = FRAME_NS) -> list[CameraFrame]:
    """Frames of a picture that changes a little all the time."""
    return [CameraFrame(n, n * interval_ns, picture() + np.uint8(n % 16)) for n in range(first, first + count)]


def crop_at(x: float, y: float, half_side_px: float = 70.0) -> Affine:
    """An upright crop around a point of the frame."""
    return square_from_frame(np.array([x, y]), np.array([half_side_px, 0.0]), 256)


def face(track_id: int = 1, x: float = 160.0, y: float = 120.0, size_px: float = 60.0) -> FaceTrack:
    """A track around a point."""
    filters = start(crop_at(x, y), 0)
    box_px = (x - size_px / 2, y - size_px / 2, x + size_px / 2, y + size_px / 2)
    landmarks_px = np.tile(np.array([x, y, 0.0], np.float32), (468, 1))
    return FaceTrack(
        track_id=track_id,
        box_px=box_px,
        landmarks_px=landmarks_px,
        crop_from_frame=filters.crop_from_frame,
        score=0.9,
        filters=filters,
        window_from_frame=filters.crop_from_frame,
        frame_size=(WIDTH, HEIGHT),
        look=np.zeros((24, 24), np.float32),
        searched_ns=0,
    )


def detection(x: float = 160.0, y: float = 120.0, score: float = UNSURE) -> Detection:
    """A face found by the detector around a point."""
    return Detection((x - 30.0, y - 30.0, x + 30.0, y + 30.0), np.zeros((6, 2)), score)


Look = tuple[Sequence[FaceTrack], Sequence[Detection]]
"""What one frame holds: the faces that can be tracked, and what the detector finds at a low threshold."""

SEEN: Look = ((face(),), (detection(score=FULL_STRENGTH),))
UNSURE_OF: Look = ((), (detection(),))
EMPTY: Look = ((), ())


class ScriptedTracker:
    """Gives one `Look` a frame, by the frame's capture time; keeps count of what it was asked."""

    def __init__(self, looks: Sequence[Look] | Callable[[int], Look], interval_ns: int = FRAME_NS) -> None:
        self._looks = looks
        self._interval_ns = interval_ns
        self._current: Look = EMPTY
        self.second_looks = 0
        self.known: list[tuple[int, ...]] = []

    def track(
        self, tracks: tuple[FaceTrack, ...], image_u8: ImageU8, captured_ns: int, wanted: int
    ) -> tuple[FaceTrack, ...]:
        """The faces of the script, `wanted` at most."""
        index = captured_ns // self._interval_ns
        self._current = self._looks(index) if callable(self._looks) else self._looks[index]
        self.known.append(tuple(track.track_id for track in tracks))
        # As the real one: known faces first, then the largest.
        kept = sorted(self._current[0], key=lambda t: (t.track_id not in self.known[-1], t.box_px[0] - t.box_px[2]))
        return tuple(kept[:wanted])

    def detect(self, image_u8: ImageU8, threshold: float = 0.5) -> list[Detection]:
        """The detections of the script."""
        self.second_looks += 1
        return [found for found in self._current[1] if found.score >= threshold]


def overflowing(networks: Networks, calls: Collection[int], output: str = "noise") -> Networks:
    """The networks, whose recurrent encoder gives one value that is no number in these calls, by output."""

    class Recurrent:
        spec, made = networks.recurrent.spec, 0

        def __call__(self, **arrays):
            answer = dict(networks.recurrent(**arrays))
            if self.made in calls:
                answer[output] = answer[output].copy()
                answer[output].flat[0] = np.nan
            self.made += 1
            return answer

    return replace(networks, recurrent=Recurrent())


def ellipse(size=128, rx=0.7, ry=0.8):
    """A margin that is positive inside an ellipse, [size, size]."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return (1.0 - (x / rx) ** 2 - (y / ry) ** 2).astype(np.float32)
