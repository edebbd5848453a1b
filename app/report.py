"""What a run did: counts and percentiles, gathered frame by frame and written as JSON."""

import json
import platform
import random
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from app.files import write_whole
from engine.errors import SinkError
from engine.frames import EditedFrame, Phase

_PACKAGES = ("rigid-live", "numpy", "opencv-python-headless", "av", "openvino", "onnxruntime", "onnxruntime-gpu",
             "torch", "cupy-cuda12x", "cupy-cuda13x", "tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13",
             "torch-tensorrt", "torch-tensorrt-rtx")  # fmt: skip
"""What decides a run; some are always missing."""
_KEPT = 1 << 16


class Samples:
    """Durations in ms, of which up to 65,536 are kept: all of a short run, a fair sample of a long one."""

    def __init__(self) -> None:
        self._kept = array("d")
        self._seen = 0
        self._max = 0.0
        self._random = random.Random(0)

    def add(self, value_ms: float) -> None:
        """Adds one duration."""
        self._seen += 1
        self._max = max(self._max, value_ms)
        if len(self._kept) < _KEPT:
            self._kept.append(value_ms)
            return
        place = self._random.randrange(self._seen)  # reservoir sampling: each one seen is as likely to be kept
        if place < _KEPT:
            self._kept[place] = value_ms

    def percentiles(self) -> dict[str, float]:
        """The 50th, 95th and 99th percentile and the maximum, in ms."""
        p50, p95, p99 = np.percentile(np.asarray(self._kept), (50, 95, 99))
        figures = {"p50": p50, "p95": p95, "p99": p99, "max": self._max}
        return {name: round(float(figure), 3) for name, figure in figures.items()}


class RunLog:
    """Counts of one run. frames_in: frames that the source gave; dropped: those of them that no sink saw."""

    def __init__(self) -> None:
        self.frames_in = 0
        self.dropped = 0
        self.frames_out = 0
        self._phases: Counter[Phase] = Counter()
        self._stages: dict[str, Samples] = {}
        self._latency = Samples()
        self._last_ns: int | None = None
        self._intervals = 0
        self._spent_ns = 0

    @property
    def fps(self) -> float:
        """Frames after the first over the seconds from the first to the last sink write, pauses aside; 0 at first."""
        return self._intervals / (self._spent_ns / 1e9) if self._spent_ns > 0 else 0.0

    def pause(self) -> None:
        """The time until the next frame is not the run's; that frame is a first one again."""
        self._last_ns = None

    def written(self, edited: EditedFrame, stages_ms: Mapping[str, float], now_ns: int) -> None:
        """Notes a frame that the sinks took at now_ns (monotonic). stages_ms: what it took outside the engine."""
        if self._last_ns is not None:
            self._intervals += 1
            self._spent_ns += now_ns - self._last_ns
        self._last_ns = now_ns
        self.frames_out += 1
        self._phases[edited.phase] += 1
        for stage, spent_ms in (*edited.stages_ms.items(), *stages_ms.items()):
            self._stages.setdefault(stage, Samples()).add(spent_ms)

    def arrived_late_by(self, latency_ms: float) -> None:
        """Notes the time from a live frame's arrival to its sink write."""
        self._latency.add(latency_ms)

    def as_json(self, *, live: bool) -> dict[str, Any]:
        """The report's figures; latency only for live sources and paced files."""
        figures: dict[str, Any] = {
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "dropped": self.dropped,
            "fps": round(self.fps, 3),
            "phases": {phase.value: self._phases[phase] for phase in Phase},
            "stages_ms": {stage: samples.percentiles() for stage, samples in self._stages.items()},
        }
        if live and self.frames_out:
            latency = self._latency.percentiles()
            figures["latency_ms"] = {name: latency[name] for name in ("p50", "p95", "p99")}
        return figures


def versions() -> dict[str, str]:
    """The versions of Python, the system and the packages that decide what a run does."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Writes the JSON file under a temporary name, then renames it; SinkError when it cannot be written."""
    try:
        write_whole(path, (json.dumps(report, indent=2) + "\n").encode())
    except OSError as error:
        raise SinkError(f"report {path} cannot be written: {error.strerror}") from error
