"""Official LPIPS by round trip: random weights under the published names, against a computation in NumPy alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import CheckpointError
from models.evaluation.judges import Judges
from models.evaluation.lpips import Lpips
from models.perceptual import StLpips

CONVOLUTIONS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""torchvision's AlexNet: index in `features` -> channels out, channels in, side of the kernel."""


@pytest.fixture(scope="module")
def trunk() -> dict[str, Tensor]:
    """The published names with random weights, a classifier that LPIPS has no use for included."""
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.6.bias": torch.zeros(1000)}
    for index, (n_out, n_in, side) in CONVOLUTIONS.items():
        scale = (2 / (n_in * side * side)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(n_out, n_in, side, side, generator=generator) * scale
        state[f"features.{index}.bias"] = torch.randn(n_out, generator=generator) * 0.1
    return state


@pytest.fixture(scope="module")
def heads() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = [n_out for n_out, _, _ in CONVOLUTIONS.values()]
    return {f"lin{n}.model.1.weight": torch.rand(1, w, 1, 1, generator=generator) for n, w in enumerate(widths)}


@pytest.fixture
def files(trunk: dict[str, Tensor], heads: dict[str, Tensor], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "alexnet.pth", tmp_path / "alex.pth"]
    for path, state in zip(paths, (trunk, heads), strict=True):
        torch.save(state, path)
    return paths


def windows(x: NDArray[np.float64], side: int, stride: int) -> NDArray[np.float64]:
    return sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]


def by_hand(trunk: dict[str, Tensor], heads: dict[str, Tensor], *images: NDArray[np.float64]) -> float:
    """LPIPS v0.1 of two images [3, H, W] in [-1, 1], as its paper and its file describe it."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    pair = [(image - shift[:, None, None]) / scale[:, None, None] for image in images]
    total = 0.0
    for number, (index, (_, _, side)) in enumerate(CONVOLUTIONS.items()):
        kernel = trunk[f"features.{index}.weight"].numpy().astype(np.float64)
        bias = trunk[f"features.{index}.bias"].numpy().astype(np.float64)
        stride, padding = (4, 2) if index == 0 else (1, side // 2)
        for n, x in enumerate(pair):
            pooled = windows(x, 3, 2).max(axis=(3, 4)) if number in (1, 2) else x
            padded = np.pad(pooled, ((0, 0), (padding, padding), (padding, padding)))
            summed = np.einsum("cyxij,ocij->oyx", windows(padded, side, stride), kernel, optimize=True)
            pair[n] = np.maximum(summed + bias[:, None, None], 0)
        unit = [x / (np.sqrt(np.sum(x**2, axis=0)) + 1e-10) for x in pair]
        weight = heads[f"lin{number}.model.1.weight"].numpy().ravel()
        total += np.mean(np.tensordot(weight, (unit[0] - unit[1]) ** 2, axes=1))
    return float(total)


def test_against_numpy(files: list[Path], trunk: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 3, 80, 67))
    b = 0.5 * a + 0.5 * b
    distance = Lpips.load(files)
    found = distance(torch.from_numpy(np.stack([a, a])).float(), torch.from_numpy(np.stack([b, a])).float())
    assert found[0].item() == pytest.approx(by_hand(trunk, heads, a, b), rel=1e-4)
    assert found[1].item() == 0


def test_one_file_may_hold_both(trunk: dict[str, Tensor], heads: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(trunk | heads, tmp_path / "both.pth")
    images = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    torch.save(heads, tmp_path / "heads.pth")
    torch.save(trunk, tmp_path / "trunk.pth")
    apart = Lpips.load([tmp_path / "heads.pth", tmp_path / "trunk.pth"])
    torch.testing.assert_close(Lpips.load([tmp_path / "both.pth"])(*images), apart(*images))


def test_missing_parts_are_named(files: list[Path], heads: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no features\.0\.weight"):
        Lpips.load(files[1:])
    with pytest.raises(CheckpointError, match=r"no lin0\.model\.1\.weight"):
        Lpips.load(files[:1])
    vgg = {name: torch.zeros(1, 512, 1, 1) for name in heads}
    torch.save(vgg, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"lin0\.model\.1\.weight is \(1, 512, 1, 1\); \(1, 64, 1, 1\)"):
        Lpips.load([files[0], tmp_path / "vgg.pth"])


def test_shift_tolerant_heads_are_no_official_ones(files: list[Path], heads: dict[str, Tensor]) -> None:
    """They have the same names and shapes; the blur kernels beside them give them away."""
    torch.save({**heads, "net.slice1.1.filt": torch.ones(1, 1, 3, 3)}, files[1])
    with pytest.raises(CheckpointError, match="ST-LPIPS"):
        Lpips.load(files)


def test_other_files_are_refused(files: list[Path], tmp_path: Path) -> None:
    for content in (b"", b"no tensors"):
        (tmp_path / "other.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"other\.pth"):
            Lpips.load([*files, tmp_path / "other.pth"])
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="flat"):
        Lpips.load([*files, tmp_path / "other.pth"])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Lpips.load([tmp_path / "absent.pth"])


def test_the_two_distances_never_share_a_name() -> None:
    assert Judges(Lpips(), None, None, None, None).distance_name == "lpips"
    assert Judges(StLpips(), None, None, None, None).distance_name == "st_lpips"
