"""Fresh weights before shipped ones, and shipped ones out of the bundle's own graphs."""

import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from engine.bundle_build import recipe_folder
from engine.errors import CheckpointError
from models.checkpoints.published import trained_tensors
from models.checkpoints.weights import fitting, load_weights, save_fresh
from models.mobile_stylegan import LIGHT_256, WIDE_256, MobileStyleGan, first_narrower
from models.recurrent import RecurrentEncoder
from models.training.encoder import load_encoder
from models.training.recurrent import load_recurrent


def test_fresh_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    weight = torch.linspace(-1, 1, 7)
    save_fresh("recurrent", {"convs.0.weight": weight}, tmp_path)
    assert torch.equal(load_weights("recurrent", tmp_path)["convs.0.weight"], weight.half().float())
    assert [path.name for path in tmp_path.iterdir()] == ["recurrent.safetensors"]


def test_a_full_disk_keeps_the_weights_before(tmp_path: Path) -> None:
    save_fresh("recurrent", {"weight": torch.ones(3)}, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"recurrent\.safetensors cannot be written"):
            save_fresh("recurrent", {"weight": torch.zeros(100_000)}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(load_weights("recurrent", tmp_path)["weight"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["recurrent.safetensors"]


def test_without_fresh_weights_what_ships_is_loaded(tmp_path: Path) -> None:
    shipped, again = load_weights("recurrent", tmp_path), load_weights("recurrent")
    assert set(dict(RecurrentEncoder().named_parameters())) <= set(shipped)
    assert torch.equal(shipped["convs.0.weight"], again["convs.0.weight"])


def test_every_network_takes_its_shipped_weights() -> None:
    recurrent, encoder = load_recurrent(), load_encoder()
    assert recurrent.map_head.to_map.weight.any()
    assert encoder.expand.weight.any()


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"convs\.0\.weight is \(2,\)"):
        fitting({"convs.0.weight": torch.zeros(2)}, dict(RecurrentEncoder().named_parameters()), "recurrent")


def test_generator_graph_holds_no_published_weights() -> None:
    """Only what we trained lies in the recipe; the pinned file's tensors are references."""
    ours = {name for name, tensor in load_weights("generator").items() if tensor.numel() > 64}
    assert {"to_rgb.weight", "layers.3.conv1.pointwise", "layers.4.conv2.pointwise"} <= ours
    trained = trained_tensors(MobileStyleGan(LIGHT_256), first_narrower(WIDE_256, LIGHT_256))
    assert ours - trained.keys() == {"order_512"}
    assert (recipe_folder("default") / "generator.onnx").stat().st_size < 3_000_000


def test_large_matrices_come_back_from_int8() -> None:
    """The recipe holds them in one byte a number."""
    model = onnx.load(recipe_folder("default") / "encoder.onnx", load_external_data=False)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored["reduce.weight.int8"].dtype == np.int8
    found = load_weights("encoder")["reduce.weight"].numpy()
    assert found.shape == stored["reduce.weight.int8"].shape
    steps = found / stored["reduce.weight.row_scale"][:, None] / stored["reduce.weight.column_scale"]
    np.testing.assert_allclose(steps, stored["reduce.weight.int8"], atol=1e-3)
