"""What is told of the machine comes from the machine, and a card that is not there is not told of."""

import sys
from pathlib import Path

import numpy as np
import pytest

from app.bench import machine


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a program of the driver's name first in the path."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_card_is_the_first_one_the_driver_tells_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = 'case "$1" in *memory.used*) echo 512;; *) echo "H999, 600.1, 40960"; echo "H1, 600.1, 1";; esac'
    driver(tmp_path, monkeypatch, answer)
    assert machine.describe()["gpu"] == {"name": "H999", "driver": "600.1", "memory_mb": 40960.0}
    assert machine.card_mb() == 512.0


@pytest.mark.parametrize("script", ["exit 9", "true"])
def test_a_driver_that_finds_no_card_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    driver(tmp_path, monkeypatch, script)
    assert machine.describe()["gpu"] is None
    assert machine.card_mb() is None


def test_without_a_driver_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = machine.describe()
    assert told["gpu"] is None
    assert told["processor"]
    assert told["cores"] >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_grows_with_what_is_taken() -> None:
    before_mb = machine.resident_mb()
    taken = np.ones(64 << 20, np.uint8)
    assert machine.resident_mb() - before_mb == pytest.approx(64, abs=8)
    assert machine.peak_mb() >= machine.resident_mb() > taken.nbytes / (1 << 20)
