"""`rigid-live evaluate`: what it refuses, and a whole evaluation of the tiny bundle on a real clip."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.cli import main
from engine.errors import RigidError, SourceError, UnknownAttribute, UsageError, ValueOutOfRange
from engine.recurrence import VARIANTS
from models.evaluation import command
from models.evaluation.judges import Judges
from models.evaluation.settings import RETRAINED, add_arguments, from_arguments
from tests.engine import tiny_bundle


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ([], UsageError, "nothing to evaluate"),
        (["clip.mp4", "--variants", "full,best"], UsageError, "best"),
        (["clip.mp4", "--set", "smile"], UsageError, "NAME=VALUE"),
        (["clip.mp4", "--set", "smile=1.5"], ValueOutOfRange, "smile"),
        (["clip.mp4", "--set", "smile=nan"], ValueOutOfRange, "smile"),
        (["clip.mp4", "--frames", "1"], UsageError, "--frames"),
        (["clip.mp4", "--windows", "3"], UsageError, "--windows"),
        (["clip.mp4", "--retrained", "no_nm"], UsageError, "NAME=DIR"),
        (["clip.mp4", "--retrained", "no_eyes=out"], UsageError, "no_eyes.*no_tcc"),
        (["clip.mp4", "--retrained", "no_nm=a", "--retrained", "no_nm=b"], UsageError, "twice"),
        (["clip.mp4", "--report", "report.html"], UsageError, "JSON"),
        (["absent.mp4"], SourceError, "absent.mp4"),
    ],
)
def test_what_cannot_be_evaluated(arguments: list[str], error: type[RigidError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        run("--report", tmp_path / "report.json", *arguments)
    assert not list(tmp_path.iterdir())


def test_an_attribute_that_the_bundle_lacks(tmp_path: Path) -> None:
    bundle = tiny_bundle.build(tmp_path / "tiny")
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UnknownAttribute, match=r"wings.*age, smile"):
        run(tmp_path / "clip.mp4", "--bundle", bundle, "--set", "wings=1", "--report", tmp_path / "report.json")


def test_retrained_bundles_come_under_what_they_lack() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["clip.mp4", "--retrained", "no_nm=out/a=b", "--retrained", "no_ibfcc=out/c", "--variants", "full,full"]
    settings = from_arguments(parser.parse_args(words))
    assert settings.retrained == {"no_nm": "out/a=b", "no_ibfcc": "out/c"}
    assert settings.variants == ("full",)
    assert {RETRAINED[name] for name in settings.retrained} == {"no_nm", "full"}
    assert set(RETRAINED.values()) <= set(VARIANTS)


def noise_clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, (160, 120))
    for n in range(4):
        writer.write(np.random.default_rng(n).integers(0, 256, (120, 160, 3)).astype(np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("bad", ["empty folder", "folder without images", "unreadable image", "no video"])
def test_bad_input_is_one_line(bad: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "broken.png").write_text("no image")
    arguments, words = {
        "empty folder": (["in"], "in holds no clip"),
        "folder without images": (["--faces", "in"], "in holds no image"),
        "unreadable image": (["--faces", "."], "broken.png cannot be read"),
        "no video": (["absent.mov"], "absent.mov does not exist"),
    }[bad]
    paths = [word if word.startswith("--") else str(tmp_path / word) for word in arguments]
    assert main(["evaluate", *paths, "--report", str(tmp_path / "out.json")]) == 1
    assert words in one_line(capfd)
    assert not (tmp_path / "out.json").exists()


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    """What went to stderr, which must be one line."""
    text = capfd.readouterr().err
    assert text.count("\n") == 1, text
    assert text.startswith("rigid-live: ")
    return text


@pytest.mark.parametrize(("name", "words"), [("noise.avi", "shows no face"), ("text.mp4", "cannot be decoded")])
def test_a_clip_without_a_face_is_one_line(
    name: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    noise_clip(tmp_path / "noise.avi")
    monkeypatch.setattr(Judges, "load", lambda *settings: Judges(None, None, None, None, None))
    bundle = tiny_bundle.build(tmp_path / "tiny")
    arguments = [str(tmp_path / name), "--bundle", str(bundle), "--report", str(tmp_path / "out.json")]
    assert main(["evaluate", *arguments]) == 1
    assert f"{name} {words}" in one_line(capfd)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_whole_evaluation(clips: Path, pinned: Callable[[str], Path], tmp_path: Path) -> None:
    for name in (
        "st_lpips_alex",
        "spynet",
        "i3d",
        "dlib_face",
        "dlib_landmarks5",
        "age",
        "gender",
        "face_mesh",
        "iris",
        "emotions",
    ):
        pinned(name)
    bundle = tiny_bundle.build(tmp_path / "tiny")
    report, clip = tmp_path / "report.json", clips / "pyfeat_single_face.mp4"
    options = ["--set", "smile=0.8", "--variants", "full,per_frame", "--frames", "20", "--stills", "2", "--fast"]
    options += ["--retrained", f"no_nm={tiny_bundle.build(tmp_path / 'lacking', seed=1)}"]
    assert run(clip, "--bundle", bundle, "--faces", clips.parent, "--report", report, *options) == 0
    written = json.loads(report.read_text())
    assert [(run["variant"], run["ablation"]) for run in written["runs"]] == [
        ("full", "switched off"),
        ("per_frame", "switched off"),
        ("no_nm", "retrained without"),
    ]
    for block in written["runs"]:
        names = (
            "mse_x100",
            "st_lpips",
            "warp_error",
            "warp_error_frame",
            "warp_error_shown",
            "tl_id",
            "tg_id",
            "fvd",
            "fvd_edit",
        )
        more = ("fvd_floor", "seconds_per_100_frames", "response_smile", "source_warp_error_frame")
        assert all(math.isfinite(block[name]) for name in (*names, *more))
        assert block["frames_scored"] == block["frames_in"] - 1 == 19
        assert block["windows"] == 4
    full, per_frame, _ = written["runs"]
    assert full["mse_x100"] != per_frame["mse_x100"]
    assert full["source_warp_error"] == per_frame["source_warp_error"] < 50
    (faces,) = written["faces"]
    assert faces["stills"] == 2
    assert faces["age_kept"] == pytest.approx(faces["age_with_map"] / faces["age_without_map"])
    assert sum(group["stills"] for group in written["face_groups"] if "gender" in group["group"]) == 2
    text = report.with_suffix(".md").read_text()
    for title in (
        "Still faces by group",
        "Ablation: switched off",
        "Ablation: retrained without",
        "Paired differences",
        "Clips",
    ):
        assert f"## {title}" in text
    assert "data:image/jpeg;base64," in report.with_suffix(".html").read_text()
