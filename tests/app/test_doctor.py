"""The doctor says what is there and why the rest is not."""

from pathlib import Path

import pytest

from app.cli import main
from app.doctor import _torch_tensorrt, _virtual_camera, check_source, examine
from tests.app.clips import clip, rotate_by_metadata


def test_everything_is_examined_and_every_no_has_a_reason(empty_cache: Path) -> None:
    findings = list(examine())
    topics = {finding.topic for finding in findings}
    assert {"versions", "processor", "gpu", "assets to run", "default bundle", "virtual camera", "window"} <= topics
    assert {"runtime openvino", "runtime onnxruntime", "runtime tensorrt"} <= topics
    assert all(finding.text for finding in findings)
    assets = next(finding for finding in findings if finding.topic == "assets to run")
    assert assets.state == "no"
    assert "rigid-live assets pull" in assets.text


def test_a_file_is_described(tmp_path: Path) -> None:
    path = clip(tmp_path / "phone.mp4", sound="aac")
    rotate_by_metadata(path, (0, 1, -1, 0))
    said = {finding.topic: finding.text for finding in check_source(str(path))}
    assert said["video"] == "h264 yuv420p 64x48, 25 frames/s"
    assert said["rotation"].startswith("-90")
    assert said["first frame"].startswith("48x64")
    assert "aac" in said["sound"]
    assert said["readable"].startswith("12 frames")


def test_the_doctor_prints_one_line_a_finding(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--check", str(clip(tmp_path / "a.mp4"))]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert any(line.startswith("ok readable: 12 frames") for line in lines)


def test_the_virtual_camera_is_told_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [(False, "v4l2loopback: no device; `sudo modprobe v4l2loopback`"), (True, "RIGID Live (PipeWire)")]
    monkeypatch.setattr("app.virtual_camera.probe", lambda: said)
    findings = [(finding.state, finding.text) for finding in _virtual_camera()]
    assert findings == [("no", said[0][1]), ("yes", "RIGID Live (PipeWire), with `--sink virtual`")]


@pytest.mark.parametrize(
    ("there", "state", "words"),
    [
        ((), "no", "neither torch-tensorrt nor torch-tensorrt-rtx is installed"),
        (("torch-tensorrt-rtx",), "note", "torch-tensorrt-rtx 2.13.0; it needs an NVIDIA card"),
        (("torch-tensorrt", "torch-tensorrt-rtx"), "no", "bring the same module"),
    ],
)
def test_which_torch_tensorrt_there_is(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], state: str, words: str
) -> None:
    monkeypatch.setattr("app.doctor._version", lambda package: "2.13.0" if package in there else "")
    finding = _torch_tensorrt()
    assert finding.state == state
    assert words in finding.text
