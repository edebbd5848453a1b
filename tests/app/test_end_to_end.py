"""The program with the real engine under it, on a bundle of tiny networks with random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli import main
from tests.app.clips import clip, numbers_in, sound_packets
from tests.engine import tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle.build(tmp_path / "tiny")


def test_a_clip_without_a_face_comes_out_whole(tmp_path: Path, bundle: Path) -> None:
    source = clip(tmp_path / "in.mp4", 10, sound="aac")
    words = ["run", "--source", str(source), "--bundle", str(bundle), "--sink", str(tmp_path / "out.mp4")]
    assert main([*words, "--report", str(tmp_path / "r.json"), "--precision", "fp32"]) == 0
    assert numbers_in(tmp_path / "out.mp4") == list(range(10))
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(source)
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["phases"] == {"searching": 10, "anchoring": 0, "tracking": 0, "holding": 0}


def test_a_real_face_is_followed_and_edited(tmp_path: Path, bundle: Path, clips: Path) -> None:
    source, report = clips / "pyfeat_single_face.mp4", tmp_path / "r.json"
    words = ["run", "--source", str(source), "--bundle", str(bundle), "--set", "smile=0.8", "--frames", "8"]
    assert main([*words, "--report", str(report), "--precision", "fp32", "--sink", "null"]) == 0
    phases = json.loads(report.read_text(encoding="utf-8"))["phases"]
    assert phases["anchoring"] >= 1
    assert phases["tracking"] >= 6


def _flip_a_byte(bundle: Path) -> None:
    graph = next(bundle.glob("*.onnx"))
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def _raise_the_version(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"version": 99}), encoding="utf-8")


@pytest.mark.parametrize(("spoil", "code"), [(_flip_a_byte, 1), (_raise_the_version, 1), (lambda bundle: None, 2)])
def test_what_the_engine_refuses_is_one_line(
    tmp_path: Path, bundle: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], None], code: int
) -> None:
    spoil(bundle)
    out = tmp_path / "out.mp4"
    words = ["run", "--source", str(clip(tmp_path / "in.mp4")), "--bundle", str(bundle), "--sink", str(out)]
    assert main([*words, "--set", "no_such_slider=1", "--precision", "fp32"]) == code
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "tiny"]
