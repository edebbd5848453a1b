"""`rigid-live generators`: scores that know a perfect generator from a worse one, a report and a picture."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import UsageError
from models.evaluation import generators
from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig
from models.perceptual import StLpips
from tests.models.waves import random_trunk

CONFIG = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)
CODES = 5


def in_torch(network: nn.Module, example: Tensor, precision: str = "f32") -> Callable[[NDArray[np.float32]], object]:
    """Stands for `compile_network`, which takes longer than these networks run."""
    return lambda ws: network(torch.from_numpy(ws)).detach().numpy()


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MobileStyleGan:
    """The wide generator is the teacher itself; the light one is the teacher with a head that is a little off."""
    torch.manual_seed(0)
    wide, light = (MobileStyleGan(CONFIG).eval().requires_grad_(False) for _ in range(2))
    light.load_state_dict(wide.state_dict())
    light.to_rgb.weight.mul_(0.8)

    def targets(count: int, exact: int, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        ws = torch.randn(count, CONFIG.latent_rows + 2, 512, generator=torch.Generator().manual_seed(seed))
        made = wide(ws[:, : CONFIG.latent_rows]).clamp(-1, 1).permute(0, 2, 3, 1)
        return ws.numpy(), ((made + 1) * 127.5).round().to(torch.uint8).numpy()

    monkeypatch.setattr(generators, "teacher_targets", targets)
    monkeypatch.setattr(generators, "TARGETS", 9)
    monkeypatch.setattr(generators, "HELD_OUT", 2)
    monkeypatch.setattr(generators, "load_wide_generator", lambda folder: wide)
    monkeypatch.setattr(generators, "load_light_generator", lambda folder: light)
    monkeypatch.setattr(generators, "compile_network", in_torch)
    monkeypatch.setattr(generators, "checkpoint_dir", lambda name: tmp_path / name)
    monkeypatch.setattr(StLpips, "load", random_trunk)
    monkeypatch.setattr(generators, "slider_responses", lambda networks, count: {"age": dict.fromkeys(networks, count)})
    return wide


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    generators.add_arguments(parser)
    return parser.parse_args(list(words))


def test_a_report_tells_the_better_generator_and_a_picture_is_drawn(teacher: MobileStyleGan, tmp_path: Path) -> None:
    (tmp_path / "generator").mkdir()
    narrow = {"network": "narrow", "widths": [16, 16, 8], "inner": [8, 8, 8], "gflop": 0.1}
    lines = [
        {**narrow, "psnr_db": 9.0, "st_lpips": 0.9},
        {**narrow, "network": "wide", "psnr_db": 50.0, "st_lpips": 0.0},
        {**narrow, "psnr_db": 20.0, "st_lpips": 0.2},
    ]
    (tmp_path / "generator" / "compression.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    report, plot = tmp_path / "r.json", tmp_path / "p.svg"
    assert generators.run(arguments("--codes", str(CODES), "--report", str(report), "--plot", str(plot))) == 0
    told = json.loads(report.read_text())
    wide, light = told["runs"]
    assert (wide["generator"], light["generator"]) == ("wide", "light")
    assert wide["psnr_db"] > 45  # its own pictures, rounded to 8 bits
    assert light["psnr_db"] < wide["psnr_db"] - 3
    assert wide["st_lpips"] < light["st_lpips"]
    assert (wide["detail"], light["detail"]) == (pytest.approx(1.0, abs=0.02), pytest.approx(0.64, abs=0.02))
    assert wide["frechet"] == pytest.approx(told["frechet_floor"], rel=0.1)
    assert wide["frechet"] < light["frechet"]
    assert min(wide["ms"], wide["ms_batch_of_two"], wide["parameters_m"], wide["gflop"]) > 0
    assert [line["psnr_db"] for line in told["closed_form"]] == [20.0], (
        "the newest run of a shape, without the wide one"
    )
    assert told["edit_responses"] == {"age": {"wide": 24, "light": 24}}
    assert plot.read_text().count("<svg") == 1
    assert "light, trained" in plot.read_text()


def test_too_few_codes_are_refused() -> None:
    with pytest.raises(UsageError, match="--codes is 1; at least 2"):
        generators.run(arguments("--codes", "1"))
    with pytest.raises(UsageError, match="--edit-codes is 0; at least 2"):
        generators.run(arguments("--edit-codes", "0"))
