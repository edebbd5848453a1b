"""What was measured on: processor, card, and the memory that is taken on both."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_MB = 1 << 20
_QUERY_S = 20.0


def describe() -> dict[str, Any]:
    """Processor, cores that may be used, and the card with its driver; `gpu` is None without one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    card = _ask_driver("name", "driver_version", "memory.total")
    gpu = {"name": card[0], "driver": card[1], "memory_mb": float(card[2])} if card else None
    return {"processor": _processor(), "cores": cores, "gpu": gpu}


def resident_mb() -> float | None:
    """What this process has in memory now, in MiB; None where the system does not tell."""
    return _status_mb("VmRSS")


def peak_mb() -> float | None:
    """The most that this process ever had in memory, in MiB; None where the system does not tell."""
    return _status_mb("VmHWM")


def card_mb() -> float | None:
    """What is taken of the first card's memory, by everybody, in MiB; None without a card."""
    used = _ask_driver("memory.used")
    return float(used[0]) if used else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _status_mb(name: str) -> float | None:
    """A line of the kernel's account of this process, which it gives in KiB."""
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return round(int(line.split()[1]) * 1024 / _MB, 1)
    return None


def _ask_driver(*fields: str) -> list[str] | None:
    """The fields of the first card as the driver's own program tells them (memory in MiB); None without a card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=_QUERY_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = said.splitlines()
    return [text.strip() for text in lines[0].split(",")] if lines else None
