"""The tracker's networks in torch compute what the published files do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.detection import compile_network
from engine.errors import CheckpointError
from models.tracking import (
    BOTTLENECKS,
    POINTS,
    DetectorNet,
    LandmarkNet,
    MeshComponents,
    load_published,
    mesh_window,
)

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


def test_components_of_a_mesh_are_its_points_along_their_main_axes():
    torch.manual_seed(0)
    network = LandmarkNet().eval()
    crops = torch.rand(40, 3, 256, 256) * torch.linspace(0.2, 2.0, 40).view(-1, 1, 1, 1) - 1.0
    windows = mesh_window(crops).permute(0, 2, 3, 1)
    with torch.no_grad():
        spread = network(windows)[0].std(0).norm()
        for parameter in network.points[-1].parameters():
            parameter.mul_(10.0 * POINTS**0.5 / spread)  # as far apart as faces are, in pixels
        points = network(windows)[0]
    made = MeshComponents.of(network, points, 3)
    found = made(crops)
    centred = points - points.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False)[2][:3]
    along = centred @ axes.T
    for n in range(3):
        assert torch.corrcoef(torch.stack((found[:, n], along[:, n])))[0, 1] == pytest.approx(1.0, abs=1e-3)
    assert found[:, 0].std() == pytest.approx(1.0, abs=0.2)
    assert found.mean(0).abs().max() < 0.05


def test_components_stay_float32_and_untrained_and_hand_gradients_on():
    made, crop = MeshComponents(2), torch.rand(1, 3, 256, 256, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(crop)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert crop.grad is not None
    assert not any(parameter.requires_grad for parameter in made.parameters())
