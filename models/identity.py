"""dlib's face recognition network in torch, so that trainings can ask who a face is: gradients reach the image.

A ResNet of 29 convolutions, each followed by a scale and a shift a channel, whose blocks are joined as dlib does: the
shorter path is padded with zeros, behind in channels and at the right and lower edge. Weights and structure:
dlib_face_recognition_resnet_model_v1, CC0. Scores use dlib itself (`models/evaluation/identity.py`).
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.assets import asset_path
from engine.errors import CheckpointError
from engine.geometry import CROP_SIZE
from models.pictures import images_from

CHIP_PX = 150
WIDTHS = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 4
"""Of the blocks, in their order. The first of a new width halves the resolution, and so does the last block."""

EMBEDDING = 128
MEAN_RGB = (122.782, 117.001, 104.298)
PIXEL_RANGE = 256.0

CROP_SCALE, CROP_LEFT, CROP_TOP = 1.191, 39.5, 65.7
"""Where dlib's own alignment finds its pixels in an aligned 256 px crop: scale, x and y of the first one's centre; the
median over 58 faces. A constant, through which gradients pass."""

STAGES = (2, 6, 9)
"""The last blocks of the widths 32, 64 and 128: what they see of two faces tells how alike these look."""

_FAINT = 1e-3
"""Length of a place's features up to which they count as nothing."""

_TENSOR_VERSION = b"\x01\x02"


class FaceIdentity(nn.Module):
    """Crops [B, 3, 256, 256] RGB [-1, 1], FFHQ's alignment -> embeddings [B, 128], of length about 1.4."""

    mean: Tensor
    down: Tensor
    across: Tensor

    def __init__(self) -> None:
        """Random weights; `load` reads the published ones."""
        super().__init__()
        self.stem = _Convolution(3, WIDTHS[0], 7, 2)
        before = (WIDTHS[0], *WIDTHS)
        self.blocks = nn.ModuleList(
            _Block(n_in, width, halves=n_in != width or n == len(WIDTHS) - 1)
            for n, (n_in, width) in enumerate(zip(before, WIDTHS, strict=False))
        )
        self.last = nn.Linear(WIDTHS[-1], EMBEDDING, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("down", _chip_lines(CROP_TOP), persistent=False)
        self.register_buffer("across", _chip_lines(CROP_LEFT).T.contiguous(), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The published weights, from `path` or the asset cache. Raises AssetMissing, CheckpointError."""
        path = asset_path("dlib_face") if path is None else path
        network, content = cls(), path.read_bytes()
        convolutions = [part for part in network.modules() if isinstance(part, _Convolution)]
        filters, shifts = list(_stored(content, b"con_4")), list(_stored(content, b"affine_"))
        matrices = list(_stored(content, b"fc_2", numbers=2))
        try:
            for conv, weights, shift in zip(convolutions, filters, shifts, strict=True):
                conv.take(weights, shift)
            network.last.weight.copy_(torch.from_numpy(matrices[-1].reshape(WIDTHS[-1], EMBEDDING).T))
        except (ValueError, RuntimeError, IndexError) as error:
            raise CheckpointError(f"{path} does not hold dlib's face recognition network: {error}") from error
        return network

    def forward(self, crop: Tensor) -> Tensor:
        return self.of_chips(self.down @ crop @ self.across)

    def features(self, crop: Tensor) -> list[Tensor]:
        """What the stem and the blocks `STAGES` see, [B, C, H, W] each; the vector of each place has length 1."""
        return self.features_of_chips(self.down @ crop @ self.across)

    def features_of_chips(self, chip: Tensor) -> list[Tensor]:
        """The same of faces that dlib has aligned, [B, 3, 150, 150]."""
        stem, *blocks = islice(self._seen(chip), STAGES[-1] + 2)
        found = [stem, *(blocks[n] for n in STAGES)]
        return [stage / (stage.square().sum(dim=1, keepdim=True).sqrt() + _FAINT) for stage in found]

    @torch.inference_mode()
    def embed(self, crops: NDArray[np.uint8], batch: int = 16) -> NDArray[np.float32]:
        """Embeddings float32 [N, 128] of uint8 RGB crops [N, 256, 256, 3]."""
        parts = (images_from(crops[n : n + batch]) for n in range(0, len(crops), batch))
        return np.concatenate([self(torch.from_numpy(part)).numpy() for part in parts])

    def of_chips(self, chip: Tensor) -> Tensor:
        """Embeddings of faces that dlib has aligned, [B, 3, 150, 150] RGB [-1, 1]."""
        *_, last = self._seen(chip)
        embedding: Tensor = self.last(last.mean(dim=(2, 3)))
        return embedding

    def _seen(self, chip: Tensor) -> Iterator[Tensor]:
        """What the stem and then each block give, one after the other."""
        x = F.relu(self.stem(((chip + 1.0) * 127.5 - self.mean) / PIXEL_RANGE))
        yield x
        x = F.max_pool2d(x, 3, 2)
        for block in self.blocks:
            x = block(x)
            yield x


class _Convolution(nn.Conv2d):
    """A convolution with dlib's padding, scaled and shifted in each channel, which its weights take in."""

    def __init__(self, n_in: int, n_out: int, size: int, stride: int) -> None:
        super().__init__(n_in, n_out, size, stride, padding=size // 2 if stride == 1 else 0)

    @torch.no_grad()
    def take(self, stored: NDArray[np.float32], affine: NDArray[np.float32]) -> None:
        """stored: weights, then the biases. affine: factors, then what is added."""
        values, (gain, shift) = torch.from_numpy(stored), torch.from_numpy(affine).view(2, -1)
        bias = cast(Tensor, self.bias)
        weight = values[: self.weight.numel()].view_as(self.weight)
        self.weight.copy_(weight * gain[:, None, None, None])
        bias.copy_(values[self.weight.numel() :] * gain + shift)


class _Block(nn.Module):
    def __init__(self, n_in: int, width: int, *, halves: bool) -> None:
        super().__init__()
        self.first = _Convolution(n_in, width, 3, 2 if halves else 1)
        self.second = _Convolution(width, width, 3, 1)
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        made = self.second(F.relu(self.first(x)))
        kept = F.avg_pool2d(x, 2) if self.halves else x
        size = [max(a, b) for a, b in zip(made.shape[1:], kept.shape[1:], strict=True)]
        return F.relu(_filled(made, size) + _filled(kept, size))


def _filled(x: Tensor, size: list[int]) -> Tensor:
    """x [B, C, H, W] with zeros up to these channels, rows and columns."""
    missing = [wanted - there for wanted, there in zip(size, x.shape[1:], strict=True)]
    return F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0])) if any(missing) else x


def _chip_lines(first: float) -> Tensor:
    """How much each line of a crop is in each line of a chip, bilinear, [150, 256]. first: where the first one lies."""
    at = (CROP_SCALE * torch.arange(CHIP_PX) + first).clamp(0.0, CROP_SIZE - 1.0)
    distance = (at[:, None] - torch.arange(CROP_SIZE)).abs()
    return (1.0 - distance).clamp(min=0.0)


def _stored(content: bytes, layer: bytes, numbers: int = 0) -> Iterator[NDArray[np.float32]]:
    """The parameters of every layer of that kind, flat, in the order of the file, which is that of computation.

    A layer is its kind as a string, some numbers, and a tensor: a version, four sizes, the values. A number is the
    count of its bytes, then these, the lowest first. Raises CheckpointError when a tensor is cut off.
    """
    at = content.find(layer)
    while at >= 0:
        place = at + len(layer)
        for _ in range(numbers):
            _, place = _number(content, place)
        assert content[place : place + 2] == _TENSOR_VERSION
        place += 2
        count = 1
        for _ in range(4):
            size, place = _number(content, place)
            count *= size
        if place + 4 * count > len(content):
            raise CheckpointError(f"the parameters of a layer {layer.decode()} are cut off")
        yield np.frombuffer(content, "<f4", count, place).copy()
        at = content.find(layer, place + 4 * count)


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of dlib's and where it ends."""
    end = at + 1 + content[at]
    return int.from_bytes(content[at + 1 : end], "little"), end


def identity_distance(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Squared distance of the embeddings of crops [B, 3, 256, 256], [B], in bf16; no gradient reaches the second ones.

    Raises what `FaceIdentity.load` does.
    """
    network = FaceIdentity.load().to(device).to(memory_format=torch.channels_last)

    def embedded(crop: Tensor) -> Tensor:
        with torch.autocast(crop.device.type, torch.bfloat16):
            embedding: Tensor = network(crop)
        return embedding.float()

    def distance(made: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = embedded(real)
        return (embedded(made) - wanted).square().sum(dim=1)

    return distance
