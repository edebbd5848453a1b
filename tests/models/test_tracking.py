"""The tracker's networks in torch compute what the published files do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.detection import compile_network
from engine.errors import CheckpointError
from models.tracking import BOTTLENECKS, DetectorNet, LandmarkNet, load_published

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "face_mesh": lambda: LandmarkNet(rank=None),
    "face_detector_full": lambda: DetectorNet(BOTTLENECKS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_answers_as_the_published_file(name: str, pinned: Callable[[str], Path]):
    network, path = NETWORKS[name](), pinned(name)
    load_published(network, path)
    rgb = np.random.default_rng(0).random((1, 192, 192, 3), np.float32)
    expected = {array.size: array.ravel() for array in compile_network(path, 1)([rgb]).values()}
    with torch.no_grad():
        for answer in network.eval()(torch.from_numpy(rgb)):
            assert answer.shape[0] == 1
            np.testing.assert_allclose(answer.numpy().ravel(), expected[answer.numel()], atol=2e-3)


def test_another_networks_file_is_refused(pinned: Callable[[str], Path]):
    with pytest.raises(CheckpointError, match="layers with weights"):
        load_published(DetectorNet(BOTTLENECKS), pinned("face_mesh"))
    with pytest.raises(CheckpointError, match="has a layer of"):
        load_published(DetectorNet(), pinned("face_detector_full"))


def test_the_networks_that_ship_are_the_smaller_ones():
    def size(network: nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert size(LandmarkNet()) < 0.6 * size(LandmarkNet(rank=None))
    assert size(DetectorNet()) < 0.9 * size(DetectorNet(BOTTLENECKS))
