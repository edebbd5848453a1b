"""The ceiling: optimisation comes nearer the longer it goes on, a map helps, and a report adds up."""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.errors import UsageError
from models.evaluation import ceiling
from models.evaluation.ceiling import Painter, descend
from tests.models.waves import CODE_ROWS, SIDE, WIDTH, Waves, random_trunk, wave_painter

STEPS = 32


class Networks:
    """An encoder that always gives one code, and a generator with maps of one channel."""

    def __init__(self) -> None:
        noise = {"noise": ("B", 1, SIDE, SIDE)}
        self.generator = argparse.Namespace(spec=argparse.Namespace(inputs=noise))
        self.closed = False

    def encoder_anchor(self, crop: np.ndarray) -> dict[str, np.ndarray]:
        return {"ws": np.zeros((len(crop), CODE_ROWS, WIDTH), np.float32)}

    def close(self) -> None:
        self.closed = True


class Embedder:
    """Takes the mean colour for the person."""

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return crops.reshape(len(crops), -1, 3).mean(axis=1).astype(np.float32)


@pytest.fixture
def crop() -> torch.Tensor:
    """What the generator can draw, and a pattern that only a map can add."""
    rng = np.random.default_rng(0)
    ws = torch.from_numpy((0.3 * rng.standard_normal((1, CODE_ROWS, WIDTH))).astype(np.float32))
    pattern = torch.from_numpy((0.3 * rng.standard_normal((1, 1, SIDE, SIDE))).astype(np.float32))
    return Waves()(ws, pattern).clamp(-1, 1)


def test_it_comes_nearer_the_longer_it_goes_on_and_nearest_with_a_map(crop: torch.Tensor) -> None:
    judges = ceiling.Judges(Waves(), random_trunk(), Embedder())
    found = ceiling.reconstruct(crop, Networks(), wave_painter(), judges, STEPS)
    assert list(found["code"]) == ["4", "8", "16", "32", "moved"]
    errors = [found["encoder"], *(found["code"][mark] for mark in ("4", "16", "32")), found["code_and_map"]["32"]]
    assert [each["mse_x100"] for each in errors] == sorted((each["mse_x100"] for each in errors), reverse=True)
    assert found["code_and_map"]["32"]["mse_x100"] < 0.9 * found["code"]["32"]["mse_x100"]
    assert found["code"]["moved"]["rms"] > 0.05


def test_means_are_taken_of_every_number_of_every_face() -> None:
    runs = [{"face": str(n), "encoder": {"mse": n}, "code": {"8": {"mse": 2.0 * n}}} for n in (1, 3)]
    assert ceiling.means(runs) == {"encoder": {"mse": 2.0}, "code": {"8": {"mse": 4.0}}}


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    ceiling.add_arguments(parser)
    return parser.parse_args(list(words))


def test_the_report_holds_every_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = Networks()
    for name in ("00.png", "01.png"):
        cv2.imwrite(
            str(tmp_path / name), np.random.default_rng(len(name)).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        )
    monkeypatch.setattr(ceiling, "read_faces", lambda paths: np.full((len(paths), SIDE, SIDE, 3), 90, np.uint8))
    monkeypatch.setattr(ceiling, "open_bundle", lambda folder: None)
    monkeypatch.setattr(ceiling, "bundle_path", lambda name: None)
    monkeypatch.setattr(ceiling, "open_networks", lambda *_: networks)
    monkeypatch.setattr(ceiling, "load_light_generator", Waves)
    monkeypatch.setattr(ceiling.StLpips, "load", random_trunk)
    monkeypatch.setattr(ceiling.FaceEmbedder, "load", Embedder)
    monkeypatch.setattr(Painter, "open", wave_painter)
    report = tmp_path / "r.json"
    words = ("--faces", str(tmp_path), "--steps", "4", "--threads", "1", "--report", str(report))
    assert ceiling.run(arguments(*words, "--stills", "1")) == 0
    first = json.loads(report.read_text())["runs"]
    assert ceiling.run(arguments(*words)) == 0
    told = json.loads(report.read_text())
    assert told["runs"][:1] == first
    assert [run["face"] for run in told["runs"]] == ["00.png", "01.png"]
    assert told["settings"]["steps"] == 4
    assert told["means"]["code_and_map"]["4"] == pytest.approx(told["runs"][0]["code_and_map"]["4"])
    assert networks.closed
    with pytest.raises(UsageError, match="move it away"):
        ceiling.run(arguments(*words, "--steps", "5"))
    assert json.loads(report.read_text()) == told


def test_a_file_that_is_no_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(UsageError, match="is not a report"):
        ceiling.runs_so_far(tmp_path / "r.json", {})


def test_no_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="start at 1"):
        ceiling.run(arguments("--faces", "x", "--steps", "0"))


def test_descending_ends_at_the_minimum_and_tells_each_step() -> None:
    place, told = torch.tensor([3.0, -2.0], requires_grad=True), []
    descend([(place, 0.2)], lambda: place.square().sum(), 100, told.append)
    assert place.abs().max() < 0.05
    assert told == list(range(1, 101))
