"""A function and its slope as one module of plain operators, which agrees with autograd."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.slope import with_slope
from export.to_onnx import export_fixed


def autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def squared(layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A number for each image, whose slope depends on every pixel of the layer's answer."""
    return lambda x: layer(x).sin().square().sum(dim=tuple(range(1, layer(x).dim())))


LAYERS = {
    "convolution": nn.Conv2d(4, 6, 3, padding=1),
    "with no padding": nn.Conv2d(4, 6, 3),
    "of pairs of channels": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "of one pixel": nn.Conv2d(4, 6, 1),
    "with a stride": nn.Conv2d(4, 6, 7, stride=2),
    "with a stride that leaves a line over": nn.Conv2d(4, 6, 3, stride=2),
    "with a stride and padding": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "average pooling": nn.AvgPool2d(2),
    "max pooling": nn.MaxPool2d(3, 2),
    "max pooling of a ReLU's zeros": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2), nn.ReLU()),
    "leaky ReLU": nn.LeakyReLU(0.2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [(14, 17), (15, 12)])
def test_the_slope_is_autograds(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    layer = LAYERS[name].requires_grad_(False)
    module = with_slope(squared(layer), [torch.randn(2, 4, *size)])
    other = torch.randn(2, 4, *size)  # not the example: nothing of it may have become a constant
    for found, expected in zip(module(other), autograd(squared(layer), other), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", [0, 2, -1])
def test_rows_that_are_picked_have_a_slope_and_the_others_none(row: int) -> None:
    function = squared(lambda ws: 3.0 * ws[:, row])
    module, ws = with_slope(function, [torch.randn(2, 4, 5)]), torch.randn(2, 4, 5)
    _, slope = module(ws)
    torch.testing.assert_close(slope, autograd(function, ws)[1])
    assert (slope.abs().sum(dim=(0, 2)) > 0).tolist() == [n == row % 4 for n in range(4)]


def test_only_the_first_input_has_a_slope() -> None:
    module = with_slope(lambda x, y: (x * y).sum(dim=1), [torch.ones(2, 3), torch.ones(2, 3)])
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    value, slope = module(x, y)
    torch.testing.assert_close(value, (x * y).sum(dim=1))
    torch.testing.assert_close(slope, y)


def test_it_becomes_a_graph_that_holds_each_weight_once(tmp_path: Path) -> None:
    torch.manual_seed(1)
    layer = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    layer.requires_grad_(False)
    x = torch.randn(1, 4, 16, 16)
    export_fixed(with_slope(squared(layer), [x]), tmp_path / "s.onnx", {"x": x}, ["value", "slope"])
    session = onnxruntime.InferenceSession(tmp_path / "s.onnx")
    other = torch.randn(1, 4, 16, 16)
    for found, expected in zip(session.run(None, {"x": other.numpy()}), autograd(squared(layer), other), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
    stored = onnx.load(tmp_path / "s.onnx").graph.initializer
    assert sorted(len(tensor.raw_data) // 4 for tensor in stored if len(tensor.raw_data) > 1000) == [288, 576]


def test_layers_are_needed_whose_slope_is_known() -> None:
    with pytest.raises(AssertionError, match="plain convolution"):
        with_slope(squared(lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3))), [torch.randn(1, 4, 8, 8)])
