"""Fresh weights before shipped ones, and shipped ones out of the bundle's own graphs."""

from pathlib import Path

import pytest
import torch

from engine.bundle_build import recipe_folder
from engine.errors import CheckpointError
from models.checkpoints.weights import fitting, load_weights, save_fresh
from models.recurrent import RecurrentEncoder
from models.training.encoder import load_encoder
from models.training.recurrent import load_recurrent


def test_fresh_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    weight = torch.linspace(-1, 1, 7)
    save_fresh("recurrent", {"stem.weight": weight}, tmp_path)
    assert torch.equal(load_weights("recurrent", tmp_path)["stem.weight"], weight.half().float())
    assert [path.name for path in tmp_path.iterdir()] == ["recurrent.safetensors"]


def test_without_fresh_weights_what_ships_is_loaded(tmp_path: Path) -> None:
    shipped, again = load_weights("recurrent", tmp_path), load_weights("recurrent")
    assert set(dict(RecurrentEncoder().named_parameters())) <= set(shipped)
    assert torch.equal(shipped["stem.weight"], again["stem.weight"])


def test_every_network_takes_its_shipped_weights() -> None:
    recurrent, encoder = load_recurrent(), load_encoder()
    assert recurrent.to_map.weight.any()
    assert encoder.expand.weight.any()


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"stem\.weight is \(2,\)"):
        fitting({"stem.weight": torch.zeros(2)}, dict(RecurrentEncoder().named_parameters()), "recurrent")


def test_generator_graph_holds_no_published_weights() -> None:
    """Only what we trained lies in the recipe; the pinned file's tensors are references."""
    ours = {name for name, tensor in load_weights("generator").items() if tensor.numel() > 64}
    assert {"to_rgb.weight", "layers.4.conv2.pointwise"} <= ours
    allowed = ("layers.4.", "to_rgb.")
    assert all(name.startswith(allowed) for name in ours), sorted(ours)
    assert (recipe_folder("default") / "generator.onnx").stat().st_size < 3_000_000
