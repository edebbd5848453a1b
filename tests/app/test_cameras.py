"""The list of cameras, as Linux tells it."""

import sys
from pathlib import Path

import pytest

from app.cameras import Camera, list_cameras


def _device(folder: Path, node: str, **files: str) -> None:
    (folder / node).mkdir()
    for name, text in files.items():
        (folder / node / name).write_text(text + "\n", encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells without opening them")
def test_cameras_are_listed_by_name_without_their_metadata_nodes(tmp_path: Path) -> None:
    _device(tmp_path, "video10", name="Capture card", index="0")
    _device(tmp_path, "video0", name="Webcam", index="0")
    _device(tmp_path, "video1", name="Webcam", index="1")
    _device(tmp_path, "video2")
    assert list_cameras(tmp_path) == (Camera(0, "Webcam"), Camera(2, "Camera 2"), Camera(10, "Capture card"))
    assert list_cameras(tmp_path / "none") == ()


def test_elsewhere_the_first_indices_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert [camera.index for camera in list_cameras()] == [0, 1, 2, 3]
