"""Stamps survive what video does to pixels, and what is no stamp is not taken for one."""

from pathlib import Path

import av
import numpy as np
import pytest

from app.bench.stamp import GlassSink, StampedSource, stamped, time_since
from engine.errors import UsageError
from engine.frames import EditedFrame, ImageU8, Phase
from engine.policies import blurred
from tests.app.clips import write_clip
from tests.app.fakes import EndlessSource

TIMES_US = (0, 1, 123_456_789, (1 << 32) - 5, (1 << 32) + 7, 1 << 45)


def noise(width: int = 320, height: int = 180) -> ImageU8:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("time_us", TIMES_US)
def test_the_time_is_read_back(time_us: int) -> None:
    image = noise()
    before = image.copy()
    assert time_since(stamped(image, time_us), time_us + 40_000) == 40_000
    np.testing.assert_array_equal(image, before)


def test_it_survives_lossy_video(tmp_path: Path) -> None:
    images = [stamped(np.full((180, 320, 3), 90, np.uint8), time_us) for time_us in TIMES_US]
    path = write_clip(tmp_path / "stamps.mp4", images, options={"crf": "28"})
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert [time_since(image, time_us + 7) for image, time_us in zip(decoded, TIMES_US, strict=True)] == [7] * 6


@pytest.mark.parametrize("level", [0, 127, 255])
def test_a_plain_corner_is_no_stamp(level: int) -> None:
    assert time_since(np.full((180, 320, 3), level, np.uint8), 5) is None


def test_a_blurred_or_small_frame_has_none() -> None:
    assert time_since(blurred(stamped(noise(), 123_456)), 200_000) is None
    assert time_since(noise(100, 100), 5) is None
    with pytest.raises(UsageError, match="too small for a stamp"):
        stamped(noise(100, 100), 5)


def test_a_frame_that_waits_is_as_old_as_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [5_000_000_000]
    monkeypatch.setattr("app.bench.stamp.time.monotonic_ns", lambda: now_ns[0])
    sink, source = GlassSink(), StampedSource(EndlessSource(size=(320, 180), interval_s=0.0))
    first, second = source.read(), source.read()
    for wait_ms, frame in ((30, first), (20, second), (0, first)):  # the last one is held: 50 ms old by then
        now_ns[0] += wait_ms * 1_000_000
        sink.write(EditedFrame(0, 0, frame.image, Phase.TRACKING, {}), frame.image)
    sink.write(EditedFrame(0, 0, blurred(noise()), Phase.HOLDING, {}), noise())
    assert (sink.read, sink.unreadable) == (3, 1)
    assert sink.ages.percentiles() == {"p50": 50.0, "p95": 50.0, "p99": 50.0, "max": 50.0}
