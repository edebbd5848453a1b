"""Only what is meant to count is counted, and faces that come out untouched are found out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.bench.contender import Contender
from app.bench.feed import Feed
from app.bench.settings import BenchSettings, Scene, Size
from engine.errors import UsageError
from engine.frames import CameraFrame, Controls, EditedFrame, Phase
from tests.app.clips import write_clip
from tests.app.fakes import EndlessSource

SMILE = Controls({"smile": 1.0})


class Editor:
    """Changes one pixel at each of the given places (x, y); notes the indices of the frames."""

    def __init__(self, *places: tuple[int, int]) -> None:
        self.seen: list[int] = []
        self._places = places

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        return self.begin(frame, controls)()

    def begin(self, frame: CameraFrame, controls: Controls) -> Callable[[], EditedFrame]:
        self.seen.append(frame.index)
        image = frame.image.copy()
        for x, y in self._places:
            image[y, x] += 1
        return lambda: EditedFrame(frame.index, frame.captured_ns, image, Phase.TRACKING, {"total": 1.0 + frame.index})

    def expect(self, frame: CameraFrame) -> None:
        pass

    def policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        raise AssertionError("no frame fails")


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Feed]:
    images = [np.full((96, 320, 3), 10 * index, np.uint8) for index in range(6)]
    source = write_clip(tmp_path / "clip.mp4", images, rate=50)
    return lambda **how: Feed(BenchSettings(source=str(source), **how))


def test_frames_follow_each_other_and_the_first_of_a_turn_do_not_count(clip: Callable[..., Feed]) -> None:
    editor = Editor((0, 0))
    contender = Contender(editor, SMILE, clip(), Scene(), lead_in=2)
    contender.warm_up(4)
    contender.take_turn(3)
    contender.take_turn(5)
    assert editor.seen == list(range(16))
    told = contender.as_json()
    assert told["frames_in"] == told["frames_out"] == 8
    assert told["stages_ms"]["total"] == {"p50": 12.5, "p95": 15.65, "p99": 15.93, "max": 16.0}
    assert told["dropped"] == 0
    assert "latency_ms" not in told
    assert contender.size == Size(320, 96)


def test_faces_that_come_out_untouched_are_found_out(clip: Callable[..., Feed]) -> None:
    scene = Scene(4, Size(640, 192))
    feed = clip(faces=(4,), size=(Size(640, 192),))
    for places, count in (((), 0), (((0, 0),), 1), (((0, 0), (319, 95)), 1), (((0, 0), (320, 0), (320, 96)), 3)):
        contender = Contender(Editor(*places), SMILE, feed, scene, lead_in=0)
        contender.warm_up(2)
        assert contender.as_json()["faces_edited"] == count


def test_paced_frames_have_their_ages(clip: Callable[..., Feed]) -> None:
    contender = Contender(Editor((300, 90)), SMILE, clip(pace=True), Scene(), lead_in=1)
    contender.warm_up(2)
    contender.take_turn(4)
    contender.take_turn(4)
    told = contender.as_json()
    assert told["frames_out"] == 8
    assert told["stamps_unreadable"] == 0
    assert 0 < told["glass_to_glass_ms"]["p50"] < 5000
    assert told["frames_in"] == told["frames_out"] + told["dropped"]
    assert told["latency_ms"]["p50"] > 0


def test_a_live_source_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bench.feed.open_source", lambda name: EndlessSource(name, size=(320, 96)))
    feed = Feed(BenchSettings(source="0"))
    assert feed.live
    contender = Contender(Editor((300, 90)), SMILE, feed, Scene(), lead_in=0)
    contender.warm_up(2)
    contender.take_turn(3)
    assert contender.as_json()["glass_to_glass_ms"]["p50"] > 0
    with pytest.raises(UsageError, match="is live"):
        Feed(BenchSettings(source="0", faces=(2,)))
