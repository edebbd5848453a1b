"""`rigid-live evaluate`: what it refuses, and a whole evaluation of the tiny bundle on a real clip."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import RigidError, SourceError, UnknownAttribute, UsageError, ValueOutOfRange
from models.evaluation import command
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
        (["absent.mp4"], SourceError, "absent.mp4"),
    ],
)
def test_what_cannot_be_evaluated(arguments: list[str], error: type[RigidError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        run(*arguments, "--report", tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def test_an_attribute_that_the_bundle_lacks(tmp_path: Path) -> None:
    bundle = tiny_bundle.build(tmp_path / "tiny")
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UnknownAttribute, match=r"wings.*age, smile"):
        run(tmp_path / "clip.mp4", "--bundle", bundle, "--set", "wings=1", "--report", tmp_path / "report.json")


@pytest.mark.slow
def test_a_whole_evaluation(clips: Path, pinned: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("st_lpips_alex", "spynet", "dlib_face", "dlib_landmarks5", "age", "gender", "face_mesh"):
        pinned(name)
    bundle = tiny_bundle.build(tmp_path / "tiny")
    report, clip = tmp_path / "report.json", clips / "pyfeat_single_face.mp4"
    options = ["--set", "smile=0.8", "--variants", "full,per_frame", "--frames", "5", "--stills", "2", "--fast"]
    assert run(clip, "--bundle", bundle, "--faces", clips.parent, "--report", report, *options) == 0
    written = json.loads(report.read_text())
    assert [(run["clip"], run["variant"]) for run in written["runs"]] == [(clip.name, "full"), (clip.name, "per_frame")]
    for block in written["runs"]:
        names = ("mse_x100", "st_lpips", "warp_error", "tl_id", "tg_id", "seconds_per_100_frames", "response_smile")
        assert all(math.isfinite(block[name]) for name in names)
        assert block["frames_scored"] == block["frames_in"] - 1 == 4
    full, per_frame = written["runs"]
    assert full["mse_x100"] != per_frame["mse_x100"]
    assert full["source_warp_error"] == per_frame["source_warp_error"] < 50
    (faces,) = written["faces"]
    assert faces["stills"] == 2
    assert faces["age_kept"] == pytest.approx(faces["age_with_map"] / faces["age_without_map"])
    assert "## Clips" in report.with_suffix(".md").read_text()
