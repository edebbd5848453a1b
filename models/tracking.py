"""The tracker's two networks in torch, layer for layer those of the published files, so that training starts from them.

Both are read as RGB [B, 192, 192, 3], as `engine.landmarks` and `engine.detection` hand it over, and answer with the
published outputs. The face mesh's last layer, two thirds of its numbers, is split into two of a lower rank; the
detector's bottlenecks may be narrower than the published ones (`models.training.tracking_start`).

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019; Bazarevsky et al.,
"BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import CheckpointError
from engine.openvino_core import openvino_core

INPUT_PX = 192
POINTS = 468
RANK = 64
"""Of the face mesh's last layer."""

FAINT_PX = 0.05
"""What the mesh trembles by, rms over its points: components of a smaller spread stay faint."""

FACE_ROWS, FACE_COLUMNS = slice(36, 256), slice(18, 238)
"""The face mesh's window in an aligned crop of 256 px: the face's box, grown by half."""

BOTTLENECKS = (8, 8, 12, 12, 16, 24, 32, 32, 36, 48, 64, 96, 96, 96, 96)
"""Widths inside the detector's blocks on the way down, as published."""

NARROW_BOTTLENECKS = (8, 8, 12, 12, 16, 24, 32, 32, 36, 48, 64, 72, 72, 72, 72)
"""Those of the detector that ships: the four blocks at 6 px hold a third of its numbers."""


class SamePad(nn.Module):
    """What a 3x3 convolution of stride 2 needs at even sizes to give half of them: one row and column at the end."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1, 0, 1))


def _depthwise(width: int, stride: int) -> nn.Sequential:
    pad = SamePad() if stride == 2 else nn.Identity()
    return nn.Sequential(pad, nn.Conv2d(width, width, 3, stride, 0 if stride == 2 else 1, groups=width))


class Block(nn.Module):
    """Separable convolutions beside a shortcut: pooled where the stride is 2, new channels zero.

    inner: width of a bottleneck with a second separable convolution behind it, None for one convolution alone.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, activation: type[nn.PReLU] | None, inner: int | None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_depthwise(c_in, stride)]
        if inner is not None:
            layers += [nn.Conv2d(c_in, inner, 1), nn.ReLU(), _depthwise(inner, 1)]
        self.branch = nn.Sequential(*layers, nn.Conv2d(inner or c_in, c_out, 1))
        self.activation: nn.Module = nn.ReLU() if activation is None else activation(c_out)
        self.stride, self.grown = stride, c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.max_pool2d(x, 2) if self.stride == 2 else x
        if self.grown:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.grown))
        result: Tensor = self.activation(shortcut + self.branch(x))
        return result


def _mesh_block(c_in: int, c_out: int, stride: int = 1) -> Block:
    return Block(c_in, c_out, stride, nn.PReLU, None)


class LandmarkNet(nn.Module):
    """RGB [B, 192, 192, 3] in [0, 1] -> points [B, 1404] (x, y, z in window pixels) and presence logits [B, 1].

    rank: of the last layer; None for the published one.
    """

    def __init__(self, rank: int | None = RANK) -> None:
        super().__init__()
        trunk: list[nn.Module] = [SamePad(), nn.Conv2d(3, 16, 3, 2), nn.PReLU(16), _mesh_block(16, 16)]
        trunk.append(_mesh_block(16, 16))
        for c_in, c_out in ((16, 32), (32, 64), (64, 128), (128, 128)):
            trunk += [_mesh_block(c_in, c_out, 2), _mesh_block(c_out, c_out), _mesh_block(c_out, c_out)]
        self.trunk = nn.Sequential(*trunk)
        self.presence = nn.Sequential(*_narrowing(1), nn.Conv2d(32, 1, 3))
        last = [nn.Conv2d(32, 3 * POINTS, 3)] if rank is None else []
        if rank is not None:
            last = [nn.Conv2d(32, rank, 3, bias=False), nn.Conv2d(rank, 3 * POINTS, 1)]
        self.points = nn.Sequential(*_narrowing(3), *last)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(rgb.permute(0, 3, 1, 2))
        presence = self.presence(features)
        return self.points(features).flatten(1), presence.flatten(1)


class MeshComponents(nn.Module):
    """Aligned crops [B, 3, 256, 256] RGB [-1, 1] -> the first principal components of their meshes [B, N].

    How a head is turned, how far its mouth is open, how wide its face is: each number has a spread of about 1 over
    faces. Always float32, for pixels are at stake; never trained, so that what it knows from the mesh's own training,
    on far more faces than the encoders see, stays.
    """

    def __init__(self, count: int) -> None:
        """Random weights; `of` takes a mesh network's."""
        super().__init__()
        self.trunk = LandmarkNet().trunk
        self.components = nn.Sequential(*_narrowing(3), nn.Conv2d(32, count, 3))
        self.requires_grad_(False)

    @classmethod
    @torch.no_grad()
    def of(cls, network: LandmarkNet, points: Tensor, count: int) -> Self:
        """points: the network's, of many faces, [N, 1404]; their principal components are taken."""
        made = cls(count)
        *shared, inner, outer = network.points
        made.trunk.load_state_dict(network.trunk.state_dict())
        made.components[:-1].load_state_dict(nn.Sequential(*shared).state_dict())
        mean = points.mean(0)
        _, spreads, axes = torch.linalg.svd(points - mean, full_matrices=False)
        trembling = FAINT_PX * POINTS**0.5
        scaled = axes[:count] / (spreads[:count, None] / len(points) ** 0.5 + trembling)
        to_points, of_points = cast(Tensor, outer.weight), cast(Tensor, outer.bias)
        inner_weight = cast(Tensor, inner.weight)
        weight = torch.einsum("np,pr,rchw->nchw", scaled, to_points[:, :, 0, 0], inner_weight)
        made.components[-1].load_state_dict({"weight": weight, "bias": scaled @ (of_points - mean)})
        return made.eval()

    def forward(self, crop: Tensor) -> Tensor:
        with torch.autocast("cuda" if crop.is_cuda else "cpu", enabled=False):
            found: Tensor = self.components(self.trunk(mesh_window(crop.float())))
        return found.flatten(1)


def mesh_window(crop: Tensor) -> Tensor:
    """What the face mesh sees of aligned crops [B, 3, 256, 256] RGB [-1, 1]: [B, 3, 192, 192] in [0, 1]."""
    window = crop[:, :, FACE_ROWS, FACE_COLUMNS]
    return 0.5 * F.interpolate(window, size=(INPUT_PX, INPUT_PX), mode="bilinear") + 0.5


def plain_slopes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a graph that ships, which keeps the slopes of activations as [C, 1, 1], as a module has them."""
    return {name: tensor.flatten() if tensor.ndim == 3 else tensor for name, tensor in weights.items()}


def _narrowing(blocks: int) -> list[nn.Module]:
    """From the trunk's 128 channels at 6 px to 32 at 3 px."""
    wide = [_mesh_block(128, 128, 2), *(_mesh_block(128, 128) for _ in range(blocks - 1))]
    return [*wide, nn.Conv2d(128, 32, 1), nn.PReLU(32), _mesh_block(32, 32)]


def _blocks(c_in: int, widths: Sequence[int], inner: Sequence[int], stride: int) -> nn.Sequential:
    """Blocks of the detector, the first with that stride."""
    layers = []
    for number, (width, narrow) in enumerate(zip(widths, inner, strict=True)):
        layers.append(Block(c_in, width, stride if number == 0 else 1, None, narrow))
        c_in = width
    return nn.Sequential(*layers)


def _joint(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.ReLU())


class DetectorNet(nn.Module):
    """RGB [B, 192, 192, 3] in [-1, 1] -> logits [B, 2304, 1] and boxes with key points [B, 2304, 16].

    bottlenecks: widths inside the blocks on the way down.
    """

    def __init__(self, bottlenecks: Sequence[int] = NARROW_BOTTLENECKS) -> None:
        super().__init__()
        inner = iter(bottlenecks)
        stem: list[nn.Module] = [SamePad(), nn.Conv2d(3, 32, 3, 2), nn.ReLU()]
        self.stem = nn.Sequential(*stem, *_blocks(32, (32, 32), _take(inner, 2), 1))
        self.down = nn.ModuleList()
        c_in = 32
        for widths in ((48, 48, 64), (96, 128, 128), (144, 192, 256), (384, 384, 384, 384)):
            self.down.append(_blocks(c_in, widths, _take(inner, len(widths)), 2))
            c_in = widths[-1]
        self.deepest = _joint(384, 96)
        self.lateral = nn.ModuleList([_joint(64, 48), _joint(128, 64), _joint(256, 96)])
        self.up = nn.ModuleList(
            [
                nn.Sequential(*_blocks(96, (96, 96), (48, 48), 1), *_joint(96, 64)),
                nn.Sequential(*_blocks(64, (64, 64), (32, 32), 1), *_joint(64, 48)),
                _blocks(48, (48,), (24,), 1),
            ]
        )
        self.logits, self.boxes = nn.Conv2d(48, 1, 1), nn.Conv2d(48, 16, 1)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        x, kept = self.stem(rgb.permute(0, 3, 1, 2)), []
        for down, lateral in zip(self.down[:-1], self.lateral, strict=True):
            x = down(x)
            kept.append(lateral(x))
        x = self.deepest(self.down[-1](x))
        for up, finer in zip(self.up, reversed(kept), strict=True):
            x = up(F.interpolate(x, scale_factor=2.0, mode="bilinear") + finer)
        logits, boxes = (head(x).flatten(2).transpose(1, 2) for head in (self.logits, self.boxes))
        return logits, boxes


def _take(numbers: Iterator[int], count: int) -> list[int]:
    return [next(numbers) for _ in range(count)]


def load_published(network: nn.Module, path: Path) -> None:
    """Puts the weights of a published tflite file into a network of the same layers.

    Raises CheckpointError when its layers are others.
    """
    layers, stored = layers_as_run(network, torch.zeros(1, INPUT_PX, INPUT_PX, 3)), list(_stored_layers(path))
    if len(layers) != len(stored):
        raise CheckpointError(f"{path} has {len(stored)} layers with weights, but {len(layers)} were expected")
    with torch.no_grad():
        for layer, arrays in zip(layers, stored, strict=True):
            for parameter, array in zip(layer.parameters(), arrays, strict=True):
                if parameter.numel() != array.size:
                    raise CheckpointError(f"{path} has a layer of {array.shape}; {tuple(parameter.shape)} was expected")
                parameter.copy_(torch.from_numpy(array.copy()).reshape(parameter.shape))


def layers_as_run(network: nn.Module, example: Tensor) -> list[nn.Module]:
    """The convolutions and the activations with slopes of a network, in the order in which they run on an input."""
    run: list[nn.Module] = []
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.PReLU)]
    handles = [layer.register_forward_pre_hook(lambda layer, _: run.append(layer)) for layer in layers]
    with torch.no_grad():
        network(example)
    for handle in handles:
        handle.remove()
    return run


def _stored_layers(path: Path) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Weight and bias of each convolution, slopes of each activation, in the order of the file."""
    for node in openvino_core().read_model(path).get_ordered_ops():
        kind = node.get_type_name()
        if kind == "PRelu":
            yield (_constant(node, 1),)
        elif kind in ("Convolution", "GroupConvolution"):
            (bias,) = (other.get_node() for other in node.output(0).get_target_inputs())
            weight = _constant(node, 1)
            if kind == "GroupConvolution" and weight.shape[0] == 1:
                weight = np.moveaxis(weight, 3, 0)  # half-precision filters come as they are stored: [1, 3, 3, C]
            yield weight, _constant(bias, 1)


def _constant(node: Any, port: int) -> NDArray[np.float32]:
    """The constant that an input comes from, past conversions and reshapes."""
    while (node := node.input_value(port).get_node()).get_type_name() != "Constant":
        port = 0
    return np.asarray(node.get_data(), np.float32)
