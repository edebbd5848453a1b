"""A camera gives stamped frames, comes back after it was unplugged, and is missed in one line."""

import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from app.camera import CameraSource
from app.sources import open_source
from engine.errors import SourceError
from tests.app.clips import number_of, numbered

Plug = Callable[..., None]


class _FakeCapture:
    """What cv2.VideoCapture is to the program. script: for each opening, the frames it gives; None: not there."""

    script: Iterator[list[int] | None]

    def __init__(self, index: int) -> None:
        self._frames = next(self.script, None)

    def isOpened(self) -> bool:
        return self._frames is not None

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self._frames:
            return False, None
        return True, numbered(self._frames.pop(0))

    def get(self, what: int) -> float:
        return 30.0 if what == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        pass


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Puts a camera with a script in the place of the real ones."""

    def put(*script: list[int] | None) -> None:
        monkeypatch.setattr(_FakeCapture, "script", iter(script), raising=False)
        monkeypatch.setattr("cv2.VideoCapture", _FakeCapture)
        monkeypatch.setattr("app.camera._RECONNECT_EVERY_S", 0.01)

    return put


def test_frames_are_numbered_and_stamped_with_their_arrival(plug: Plug) -> None:
    plug([1, 2, 3])
    before_ns = time.monotonic_ns()
    with open_source("0") as camera:
        assert camera.info.live
        assert (camera.info.width_px, camera.info.height_px, camera.info.fps) == (64, 48, 30.0)
        frames = [camera.read() for _ in range(3)]
    assert [number_of(frame.image) for frame in frames if frame] == [1, 2, 3]
    assert [frame.index for frame in frames if frame] == [0, 1, 2]
    stamps = [before_ns, *(frame.captured_ns for frame in frames if frame), time.monotonic_ns()]
    assert stamps == sorted(stamps)


def test_an_unplugged_camera_is_waited_for(plug: Plug, caplog: pytest.LogCaptureFixture) -> None:
    plug([1, 2], None, None, [7, 8])
    with CameraSource(0) as camera:
        frames = [camera.read() for _ in range(4)]
    assert [number_of(frame.image) for frame in frames if frame] == [1, 2, 7, 8]
    assert "is gone" in caplog.text
    assert "is back" in caplog.text


def test_a_camera_that_does_not_come_back_ends_the_run(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.camera._RECONNECT_FOR_S", 0.05)
    plug([1])
    with CameraSource(0) as camera:
        camera.read()
        with pytest.raises(SourceError, match="did not come back"):
            camera.read()


def test_cancelling_ends_the_wait(plug: Plug) -> None:
    plug([1])
    with CameraSource(0) as camera:
        camera.read()
        camera.cancel()
        assert camera.read() is None


def test_a_camera_without_a_picture_is_refused(plug: Plug) -> None:
    plug([])
    with pytest.raises(SourceError, match="gave no frame"):
        open_source("0")


def test_a_missing_camera_is_missed_silently_but_for_the_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="camera 93 is not there"):
        open_source("93")
    assert capfd.readouterr() == ("", "")
