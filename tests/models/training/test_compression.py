"""`rigid-live train compression`: what it writes and tells, and what it refuses."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import UsageError
from models.checkpoints.published import trained_tensors
from models.checkpoints.weights import load_weights
from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig
from models.training import compression, generator
from models.training.samples import image_tensor

TINY = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    compression.add_arguments(parser)
    return parser.parse_args(list(flags))


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MobileStyleGan:
    """A tiny network in the place of the wide generator, with pictures of its own as the teacher's."""
    torch.manual_seed(0)
    network = MobileStyleGan(TINY).eval().requires_grad_(False)
    rng = torch.Generator().manual_seed(1)
    codes = torch.randn(8, TINY.latent_rows + 2, 512, generator=rng)
    made = network(codes[:, : TINY.latent_rows]).clamp(-1, 1)
    pictures = ((made.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()

    def config(widths: tuple[int, ...], inner: tuple[int, ...], noise_upto: int) -> MobileStyleGanConfig:
        return MobileStyleGanConfig(widths, 16, inner, noise_upto)

    def cut(config: MobileStyleGanConfig) -> MobileStyleGan:
        student = MobileStyleGan(config)
        lower = {n: t for n, t in network.state_dict().items() if not n.startswith(("layers.2", "to_rgb"))}
        student.load_state_dict(lower, strict=False)
        return student.requires_grad_(False)

    def draw(count: int, rows: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, rows, 512, generator=rng)

    monkeypatch.setattr(compression, "WIDE_256", TINY)
    monkeypatch.setattr(compression, "MobileStyleGanConfig", config)
    monkeypatch.setattr(compression, "load_wide_generator", lambda folder: network)
    monkeypatch.setattr(compression, "cut_generator", cut)
    for module in (compression, generator):
        monkeypatch.setattr(module, "HELD_OUT", 4)
    monkeypatch.setattr(generator, "teacher_targets", lambda count, exact: (codes.numpy(), pictures))
    monkeypatch.setattr(compression.CodeSampler, "open", lambda: SimpleNamespace(draw_plus=draw))
    monkeypatch.setattr(compression, "checkpoint_dir", lambda name: tmp_path / name)
    return network


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_narrow_network_is_scored_beside_the_wide_one_then_trained_and_written(wide: MobileStyleGan, tmp_path: Path):
    shape = ["--widths", "16,16,12", "--inner", "16,16,8", "--codes", "6", "--patch", "12"]
    loop = ["--steps", "2", "--batch", "2", "--workers", "0", "--checkpoints", str(tmp_path / "run")]
    assert compression.run(arguments(*shape, *loop, "--out", str(tmp_path))) == 0
    student = MobileStyleGan(MobileStyleGanConfig((16, 16, 12), 16, (16, 16, 8)))
    left = load_weights("generator", tmp_path)
    assert left.keys() == trained_tensors(student, 2).keys()
    assert not student.load_state_dict(left, strict=False).unexpected_keys
    told = [json.loads(line) for line in (tmp_path / "generator" / "compression.jsonl").read_text().splitlines()]
    theirs, ours = told
    assert (theirs["network"], ours["network"]) == ("wide", "narrow")
    assert theirs["psnr_db"] > 45  # its own pictures, rounded to 8 bits
    assert ours["psnr_db"] < theirs["psnr_db"]
    assert theirs["detail"] == pytest.approx(1.0, abs=0.05)
    assert ours["gflop"] < theirs["gflop"]
    assert min(ours["ms_batch_of_two"], theirs["ms_batch_of_two"]) > 0
    assert ours["inner"] == [16, 16, 8]


def test_the_score_of_another_picture_is_its_squared_error(wide: MobileStyleGan):
    ws = torch.randn(1, TINY.latent_rows, 512, generator=torch.Generator().manual_seed(3))
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    error = float((wide(ws).clamp(-1, 1) - image_tensor(picture)).square().mean())
    found = compression.score(wide, ws, picture)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(4 / error), rel=1e-4)
    assert found["st_lpips"] > 0.05


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inner", "512,512"], "--inner is 512,512; 5 widths up to"),
        (["--inner", "512,512,512,512,512"], "up to 512,512,512,512,256"),
        (["--inner", "512,512,512,512,256", "--widths", "512,512,512,512,256"], "narrower ones were expected"),
        (["--inner", "512,512,512,512,0"], "--inner"),
        (["--inner", "512,512,512,512,128", "--widths", "512,512,512,510,256"], "multiples of 4"),
        (["--inner", "512,512,512,512,128", "--codes", "0"], "--codes is 0"),
        (["--patch", "5"], "--patch is 5; 8 to 32"),
        (["--targets", "100"], "--targets is 100; at least 101"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(flags: list[str], message: str):
    with pytest.raises(UsageError, match=message) as caught:
        compression.run(arguments(*flags))
    assert "\n" not in str(caught.value)
