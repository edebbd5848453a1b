"""Reports that nobody measured, for tests of what is made of reports."""

from typing import Any

STAGES_MS = {
    "track": {"p50": 4.12, "p95": 5.0, "p99": 6.0, "max": 7.0},
    "total": {"p50": 89.34, "p95": 101.4, "p99": 120.0, "max": 130.0},
}
FIGURES = {"frames_in": 150, "frames_out": 150, "dropped": 0, "fps": 11.2, "phases": {}, "stages_ms": STAGES_MS}
SETTINGS = {"source": "somewhere/clip.mp4", "bundle": ["tiny"]}
VERSIONS = {"python": "3.11", "numpy": "2.4"}


def made_up_report(speedup: float = 3.0, runtimes: tuple[str, ...] = ("openvino",)) -> dict[str, Any]:
    """Of `bench`, on a machine with a card."""
    run = {
        "bundle": "folder/tiny",
        "precision": "auto",
        "variant": "full",
        "faces": 1,
        "size": "640x360",
        "faces_edited": 1,
    }
    run |= {"host_mb": 377.9, "card_mb": 1.5, "open_s": 2.0, "speedup": speedup, **FIGURES}
    return {
        "settings": SETTINGS,
        "versions": VERSIONS,
        "machine": {"processor": "Some", "cores": 2, "gpu": {"name": "H999", "driver": "600.1", "memory_mb": 4e4}},
        **FIGURES,
        "calibration_ms": {"f32": {"p50": 89.0, "max": 99.0}, "bf16": {"p50": 20.1, "max": 21.0}},
        "runs": [run | {"runtime": name, "description": f"{name} 1 on cpu"} for name in runtimes],
        "baseline": {"steps": 3, "stages_ms": {"total": {"p50": 4839.0}}},
        "speedup_over_baseline": speedup,
    }


def made_up_run_report() -> dict[str, Any]:
    """Of `run`."""
    return {"settings": SETTINGS | {"bundle": "default"}, "versions": VERSIONS, **FIGURES}
