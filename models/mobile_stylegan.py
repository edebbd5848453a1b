"""MobileStyleGAN (Belousov 2021) in torch: the face generator of the light bundle.

A StyleGAN2-FFHQ student whose layers predict Haar wavelet bands and separate every 3x3 convolution into a depthwise
and a pointwise one. Demodulation is folded into the published weights, so every convolution has constant weights and
the style only scales its input. Cut after the 128 px layer and given an RGB head of its own, it makes 256 px images.

W+ rows: row 0 styles conv1, rows 2i+1 and 2i+2 the two halves of layer i, the last row the RGB head.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import CheckpointError

LEAKY_SLOPE = 0.2
LATENT_DIM = 512
NOISE_RESOLUTION = 32  # where RIGID's noise map enters


@dataclass(frozen=True)
class MobileStyleGanConfig:
    """Widths of the layers from 8 px up; the image is twice the last layer's resolution.

    inner: width between the two convolutions of each layer; None for the same as after them.
    noise_upto: the resolution, in px, up to which convolutions add their constant noise. Without it a runtime fuses
    bias and activation into the convolution.
    """

    widths: tuple[int, ...] = (512, 512, 512, 512, 256)
    stem_width: int = 512
    inner: tuple[int, ...] | None = None
    noise_upto: int = 1024

    @property
    def inner_widths(self) -> tuple[int, ...]:
        return self.widths if self.inner is None else self.inner

    @property
    def latent_rows(self) -> int:
        return 2 * len(self.widths) + 2

    @property
    def resolution(self) -> int:
        return 8 << len(self.widths)

    @property
    def former_rows(self) -> int:
        """Rows up to the first convolution at 128 px (rigid.md, Eq. 3); all but two when there is no such layer."""
        layers_below_128 = min(4, len(self.widths) - 1)
        return 2 * layers_below_128 + 2

    def row_names(self) -> list[tuple[str, int]]:
        """Name and resolution of each W+ row."""
        rows = [("conv1", 4)]
        for i in range(len(self.widths)):
            rows += [(f"layers.{i}.conv1", 8 << i), (f"layers.{i}.conv2", 8 << i)]
        return [*rows, ("to_rgb", self.resolution)]


TEACHER_1024 = MobileStyleGanConfig(widths=(512, 512, 512, 512, 256, 128, 64))
WIDE_256 = MobileStyleGanConfig()
"""The teacher's layers up to 128 px: what the light generator is narrowed from (`training/compression.py`)."""
LIGHT_256 = MobileStyleGanConfig(widths=(512, 512, 512, 384, 128), noise_upto=NOISE_RESOLUTION)
"""The generator that ships. Its first three layers are the teacher's own."""


def first_narrower(wide: MobileStyleGanConfig, config: MobileStyleGanConfig) -> int:
    """Index of the first layer whose widths differ; an assertion fails when a width grows or no layer is narrower."""
    pairs = list(zip(wide.widths, wide.inner_widths, config.widths, config.inner_widths, strict=True))
    assert wide.stem_width == config.stem_width
    assert all(width <= out and inner <= mid for out, mid, width, inner in pairs), "a narrower network was expected"
    return next(i for i, (out, mid, width, inner) in enumerate(pairs) if (out, mid) != (width, inner))


class Modulation(nn.Module):
    """Scale each channel by an affine function of a W+ row: [B, C, H, W], [B, 512] -> [B, C, H, W]."""

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, LATENT_DIM) * 0.01)
        self.bias = nn.Parameter(torch.full((channels,), 1.0 / gain))
        self.gain = gain

    def scale(self, w: Tensor) -> Tensor:
        """Of each channel: [B, 512] -> [B, C, 1, 1]."""
        return (F.linear(w, self.weight, self.bias) * self.gain)[:, :, None, None]

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return x * self.scale(w)


class SeparableConv(nn.Module):
    """Modulate, depthwise 3x3, pointwise, constant noise if it has one, bias, leaky ReLU."""

    noise: nn.Parameter | None

    def __init__(self, c_in: int, c_out: int, resolution: int, noisy: bool = True) -> None:
        super().__init__()
        self.modulation = Modulation(c_in, gain=1.0 / (3.0 * c_in**0.5))
        self.depthwise = nn.Parameter(torch.randn(c_in, 1, 3, 3) * 0.1)
        self.pointwise = nn.Parameter(torch.randn(c_out, c_in, 1, 1))
        constant = nn.Parameter(torch.zeros(1, 1, resolution, resolution), requires_grad=False)
        self.register_parameter("noise", constant if noisy else None)
        self.bias = nn.Parameter(torch.zeros(1, c_out, 1, 1))

    def forward(self, x: Tensor, w: Tensor, added: Tensor | None = None) -> Tensor:
        """added: [B, C_out, H, W], RIGID's noise map already scaled, joins the constant noise."""
        return self.convolve(self.modulation(x, w), added)

    def convolve(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """What follows the modulation."""
        x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
        return self.activate(F.conv2d(x, self.pointwise), added)

    def activate(self, said: Tensor, added: Tensor | None = None) -> Tensor:
        """What follows the pointwise convolution."""
        # In this order a runtime takes bias and map into the convolution; bias and constant noise would become one
        # constant as large as the picture.
        x = said + self.bias
        if added is not None:
            x = x + added
        if self.noise is not None:
            x = x + self.noise
        return F.leaky_relu(x, LEAKY_SLOPE)


class StemConv(nn.Module):
    """The only dense convolution: modulate, 3x3 at 4 px, noise, bias, leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulation = Modulation(channels, gain=1.0 / (3.0 * channels**0.5))
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))
        self.noise = nn.Parameter(torch.zeros(1, 1, 4, 4), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = F.conv2d(self.modulation(x, w), self.weight, padding=1) + self.noise + self.bias
        return F.leaky_relu(x, LEAKY_SLOPE)


def inverse_haar(x: Tensor) -> Tensor:
    """One level of the inverse 2-D Haar transform: [B, 4C, H, W] -> [B, C, 2H, 2W].

    The four bands follow each other, C channels each: low, vertical, horizontal and diagonal detail. Each is one piece
    of memory then, and so is each of the four pixels that they make: the published layout, the details of a channel
    side by side, takes twice the whole network's time on a CPU.
    """
    return _joined_bands(x * 0.5)


def _joined_bands(x: Tensor) -> Tensor:
    """`inverse_haar` of twice as much, for who has halved its input on the way."""
    b, _, h, w = x.shape
    low, vertical, horizontal, diagonal = x.chunk(4, dim=1)
    even, odd = low + vertical, low - vertical
    even_d, odd_d = horizontal + diagonal, horizontal - diagonal
    quads = torch.cat((even + even_d, even - even_d, odd + odd_d, odd - odd_d), dim=1)
    return quads.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2).reshape(b, -1, 2 * h, 2 * w)


def haar(image: Tensor) -> Tensor:
    """Inverse of `inverse_haar`: [B, C, 2H, 2W] -> [B, 4C, H, W]."""
    a, b, c, d = F.pixel_unshuffle(image, 2).unflatten(1, (-1, 4)).unbind(2)
    low, vertical = a + b + c + d, a + b - c - d
    horizontal, diagonal = a - b + c - d, a - b - c + d
    return torch.cat((low, vertical, horizontal, diagonal), dim=1) * 0.5


def band_order(width: int) -> Tensor:
    """Where each of the 4C = `width` channels of our layout lies in the published one: low, then details as (C, 3)."""
    channels = torch.arange(width // 4)
    details = [width // 4 + 3 * channels + band for band in range(3)]
    return torch.cat((channels, *details))


class Layer(nn.Module):
    """Double the resolution by an inverse wavelet, then two separable convolutions."""

    def __init__(self, c_in: int, c_inner: int, c_out: int, resolution: int, noisy: bool = True) -> None:
        super().__init__()
        self.up = Modulation(c_in, gain=1.0)
        self.conv1 = SeparableConv(c_in // 4, c_inner, resolution, noisy)
        self.conv2 = SeparableConv(c_inner, c_out, resolution, noisy)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor, added: tuple[Tensor, Tensor] | None = None) -> Tensor:
        first, second = added if added is not None else (None, None)
        return self.conv2(self.conv1.convolve(self.doubled(x, w1), first), w2, second)

    def doubled(self, x: Tensor, w: Tensor) -> Tensor:
        """What the first convolution sees, modulated: [B, 4C, H, W] -> [B, C, 2H, 2W].

        The wavelet works on each channel alone, so that the modulation after it can come before, on a quarter of the
        pixels and in one pass with the other and with the wavelet's own half.
        """
        after = self.conv1.modulation.scale(w) * 0.5
        return _joined_bands(x * (self.up.scale(w) * torch.cat((after, after, after, after), dim=1)))


class RgbHead(nn.Module):
    """Modulate, 1x1 to 12 wavelet channels, inverse wavelet: RGB in [-1, 1] at twice the resolution."""

    def __init__(self, c_in: int) -> None:
        super().__init__()
        self.modulation = Modulation(c_in, gain=1.0 / c_in**0.5)
        self.weight = nn.Parameter(torch.randn(12, c_in, 1, 1) * 0.05)
        self.bias = nn.Parameter(torch.zeros(1, 12, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return inverse_haar(F.conv2d(self.modulation(x, w), self.weight) + self.bias)


class MobileStyleGan(nn.Module):
    """ws [B, L, 512], noise map [B, 512, 32, 32] -> RGB image [B, 3, R, R], about [-1, 1].

    The noise map is added after both 32 px convolutions through two learned scalars (rigid.md, Eq. 4); its channels are
    in the order of theirs.
    """

    def __init__(self, config: MobileStyleGanConfig = WIDE_256) -> None:
        super().__init__()
        self.config = config
        widths = (config.stem_width, *config.widths)
        self.input = nn.Parameter(torch.randn(1, config.stem_width, 4, 4))
        self.conv1 = StemConv(config.stem_width)
        self.layers = nn.ModuleList(
            Layer(c_in, c_inner, c_out, 8 << i, noisy=8 << i <= config.noise_upto)
            for i, ((c_in, c_out), c_inner) in enumerate(
                zip(itertools.pairwise(widths), config.inner_widths, strict=True)
            )
        )
        self.to_rgb = RgbHead(widths[-1])
        self.noise_scales = nn.Parameter(torch.ones(2))

    @property
    def last_layer(self) -> Layer:
        """The layer of the highest resolution."""
        return cast(Layer, self.layers[-1])

    def features(self, ws: Tensor, noise: Tensor | None = None, upto: int | None = None) -> Tensor:
        """Activations after `upto` layers (all by default): [B, C, 4 << upto, 4 << upto]."""
        x = self.conv1(self.input.expand(ws.shape[0], -1, -1, -1), ws[:, 0])
        return self.resume(x, ws, 0, upto, noise)

    def resume(self, x: Tensor, ws: Tensor, start: int, upto: int | None = None, noise: Tensor | None = None) -> Tensor:
        """Run layers `start` to `upto` on activations x."""
        for i, layer in enumerate(self.layers[start:upto], start):
            added = None
            if noise is not None and 8 << i == NOISE_RESOLUTION:
                added = (noise * self.noise_scales[0], noise * self.noise_scales[1])
            x = layer(x, ws[:, 2 * i + 1], ws[:, 2 * i + 2], added)
        return x

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        image: Tensor = self.to_rgb(self.features(ws, noise), ws[:, -1])
        return image


class MappingNetwork(nn.Module):
    """z [B, 512] -> w [B, 512]: pixel norm, eight linear layers, leaky ReLU with gain sqrt(2)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(LATENT_DIM, LATENT_DIM)) for _ in range(8))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(LATENT_DIM)) for _ in range(8))

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = F.leaky_relu(F.linear(x, weight, bias), LEAKY_SLOPE) * 2**0.5
        return x


def read_ir_constants(xml: Path, binary: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 constant of an OpenVINO IR v10 by layer name, read as data; raises CheckpointError."""
    blob = binary.read_bytes()
    constants = {}
    try:
        for layer in ElementTree.parse(xml).getroot().iter("layer"):
            data = layer.find("data")
            if layer.get("type") != "Const" or data is None or data.get("element_type") != "f32":
                continue
            shape = [int(d) for d in data.get("shape", "").split(",") if d.strip()]
            offset, size = int(data.get("offset", "0")), int(data.get("size", "0"))
            constants[layer.get("name", "")] = np.frombuffer(blob, np.float32, size // 4, offset).reshape(shape)
    except (ElementTree.ParseError, ValueError) as error:
        raise CheckpointError(f"{xml.name} is not a readable OpenVINO IR: {error}") from error
    return constants


def _ir_names(layers: int, head: bool) -> Iterator[tuple[str, str]]:
    """(our parameter, constant in SynthesisNetwork.xml). Unnamed ones carry the exporter's counters."""
    yield "input", "m.input.input"
    yield from _modulation_names("conv1.modulation", "m.conv1.conv.modulation")
    yield from (("conv1.weight", "Mul_39_copy"), ("conv1.noise", "1531"), ("conv1.bias", "m.conv1.bias"))
    for i in range(layers):
        yield from _modulation_names(f"layers.{i}.up", f"m.layers.{i}.up.modulation")
        for conv, weight, noise in (("conv1", 106 + 100 * i, 1560 + 41 * i), ("conv2", 139 + 100 * i, 1572 + 41 * i)):
            ours, theirs = f"layers.{i}.{conv}", f"m.layers.{i}.{conv}"
            yield from _modulation_names(f"{ours}.modulation", f"{theirs}.conv.modulation")
            yield f"{ours}.depthwise", f"{theirs}.conv.weight_dw"
            yield f"{ours}.pointwise", f"Mul_{weight}_copy"
            yield f"{ours}.noise", str(noise)
            yield f"{ours}.bias", f"{theirs}.bias"
    if head:
        last = f"m.layers.{layers - 1}.to_img"
        yield from _modulation_names("to_rgb.modulation", f"{last}.conv.modulation")
        yield from (("to_rgb.weight", f"{last}.conv.weight"), ("to_rgb.bias", f"{last}.bias"))


def _modulation_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.weight", f"{theirs}.weight"
    yield f"{ours}.bias", f"{theirs}.bias"


def load_teacher(xml: Path, binary: Path, config: MobileStyleGanConfig = WIDE_256) -> MobileStyleGan:
    """The published generator, cut to `config`; a cut one has an untrained RGB head. Raises CheckpointError."""
    constants = read_ir_constants(xml, binary)
    network = MobileStyleGan(config)
    layers = len(config.widths)
    with torch.no_grad():
        parameters = dict(network.named_parameters())
        for ours, theirs in _ir_names(layers, head=layers == len(TEACHER_1024.widths)):
            if theirs not in constants:
                raise CheckpointError(
                    f"{xml.name} has no constant {theirs!r}; the pinned random-face file was expected"
                )
            parameter = parameters[ours]
            parameter.copy_(torch.from_numpy(constants[theirs].copy()).reshape(parameter.shape))
        _order_bands(network, head=layers == len(TEACHER_1024.widths))
    return network.eval()


def _order_bands(network: MobileStyleGan, head: bool) -> None:
    """From the published order of the channels to ours. head: the RGB head is a published one too."""
    before: StemConv | SeparableConv = network.conv1
    for i, layer in enumerate(network.layers):
        assert isinstance(layer, Layer)
        order = band_order(layer.up.bias.numel())
        for tensor in (*_outputs(before), layer.up.weight, layer.up.bias):
            tensor.copy_(tensor[order])
        if 8 << i == NOISE_RESOLUTION and i + 1 < len(network.layers):
            # The noise map joins both convolutions, so their channels are in one order.
            _order_inner(layer, band_order(layer.conv2.pointwise.shape[0]))
        before = layer.conv2
    if head:
        order = band_order(network.to_rgb.bias.numel())
        network.to_rgb.weight.copy_(network.to_rgb.weight[order])
        network.to_rgb.bias.copy_(network.to_rgb.bias[:, order])


def _outputs(conv: StemConv | SeparableConv) -> tuple[Tensor, Tensor]:
    """What has a row for each output channel."""
    return conv.weight if isinstance(conv, StemConv) else conv.pointwise, conv.bias[0]


def _order_inner(layer: Layer, order: Tensor) -> None:
    """Permute the channels between the two convolutions."""
    inputs = layer.conv2.modulation
    for tensor in (*_outputs(layer.conv1), inputs.weight, inputs.bias, layer.conv2.depthwise):
        tensor.copy_(tensor[order])
    layer.conv2.pointwise.copy_(layer.conv2.pointwise[:, order])


def load_mapping(xml: Path, binary: Path) -> MappingNetwork:
    """The published mapping network z -> w. Raises CheckpointError."""
    constants = read_ir_constants(xml, binary)
    matrices = [c for c in constants.values() if c.shape == (LATENT_DIM, LATENT_DIM)]
    vectors = [c for c in constants.values() if c.shape == (LATENT_DIM,)]
    if len(matrices) != 8 or len(vectors) != 8:
        raise CheckpointError(
            f"{xml.name} has {len(matrices)} square weights and {len(vectors)} biases; 8 were expected"
        )
    network = MappingNetwork()
    with torch.no_grad():
        for target, array in zip([*network.weights, *network.biases], [*matrices, *vectors], strict=True):
            target.copy_(torch.from_numpy(array.copy()))
    return network.eval()
