"""A function of torch and its slope as one module of plain operators, which any runtime has.

`with_slope` writes out what autograd would do. The backward operators that runtimes lack become forward ones here: the
slope of a convolution is a convolution with its kernels turned round. (A transposed convolution would say the same, but
OpenVINO 2026.4 mistakes the weights that it shares with the convolution for others.)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

aten = torch.ops.aten

_TABLE: dict[Any, Callable[..., Any]] = {}
"""How the backward operators are written out."""


def with_slope(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> nn.Module:
    """A module: inputs -> (function(*inputs) [B], the slope of its sum in the first input).

    inputs: examples, of the shapes that the module takes from then on. The function's parameters become constants.
    """

    def both(first: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        first = first.detach().requires_grad_()
        value = function(first, *others)
        (slope,) = torch.autograd.grad(value.sum(), first)
        return value.detach(), slope

    module = make_fx(both, decomposition_table={**torch.export.default_decompositions(), **_TABLE})(*inputs)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module.eval()


def _written_out(operator: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(rule: Callable[..., Any]) -> Callable[..., Any]:
        _TABLE[operator] = rule
        return rule

    return enter


def _convolution_slope(
    slope: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """The slope in x [B, C, H, W] of a convolution whose answer has this slope [B, O, h, w]."""
    taps = weight.shape[2:]
    if stride[0] > 1:  # zeros between the answers
        height, width = slope.shape[2:]
        apart = F.pad(slope[:, :, :, None, :, None], (0, stride[1] - 1, 0, 0, 0, stride[0] - 1))
        slope = apart.reshape(*slope.shape[:2], height * stride[0], width * stride[1])
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    turned = grouped.transpose(1, 2).flatten(0, 1).flip(-1, -2)
    before = [tap - 1 - pad for tap, pad in zip(taps, padding, strict=True)]
    after = [x.shape[2 + n] + taps[n] - 1 - slope.shape[2 + n] - before[n] for n in range(2)]
    padded = F.pad(slope, (before[1], after[1], before[0], after[0]))
    return F.conv2d(padded, turned, groups=groups)


@_written_out(aten.convolution_backward.default)
def _convolution(
    slope: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, stride: Any, padding: Any, dilation: Any, *rest: Any
) -> tuple[Tensor | None, None, None]:
    transposed, _, groups, wanted = rest
    assert not transposed, "a plain convolution"
    assert tuple(dilation) == (1, 1), "a plain convolution"
    assert not wanted[1], "frozen weights"
    return (_convolution_slope(slope, x, weight, stride, padding, groups) if wanted[0] else None), None, None


@_written_out(aten.avg_pool2d_backward.default)
def _average_pool(slope: Tensor, x: Tensor, kernel: Any, stride: Any, padding: Any, *rest: Any) -> Tensor:
    weight = x.new_full((x.shape[1], 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
    return _convolution_slope(slope, x, weight, stride or kernel, padding, x.shape[1])


@_written_out(aten.max_pool2d_with_indices_backward.default)
def _max_pool(slope: Tensor, x: Tensor, kernel: Any, stride: Any, padding: Any, *rest: Any) -> Tensor:
    """Goes to the largest of each window; where several are, which are zeros after a ReLU, to all of them alike."""
    channels, count = x.shape[1], kernel[0] * kernel[1]
    pick = torch.eye(count, dtype=x.dtype, device=x.device).view(count, 1, *kernel).repeat(channels, 1, 1, 1)
    seen = F.conv2d(x, pick, stride=stride or kernel, padding=padding, groups=channels)
    seen = seen.reshape(len(x), channels, count, *seen.shape[2:])
    largest = (seen == seen.amax(dim=2, keepdim=True)).to(x.dtype)
    shared = slope[:, :, None] * largest / largest.sum(dim=2, keepdim=True)
    return _convolution_slope(shared.flatten(1, 2), x, pick, stride or kernel, padding, channels)


@_written_out(aten.select_backward.default)
def _select(slope: Tensor, sizes: Sequence[int], dim: int, index: int) -> Tensor:
    index, rank = index % sizes[dim], len(sizes)
    before_and_after = [(0, 0)] * rank
    before_and_after[dim] = index, sizes[dim] - index - 1
    return F.pad(slope.unsqueeze(dim), [n for pair in reversed(before_and_after) for n in pair])
