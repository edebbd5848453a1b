"""The ONNX operators of our networks as torch functions: what `export.eager` runs a graph with.

Each function takes the node's inputs (None where one is left out) and its attributes by name, and returns its outputs.
Float tensors live on the device of the run; integer tensors, which are shapes and indices, on the CPU. What is not
listed, and what a listed one does in ways that no network of ours needs, is refused with an ExportError.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

from engine.errors import ExportError

Inputs = Sequence[Any]
Attributes = Mapping[str, Any]
Operator = Callable[[Inputs, Attributes], Sequence[Tensor]]

TORCH_TYPES: Mapping[int, torch.dtype] = MappingProxyType(
    {
        TensorProto.FLOAT: torch.float32,
        TensorProto.FLOAT16: torch.float16,
        TensorProto.BFLOAT16: torch.bfloat16,
        TensorProto.INT64: torch.int64,
        TensorProto.INT32: torch.int32,
    }
)

_OPEN_END = 1 << 30
"""Slices that run to the end of an axis say a number from here on."""


def _needs(condition: bool, what: str) -> None:
    if not condition:
        raise ExportError(f"the eager runtime cannot run {what}")


def _padded(x: Tensor, attributes: Attributes, fill: float = 0.0) -> Tensor:
    """The image with the node's own pads [top, left, bottom, right] around it."""
    _needs(attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"), "automatic padding")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return F.pad(x, (left, right, top, bottom), value=fill) if any((top, left, bottom, right)) else x


def _convolve(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, weight, *bias = inputs
    made = F.conv2d(
        _padded(x, attributes),
        weight,
        bias[0] if bias else None,
        stride=tuple(attributes.get("strides", (1, 1))),
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=attributes.get("group", 1),
    )
    return (made,)


def _convolve_transposed(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, weight, *bias = inputs
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    _needs((top, left) == (bottom, right), "a transposed convolution with uneven pads")
    made = F.conv_transpose2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=(top, left),
        output_padding=tuple(attributes.get("output_padding", (0, 0))),
        groups=attributes.get("group", 1),
        dilation=tuple(attributes.get("dilations", (1, 1))),
    )
    return (made,)


def _average_pool(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    _needs(not attributes.get("ceil_mode", 0), "pooling that rounds up")
    counted = bool(attributes.get("count_include_pad", 0)) or not any(attributes.get("pads", (0,)))
    _needs(counted, "average pooling that leaves the pads out of the mean")
    kernel = tuple(attributes["kernel_shape"])
    return (F.avg_pool2d(_padded(inputs[0], attributes), kernel, tuple(attributes.get("strides", (1, 1)))),)


def _max_pool(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    _needs(not attributes.get("ceil_mode", 0), "pooling that rounds up")
    x = _padded(inputs[0], attributes, fill=-torch.inf)
    kernel, strides = tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1)))
    return (F.max_pool2d(x, kernel, strides, dilation=tuple(attributes.get("dilations", (1, 1)))),)


def _gemm(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    a, b, *c = inputs
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    made = a @ b * attributes.get("alpha", 1.0)
    return (made + c[0] * attributes.get("beta", 1.0) if c else made,)


def _batch_norm(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, scale, bias, mean, variance = inputs
    return (F.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5)),)


def _resize(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, _, scales, sizes = (*inputs, None, None)[:4]
    size = (
        sizes[2:].tolist() if sizes is not None else [int(n * s) for n, s in zip(x.shape[2:], scales[2:], strict=True)]
    )
    mode = attributes.get("mode", b"nearest")
    place = attributes.get("coordinate_transformation_mode", b"half_pixel")
    _needs(not attributes.get("antialias", 0), "a resize with anti-aliasing")
    if mode == b"nearest":
        _needs(place == b"asymmetric" and attributes.get("nearest_mode") == b"floor", "this kind of nearest resize")
        return (F.interpolate(x, size, mode="nearest"),)
    _needs(mode == b"linear" and place in (b"half_pixel", b"align_corners"), "this kind of resize")
    return (F.interpolate(x, size, mode="bilinear", align_corners=place == b"align_corners"),)


def _pad(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, pads, *rest = inputs
    _needs(not any(part is not None for part in rest), "a pad with a value or axes")
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[attributes.get("mode", b"constant")]
    before, after = pads[: x.dim()].tolist(), pads[x.dim() :].tolist()
    sides = [size for axis in reversed(range(x.dim())) for size in (before[axis], after[axis])]
    if mode == "constant":
        return (F.pad(x, sides),)
    _needs(not any(sides[4:]), "a pad of batch or channels by what is there")
    return (F.pad(x, sides[:4], mode=mode),)


def _slice(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, starts, ends, *rest = inputs
    axes = rest[0].tolist() if rest else range(len(starts))
    steps = rest[1].tolist() if len(rest) > 1 else [1] * len(starts)
    _needs(all(step > 0 for step in steps), "a slice that runs backwards")
    picked = [slice(None)] * x.dim()
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        picked[axis] = slice(start, None if end > _OPEN_END else end, step)
    return (x[tuple(picked)],)


def _gather(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, indices = inputs
    axis = attributes.get("axis", 0)
    if indices.ndim == 0:
        return (x.select(axis, int(indices)),)
    _needs(indices.ndim == 1, "a gather by a table of indices")
    return (x.index_select(axis, torch.as_tensor(indices, device=x.device)),)


def _split(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, *sizes = inputs
    axis = attributes.get("axis", 0)
    parts: Sequence[Tensor] = x.split(sizes[0].tolist(), axis) if sizes else x.chunk(attributes["num_outputs"], axis)
    return parts


def _reshape(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, shape = inputs
    keep_zero = bool(attributes.get("allowzero", 0))
    return (x.reshape([x.shape[i] if n == 0 and not keep_zero else n for i, n in enumerate(shape.tolist())]),)


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, axes = inputs
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return (x,)


def _squeeze(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, axes = inputs
    return (x.squeeze(tuple(axes.tolist())),)


def _depth_to_space(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    _needs(attributes.get("mode") == b"CRD", "a depth to space in the order DCR")
    return (F.pixel_shuffle(inputs[0], attributes["blocksize"]),)


def _reduce(inputs: Inputs, attributes: Attributes, function: Callable[..., Tensor]) -> Sequence[Tensor]:
    x, *axes = inputs
    _needs(bool(axes), "a reduction of every axis")
    return (function(x, dim=tuple(axes[0].tolist()), keepdim=bool(attributes.get("keepdims", 1))),)


def _shape(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    sizes = list(inputs[0].shape)[attributes.get("start", 0) : attributes.get("end")]
    return (torch.tensor(sizes, dtype=torch.int64),)


def _clip(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, low, high = (*inputs, None, None)[:3]
    return (x.clamp(low, high),)


def _prelu(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    x, slope = inputs
    return (torch.where(x < 0, x * slope, x),)


def _flatten(inputs: Inputs, attributes: Attributes) -> Sequence[Tensor]:
    _needs(attributes.get("axis", 1) == 1, "a flattening of the batch")
    return (inputs[0].flatten(1),)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Add": lambda x, a: (x[0] + x[1],),
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Cast": lambda x, a: (x[0].to(TORCH_TYPES[a["to"]]),),
        "Clip": _clip,
        "Concat": lambda x, a: (torch.cat(list(x), a["axis"]),),
        "Conv": _convolve,
        "ConvTranspose": _convolve_transposed,
        "DepthToSpace": _depth_to_space,
        "Div": lambda x, a: (x[0] / x[1],),
        "Expand": lambda x, a: (x[0] * torch.ones(x[1].tolist(), dtype=x[0].dtype, device=x[0].device),),
        "Flatten": _flatten,
        "Gather": _gather,
        "Gemm": _gemm,
        "Identity": lambda x, a: (x[0],),
        "LeakyRelu": lambda x, a: (F.leaky_relu(x[0], a.get("alpha", 0.01)),),
        "MaxPool": _max_pool,
        "Mul": lambda x, a: (x[0] * x[1],),
        "PRelu": _prelu,
        "Pad": _pad,
        "Pow": lambda x, a: (x[0] ** x[1],),
        "Reciprocal": lambda x, a: (x[0].reciprocal(),),
        "ReduceMean": lambda x, a: _reduce(x, a, torch.mean),
        "ReduceSum": lambda x, a: _reduce(x, a, torch.sum),
        "Relu": lambda x, a: (x[0].relu(),),
        "Reshape": _reshape,
        "Resize": _resize,
        "Shape": _shape,
        "Sigmoid": lambda x, a: (x[0].sigmoid(),),
        "Slice": _slice,
        "Split": _split,
        "Sqrt": lambda x, a: (x[0].sqrt(),),
        "Squeeze": _squeeze,
        "Sub": lambda x, a: (x[0] - x[1],),
        "Tanh": lambda x, a: (x[0].tanh(),),
        "Transpose": lambda x, a: (x[0].permute(a["perm"]),),
        "Unsqueeze": _unsqueeze,
    }
)
