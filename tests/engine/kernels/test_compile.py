"""Every CUDA source compiles for every kind of card that it may meet."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from engine.kernels.load import FOLDER, REALS, SOURCES

CAPABILITIES = ("75", "80", "89", "90")
OLDEST_AND_NEWEST = ("75", "90")


def nvcc() -> str:
    """The machine's compiler, or the one that its package puts into site-packages."""
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin/nvcc"))
    found = shutil.which("nvcc") or (str(packaged[-1]) if packaged else None)
    if found is None or shutil.which("g++") is None:
        pytest.skip("the CUDA compiler nvcc, or the g++ that it needs, is not installed")
    return found


def compiled(source: Path, folder: Path, real: str, capabilities: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    targets = [word for n in capabilities for word in ("-gencode", f"arch=compute_{n},code=sm_{n}")]
    command = [nvcc(), "-std=c++17", "-Werror", "all-warnings", f"-DREAL={real}", f"-I{FOLDER}", *targets]
    command += ["-fatbin", "-o", str(folder / "out.fatbin"), str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_source_is_one_that_is_loaded():
    assert {path.stem for path in FOLDER.glob("*.cu")} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    ("real", "capabilities"),
    [
        (np.float16, OLDEST_AND_NEWEST),
        pytest.param(np.float16, CAPABILITIES, marks=pytest.mark.slow),
        pytest.param(np.float32, CAPABILITIES, marks=pytest.mark.slow),
    ],
)
def test_source_compiles_for_every_card(name, real, capabilities, tmp_path):
    done = compiled(FOLDER / f"{name}.cu", tmp_path, REALS[np.dtype(real)], capabilities)
    assert done.returncode == 0, done.stderr
    # One program for each kind of card.
    assert (tmp_path / "out.fatbin").read_bytes().count(b"\x7fELF") == len(capabilities)


def test_a_source_that_does_not_compile_shows(tmp_path):
    (tmp_path / "wrong.cu").write_text('extern "C" __global__ void wrong(float* out) { out[0] = missing; }\n')
    done = compiled(tmp_path / "wrong.cu", tmp_path, "float", OLDEST_AND_NEWEST[:1])
    assert done.returncode != 0
    assert "missing" in done.stderr
