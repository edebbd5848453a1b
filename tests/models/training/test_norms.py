"""Batch norms between trainings."""

import pytest
import torch
from torch import nn

from engine.errors import CheckpointError
from models.training.norms import measure_statistics, unfold_norms


def test_statistics_are_those_of_the_batches() -> None:
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(99.0)
    measure_statistics(norm, [torch.full((2, 1, 4, 4), value) for value in (1.0, 3.0)])
    assert norm.running_mean.item() == pytest.approx(2.0)
    assert (norm.training, norm.momentum) == (False, 0.1)


def test_unfolded_weights_compute_what_the_folded_ones_do_in_both_modes() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 1))
    folded = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 1))
    exported = {"0.weight": folded[0].weight, "0.weight_bias": folded[0].bias, "val_7": torch.zeros(1)}
    exported |= {"3.weight": folded[2].weight, "3.bias": folded[2].bias}
    inputs = 3 * torch.randn(64, 2, 8, 8)
    unfold_norms(network, exported, inputs)
    assert torch.allclose(network(inputs), folded(inputs), atol=1e-5)
    assert torch.allclose(network.train()(inputs), folded(inputs), atol=1e-2)
    assert network[1].running_var.min() > 0.1


@pytest.mark.parametrize("absent", ["0.weight", "0.weight_bias"])
def test_exported_weights_that_do_not_fit_are_refused(absent: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3))
    exported = {"0.weight": torch.zeros(3, 2, 3, 3), "0.weight_bias": torch.zeros(3)}
    del exported[absent]
    with pytest.raises(CheckpointError, match=absent):
        unfold_norms(network, exported, torch.zeros(1, 2, 8, 8))
