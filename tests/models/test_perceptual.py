"""The perceptual distance against numbers recorded from the published implementation of stlpips-pytorch 0.0.2."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import CheckpointError
from models.perceptual import STAGE_WIDTHS, BlurDown, StLpips, TrunkName, folded_stage


def image_pairs() -> list[tuple[Tensor, Tensor]]:
    """Noise against noise, noise against a smooth image, and a smooth image against itself three pixels over."""
    rng = np.random.default_rng(7)
    a, b = (torch.from_numpy(rng.uniform(-1, 1, (2, 3, 128, 96)).astype(np.float32)) for _ in range(2))
    smooth = F.interpolate(a[:, :, :9, :9], (128, 96), mode="bilinear")
    return [(a, b), (a, smooth), (smooth, smooth.roll(3, -1))]


PUBLISHED: dict[TrunkName, list[list[float]]] = {
    "alex": [[0.0396121331, 0.0380444266], [0.9989998341, 0.9996081591], [0.0517452806, 0.0823118016]],
    "vgg": [[0.0684412792, 0.0675299615], [0.9247230291, 0.9076200724], [0.2077853531, 0.1822538376]],
}


ASSETS: dict[TrunkName, str] = {"alex": "st_lpips_alex", "vgg": "st_lpips_vgg"}


@pytest.mark.parametrize("net", ["alex", pytest.param("vgg", marks=pytest.mark.slow)])
def test_published_distances(net: TrunkName, pinned: Callable[[str], Path]) -> None:
    distance = StLpips.load(pinned(ASSETS[net]), net)
    for (a, b), expected in zip(image_pairs(), PUBLISHED[net], strict=True):
        torch.testing.assert_close(distance(a, b), torch.tensor(expected), atol=1e-5, rtol=0)


def test_equal_images_are_at_zero_and_order_does_not_matter() -> None:
    distance, a, b = StLpips(), torch.rand(2, 3, 48, 64), torch.rand(2, 3, 48, 64)
    assert distance(a, a).abs().max() == 0
    torch.testing.assert_close(distance(a, b), distance(b, a))


def test_gradient_reaches_both_images_and_no_weight_even_where_features_vanish() -> None:
    distance = StLpips()
    a, b = torch.zeros(1, 3, 48, 48, requires_grad=True), torch.rand(1, 3, 48, 48, requires_grad=True)
    # A first convolution that never fires makes every channel vector of the trunk zero or constant.
    with torch.no_grad():
        distance.stages[0][0].bias.fill_(-100.0)
        distance.heads[0].weight.fill_(1.0)
    distance(a, b).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert b.grad is not None
    assert b.grad.isfinite().all()
    assert not any(weight.requires_grad for weight in distance.parameters())


def test_gradient_is_the_slope_of_the_distance() -> None:
    torch.manual_seed(0)
    distance = StLpips().double()
    a, b = torch.rand(2, 1, 3, 40, 40, dtype=torch.float64)
    direction = torch.randn_like(a)
    (gradient,) = torch.autograd.grad(distance(a.requires_grad_(), b).sum(), a)
    step = 1e-5
    slope = (distance(a + step * direction, b) - distance(a - step * direction, b)) / (2 * step)
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


@pytest.mark.parametrize("net", ["alex", pytest.param("vgg", marks=pytest.mark.slow)])
def test_features_have_the_stated_widths_and_distance_takes_them(net: TrunkName) -> None:
    distance, a, b = StLpips(net), torch.rand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)
    stages = distance.features(a)
    assert tuple(stage.shape[1] for stage in stages) == STAGE_WIDTHS[net]
    assert all(float(stage.min()) >= 0 for stage in stages)
    torch.testing.assert_close(distance.distance(stages, distance.features(b)), distance(a, b))


def test_blur_is_the_reflected_binomial() -> None:
    x = torch.rand(2, 3, 9, 12)
    boxed = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 2, stride=1)
    torch.testing.assert_close(BlurDown(3)(x), F.avg_pool2d(boxed, 2))


def test_the_file_of_another_trunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trunk.pth"
    torch.save({"net.slice1.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match="trunk"):
        StLpips.load(path, net="alex")


def test_folding_changes_the_border_alone() -> None:
    """11x11, blur and stride of 2 as 7x7 cells: equal but for the outermost row and column."""
    stage, image = StLpips().stages[0], torch.randn(2, 3, 64, 48)
    expected, found = stage(image), folded_stage(stage)(F.pixel_unshuffle(image, 2))
    assert found.shape == expected.shape == (2, 64, 30, 22)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, expected, atol=1e-2)


def test_a_folded_distance_is_nearly_the_published_one(pinned: Callable[[str], Path]) -> None:
    distance = StLpips.load(pinned(ASSETS["alex"]))
    for a, b in image_pairs()[1:]:
        expected = distance(a, b)
        torch.testing.assert_close(StLpips.load(pinned(ASSETS["alex"])).fold()(a, b), expected, atol=0.01, rtol=0.02)
