"""A narrower generator from a wide one in closed form: channels are chosen, what is left is fitted, no gradient.

Every convolution of `models/mobile_stylegan.py` that mixes channels is a linear map of features that are known: those
that the wide network has on sampled codes. Which of its inputs a linear map can do without, and what the others'
weights are then, is answered exactly, one input at a time, by the inverse of the features' second moments: the optimal
brain surgeon (Hassibi and Stork, NIPS 1992) for a quadratic error. So from the image down, each convolution names the
inputs that it needs, and those become the outputs of the one before it. Then from the first narrower layer up, each
convolution is fitted anew, on the narrow network's own features, to the wide one's outputs before their activation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.mobile_stylegan import (
    Layer,
    MobileStyleGan,
    MobileStyleGanConfig,
    Modulation,
    SeparableConv,
    first_narrower,
)

RIDGE = 1e-4
"""Of the mean second moment: directions that hardly occur are not fitted."""


@dataclass(frozen=True)
class Kept:
    """Channels of the wide network that the narrow one has, of one layer.

    groups: wavelet groups of the layer's input; a group is one channel after the inverse transform. inner: outputs of
    the first convolution. outputs: of the second.
    """

    groups: Tensor
    inner: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Elimination:
    """In which order a linear map's inputs are given up: `order` [C], the first to go first, and what that costs.

    error: of the map's outputs, the sum of squares that is lost after each of them, as a share of all, [C].
    """

    order: Tensor
    error: Tensor

    def kept(self, count: int) -> Tensor:
        """The `count` inputs that go last, sorted."""
        return self.order[len(self.order) - count :].sort().values


def eliminate(moments: Tensor, weight: Tensor) -> Elimination:
    """Gives up the inputs of y = weight x one by one, the others' weights being refitted each time.

    moments: second moments of x, [C, C]. weight: [O, C].
    """
    moments = _steadied(moments.double())
    left = weight.double().clone()
    total = torch.einsum("oc,cd,od->", left, moments, left)
    inverse = torch.linalg.inv(moments)
    gone = torch.zeros(len(moments), dtype=torch.bool)
    order, costs = [], []
    for _ in range(len(moments)):
        cost = (left.square().sum(0) / inverse.diagonal()).masked_fill(gone, torch.inf)
        j = int(cost.argmin())
        order.append(j)
        costs.append(float(cost[j]))
        column = inverse[:, j] / inverse[j, j]
        left -= left[:, j : j + 1] * column
        inverse = inverse - torch.outer(column, inverse[j])
        gone[j] = True
        # What is gone stays out of the others' updates.
        inverse[j], inverse[:, j], inverse[j, j], left[:, j] = 0.0, 0.0, 1.0, 0.0
    return Elimination(torch.tensor(order), torch.tensor(costs, dtype=torch.float64).cumsum(0) / total)


def band_channels(groups: Tensor, width: int) -> Tensor:
    """The channels of wavelet groups among `width`, in the order that `inverse_haar` expects: [4 G]."""
    return torch.cat([groups + band * (width // 4) for band in range(4)])


@torch.no_grad()
def narrow(wide: MobileStyleGan, config: MobileStyleGanConfig, ws: Tensor) -> MobileStyleGan:
    """The network of `config` that does what `wide` does on codes ws [N, L, 512], as well as its widths allow.

    Layers below the first narrower one stay as they are.
    """
    first = first_narrower(wide.config, config)
    below = [wide.features(code, upto=first).half() for code in ws.split(1)]
    kept = choose(wide, config, below, ws, first)
    student = MobileStyleGan(config)
    _copy_kept(wide, student, kept, first)
    theirs, ours = below, below
    for i in range(first, len(wide.layers)):
        theirs, ours = _fit_layer(wide, student, i, kept[i], theirs, ours, ws)
    _fit_head(wide, student, theirs, ours, ws)
    return student.eval().requires_grad_(False)


def choose(
    wide: MobileStyleGan, config: MobileStyleGanConfig, below: list[Tensor], ws: Tensor, first: int
) -> dict[int, Kept]:
    """Which channels of the layers from `first` on the narrow network keeps, from the image down."""
    moments = feature_moments(wide, below, ws, first)
    outputs = eliminate(moments["head"], wide.to_rgb.weight[:, :, 0, 0]).kept(config.widths[-1])
    kept = {}
    for i in reversed(range(first, len(wide.layers))):
        layer = _layer(wide, i)
        second = layer.conv2.pointwise[outputs, :, 0, 0]
        inner = eliminate(moments[f"{i}.conv2"], second).kept(config.inner_widths[i])
        width_in = wide.config.widths[i - 1] if i else wide.config.stem_width
        groups = torch.arange(width_in // 4)
        if i > first:
            one = layer.conv1.pointwise[inner, :, 0, 0]
            groups = eliminate(moments[f"{i}.conv1"], one).kept(config.widths[i - 1] // 4)
        kept[i] = Kept(groups, inner, outputs)
        outputs = band_channels(groups, width_in)
    return kept


def feature_moments(wide: MobileStyleGan, below: list[Tensor], ws: Tensor, first: int) -> dict[str, Tensor]:
    """Second moments of what each 1x1 convolution from layer `first` on sees: "3.conv1", "3.conv2", ..., "head"."""
    moments: dict[str, Tensor] = {}
    for x, code in zip(below, ws.split(1), strict=True):
        x = x.float()
        for i in range(first, len(wide.layers)):
            layer = _layer(wide, i)
            seen1 = _first_seen(layer, x, code, i)
            seen2 = _second_seen(layer, _said(layer.conv1, seen1), code, i)
            for name, features in ((f"{i}.conv1", seen1), (f"{i}.conv2", seen2)):
                moments[name] = moments.get(name, 0.0) + _moments(features)
            x = layer.conv2.activate(_said(layer.conv2, seen2))
        seen = wide.to_rgb.modulation(x, code[:, -1])
        moments["head"] = moments.get("head", 0.0) + _moments(seen)
    return moments


def _first_seen(layer: Layer, x: Tensor, ws: Tensor, i: int) -> Tensor:
    """What the first 1x1 convolution of layer i sees of the activations before it."""
    w = ws[:, 2 * i + 1]
    return _seen(layer.conv1, layer.doubled(x, w))


def _second_seen(layer: Layer, said1: Tensor, ws: Tensor, i: int) -> Tensor:
    """What the second sees of what the first says."""
    activated = layer.conv1.activate(said1)
    return _seen(layer.conv2, layer.conv2.modulation(activated, ws[:, 2 * i + 2]))


def _said(conv: SeparableConv, seen: Tensor) -> Tensor:
    return F.conv2d(seen, conv.pointwise)


def _seen(conv: SeparableConv, modulated: Tensor) -> Tensor:
    return F.conv2d(modulated, conv.depthwise, padding=1, groups=modulated.shape[1])


def _fit_layer(
    wide: MobileStyleGan,
    student: MobileStyleGan,
    i: int,
    kept: Kept,
    theirs: list[Tensor],
    ours: list[Tensor],
    ws: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """Fits both convolutions of a layer; returns what the two networks have after it."""
    layer, full = _layer(student, i), _layer(wide, i)
    codes = ws.split(1)

    wholes: list[Tensor] = []

    def first(n: int) -> tuple[Tensor, Tensor]:
        said = _said(full.conv1, _first_seen(full, theirs[n].float(), codes[n], i))
        return _first_seen(layer, ours[n].float(), codes[n], i), said[:, kept.inner]

    def second(n: int) -> tuple[Tensor, Tensor]:
        seen = _second_seen(full, _said(full.conv1, _first_seen(full, theirs[n].float(), codes[n], i)), codes[n], i)
        said = _said(full.conv2, seen)
        wholes.append(full.conv2.activate(said).half())
        return narrow_second(n), said[:, kept.outputs]

    def narrow_second(n: int) -> Tensor:
        said = _said(layer.conv1, _first_seen(layer, ours[n].float(), codes[n], i))
        return _second_seen(layer, said, codes[n], i)

    for conv, pairs in ((layer.conv1, first), (layer.conv2, second)):
        weight, shift = fit_linear(pairs(n) for n in range(len(codes)))
        conv.pointwise.copy_(weight[:, :, None, None])
        conv.bias.add_(shift[None, :, None, None])
    narrowed = (_said(layer.conv2, narrow_second(n)) for n in range(len(codes)))
    return wholes, [layer.conv2.activate(said).half() for said in narrowed]


def _fit_head(
    wide: MobileStyleGan, student: MobileStyleGan, theirs: list[Tensor], ours: list[Tensor], ws: Tensor
) -> None:
    def bands(n: int) -> tuple[Tensor, Tensor]:
        code = ws[n : n + 1, -1]
        said = F.conv2d(wide.to_rgb.modulation(theirs[n].float(), code), wide.to_rgb.weight)
        return student.to_rgb.modulation(ours[n].float(), code), said

    weight, shift = fit_linear(bands(n) for n in range(len(ws)))
    student.to_rgb.weight.copy_(weight[:, :, None, None])
    student.to_rgb.bias.add_(shift[None, :, None, None])


def fit_linear(pairs: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Least squares over all pixels of image pairs x [1, C, H, W], y [1, O, H, W]: weight [O, C] and shift [O]."""
    gram = cross = torch.zeros(())
    for x, y in pairs:
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0).flatten(2)[0]
        gram, cross = gram + (x @ x.T).double(), cross + (x @ y.flatten(2)[0].T).double()
    solution = torch.linalg.solve(_steadied(gram), cross).T.float()
    return solution[:, :-1], solution[:, -1]


def _moments(x: Tensor) -> Tensor:
    """Second moments over pixels of [1, C, H, W], double [C, C], a sum."""
    flat = x.flatten(2)[0]
    return (flat @ flat.T).double()


def _steadied(gram: Tensor) -> Tensor:
    return gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def _copy_kept(wide: MobileStyleGan, student: MobileStyleGan, kept: dict[int, Kept], first: int) -> None:
    """Everything that is not fitted, and the biases that fitting adds to."""
    theirs = wide.state_dict()
    changed = (*(f"layers.{i}." for i in range(first, len(wide.layers))), "to_rgb.")
    student.load_state_dict({n: t for n, t in theirs.items() if not n.startswith(changed)}, strict=False)
    for i, chosen in kept.items():
        layer, full = _layer(student, i), _layer(wide, i)
        _take(layer.up, full.up, band_channels(chosen.groups, full.up.bias.numel()))
        for conv, source, inputs, outputs in (
            (layer.conv1, full.conv1, chosen.groups, chosen.inner),
            (layer.conv2, full.conv2, chosen.inner, chosen.outputs),
        ):
            _take(conv.modulation, source.modulation, inputs)
            conv.depthwise.copy_(source.depthwise[inputs])
            conv.bias.copy_(source.bias[:, outputs])
            if conv.noise is not None and source.noise is not None:
                conv.noise.copy_(source.noise)
            elif source.noise is not None:
                conv.bias.add_(source.noise.mean())
    _take(student.to_rgb.modulation, wide.to_rgb.modulation, kept[len(wide.layers) - 1].outputs)
    student.to_rgb.bias.copy_(wide.to_rgb.bias)


def _take(modulation: Modulation, source: Modulation, channels: Tensor) -> None:
    """The source's scales of those channels; what depends on its width is made up for."""
    share = source.gain / modulation.gain
    modulation.weight.copy_(source.weight[channels] * share)
    modulation.bias.copy_(source.bias[channels] * share)


def _layer(network: MobileStyleGan, i: int) -> Layer:
    layer = network.layers[i]
    assert isinstance(layer, Layer)
    return layer


def gigaflops(config: MobileStyleGanConfig) -> float:
    """Arithmetic of one image's convolutions, 2 operations a multiplication."""
    total, c_in = 9 * config.stem_width**2 * 16, config.stem_width
    for i, (inner, width) in enumerate(zip(config.inner_widths, config.widths, strict=True)):
        pixels = (8 << i) ** 2
        total += pixels * (c_in // 4 * (9 + inner) + inner * (9 + width))
        c_in = width
    return 2e-9 * (total + 12 * c_in * (4 << len(config.widths)) ** 2)
