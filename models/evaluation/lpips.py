"""LPIPS v0.1 with the AlexNet trunk, the perceptual distance of the paper's tables, on weights that the user gives.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018. The trunk is
torchvision's AlexNet, strides and all. ST-LPIPS (`models/perceptual.py`) is another number: another trunk, other heads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Self

import torch
from torch import Tensor, nn

from engine.errors import CheckpointError
from models.perceptual import IMAGE_SCALE, IMAGE_SHIFT

_EPSILON = 1e-10
_WIDTHS = (64, 192, 384, 256, 256)
_TRUNK_INDICES = (0, 3, 6, 8, 10)
"""Of the convolutions in torchvision's `features`."""


class Lpips(nn.Module):
    """Distance between two images. Frozen. Built with random weights; `load` reads the published ones."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(IMAGE_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(IMAGE_SCALE).view(1, 3, 1, 1))
        pool = nn.MaxPool2d(3, stride=2)
        self.stages = nn.ModuleList(
            (
                nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()),
                nn.Sequential(pool, nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
                nn.Sequential(pool, nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            )
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in _WIDTHS)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Self:
        """The weights in the user's files, which together hold the trunk and the heads.

        The trunk: torchvision's AlexNet, keys `features.{0,3,6,8,10}.{weight,bias}`. The heads: the official file of
        v0.1, keys `lin{0..4}.model.1.weight`. Raises CheckpointError when one is missing or does not fit, and for an
        ST-LPIPS file, whose heads have the same names and shapes.
        """
        given: dict[str, Tensor] = {}
        for path in paths:
            given |= _tensors(path)
        net, names = cls(), ", ".join(map(str, paths))
        theirs_of = _names_of(net)
        if missing := [theirs for theirs in theirs_of.values() if theirs not in given]:
            raise CheckpointError(
                f"{names}: no {missing[0]}; torchvision's AlexNet and the linear heads of LPIPS v0.1 were expected"
            )
        state = net.state_dict()
        for ours, theirs in theirs_of.items():
            if given[theirs].shape != state[ours].shape:
                found, expected = tuple(given[theirs].shape), tuple(state[ours].shape)
                raise CheckpointError(f"{names}: {theirs} is {found}; {expected} was expected")
            state[ours] = given[theirs]
        net.load_state_dict(state)
        return net

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair, [B]: 0 for equal images. a, b: [B, 3, H, W], RGB in [-1, 1], sides at least 64."""
        x, y = ((image - self.shift) / self.scale for image in (a, b))
        total = x.new_zeros(len(x))
        for stage, head in zip(self.stages, self.heads, strict=True):
            x, y = stage(x), stage(y)
            total = total + head((_unit_channels(x) - _unit_channels(y)).square()).mean(dim=(1, 2, 3))
        return total


def _unit_channels(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)


def _names_of(net: Lpips) -> dict[str, str]:
    """The published name of each of our tensors."""
    weights = [key for key in net.state_dict() if key.startswith("stages.") and key.endswith(".weight")]
    convolutions = [key.removesuffix(".weight") for key in weights]
    names = {
        f"{ours}.{kind}": f"features.{index}.{kind}"
        for ours, index in zip(convolutions, _TRUNK_INDICES, strict=True)
        for kind in ("weight", "bias")
    }
    return names | {f"heads.{index}.weight": f"lin{index}.model.1.weight" for index in range(len(_WIDTHS))}


def _tensors(path: Path) -> Mapping[str, Tensor]:
    """The tensors of one file; raises CheckpointError when it is none or an ST-LPIPS file."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path} is no file of tensors ({reason}); a state dict was expected") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path} is no flat state dict; tensors by name were expected")
    if any(key.endswith(".filt") for key in found):
        raise CheckpointError(f"{path} is an ST-LPIPS file; give the official LPIPS v0.1 heads, or leave --lpips out")
    return found
