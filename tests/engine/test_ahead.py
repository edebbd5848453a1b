"""Faces followed into a frame before the frame's turn."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from engine.ahead import AheadTracker
from engine.frames import CameraFrame, ImageU8
from engine.tracking import FaceTrack
from tests.engine.fakes import face


@dataclass
class Counting:
    """Finds one face, another object on every call; notes the images it was shown."""

    shown: list[ImageU8] = field(default_factory=list)
    fails: bool = False

    def detect(self, image_u8: ImageU8, threshold: float) -> list[object]:
        return ["seen"]

    def track(
        self, tracks: tuple[FaceTrack, ...], image_u8: ImageU8, captured_ns: int, wanted: int
    ) -> tuple[FaceTrack, ...]:
        self.shown.append(image_u8)
        if self.fails:
            raise MemoryError("no room")
        return (face(),)


def frame(index: int) -> CameraFrame:
    return CameraFrame(index, index * 40, np.full((4, 4, 3), index, np.uint8))


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def tracker(inner: Counting) -> AheadTracker:
    return AheadTracker(inner)


def asked(tracker: AheadTracker, tracks: tuple[FaceTrack, ...], now: CameraFrame, wanted: int = 1):
    return tracker.track(tracks, now.image, now.captured_ns, wanted)


def test_an_expected_frame_is_not_tracked_again(tracker, inner):
    first, second = frame(0), frame(1)
    tracks = asked(tracker, (), first)
    tracker.expect(second)
    assert len(inner.shown) == 2
    followed = asked(tracker, tracks, second)
    assert len(inner.shown) == 2
    assert followed[0] is not tracks[0]
    assert asked(tracker, followed, second) is not followed, "an answer serves once"


@pytest.mark.parametrize("other", ["image", "tracks", "wanted"])
def test_what_was_not_expected_is_tracked_anew(tracker, inner, other):
    tracks = asked(tracker, (), frame(0))
    tracker.expect(frame(1) if other == "image" else (second := frame(1)))
    shown = frame(2) if other == "image" else second
    asked(tracker, () if other == "tracks" else tracks, shown, wanted=2 if other == "wanted" else 1)
    assert len(inner.shown) == 3
    assert inner.shown[-1] is shown.image


def test_nothing_is_expected_before_the_first_frame_or_of_the_frame_that_was_tracked(tracker, inner):
    tracker.expect(frame(0))
    assert inner.shown == []
    first = frame(0)
    asked(tracker, (), first)
    tracker.expect(first)
    assert len(inner.shown) == 1


def test_without_a_face_nothing_is_done_ahead(tracker, inner, monkeypatch):
    monkeypatch.setattr(inner, "track", lambda *asked: ())
    asked(tracker, (), frame(0))
    monkeypatch.undo()
    tracker.expect(frame(1))
    assert inner.shown == []


def test_a_failure_ahead_is_told_at_the_frames_own_turn(tracker, inner):
    tracks = asked(tracker, (), frame(0))
    inner.fails = True
    second = frame(1)
    tracker.expect(second)
    with pytest.raises(MemoryError):
        asked(tracker, tracks, second)
    inner.fails = False
    assert len(asked(tracker, tracks, second)) == 1


def test_detections_are_the_trackers(tracker):
    assert tracker.detect(frame(0).image, 0.2) == ["seen"]
