"""What this machine can do, and why not what it cannot."""

import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.report import versions
from engine.errors import RigidError, SourceError

State = Literal["yes", "no", "note"]

_DEVICES: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")


_TORCH_TENSORRT = ("torch-tensorrt", "torch-tensorrt-rtx")
_SCREENLESS = ("offscreen", "minimal")
_QT_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
}
_X11_LIBRARIES = {
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
}
"""Libraries that PyQt6's wheels take from the system, and the Debian packages that have them."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. state: usable, not usable, or just said."""

    state: State
    topic: str
    text: str


def examine() -> Iterator[Finding]:
    """Looks the machine over, cheapest first; every finding says what was found and, where it is bad, what helps."""
    yield Finding("note", "versions", ", ".join(f"{name} {text}" for name, text in versions().items()))
    yield Finding("note", "processor", f"{platform.processor() or platform.machine()}, {_usable_cores()} usable cores")
    yield from _runtimes()
    yield _gpu()
    yield from _assets()
    yield _bundle()
    yield _video()
    yield from _cameras()
    yield from _virtual_camera()
    yield _window()


def check_source(name: str) -> Iterator[Finding]:
    """What a file or URL holds, read to its end; raises SourceError when it cannot be a source."""
    from app.sources import open_source
    from app.video import describe

    for topic, text in describe(name):
        yield Finding("note", topic, text)
    with open_source(name) as source:
        info = source.info
        yield Finding("note", "first frame", f"{info.width_px}x{info.height_px} px, upright")
        if info.live:
            yield Finding("yes", "readable", "a live source; it was not read further")
            return
        sizes, count, last_ns = set(), 0, 0
        while (frame := source.read()) is not None:
            count, last_ns = count + 1, frame.captured_ns
            sizes.add((frame.image.shape[1], frame.image.shape[0]))
    yield Finding("yes", "readable", f"{count} frames to its end, the last at {last_ns / 1e9:.2f} s")
    if len(sizes) > 1:
        yield Finding("note", "sizes", "the frame size changes: " + ", ".join(f"{w}x{h}" for w, h in sorted(sizes)))


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _runtimes() -> Iterator[Finding]:
    from engine.runtimes.select import built_in

    for runtime in built_in():
        # Of a runtime that can be used nowhere, the device that lacks the least is told.
        device = min(_DEVICES, key=lambda device: len(runtime.obstacles(device, "auto")))
        obstacles = runtime.obstacles(device, "auto")
        if obstacles:
            yield Finding("no", f"runtime {runtime.name}", "; ".join(obstacles))
        else:
            yield Finding("yes", f"runtime {runtime.name}", runtime.describe(device, "auto"))
    if importlib.util.find_spec("torch") is None:
        yield Finding("no", "runtime eager", "the package torch is not installed: install the extra train")
    else:
        yield Finding("yes", "runtime eager", f"torch {importlib.metadata.version('torch')}")
    yield _torch_tensorrt()


def _torch_tensorrt() -> Finding:
    """Which of the two packages there is, without loading it, which takes seconds."""
    there = [package for package in _TORCH_TENSORRT if _version(package)]
    if not there:
        text = f"neither {' nor '.join(_TORCH_TENSORRT)} is installed: extras of these names, each in an environment"
        return Finding("no", "runtime torch-tensorrt", f"{text} of its own")
    if len(there) > 1:
        text = f"{' and '.join(there)} bring the same module: uninstall both, then install one"
        return Finding("no", "runtime torch-tensorrt", text)
    return Finding("note", "runtime torch-tensorrt", f"{there[0]} {_version(there[0])}; it needs an NVIDIA card")


def _version(package: str) -> str:
    """Of an installed package; empty when it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _gpu() -> Finding:
    library = "nvcuda" if sys.platform == "win32" else "cuda"
    if ctypes.util.find_library(library) is None:
        return Finding("no", "gpu", "no NVIDIA driver: its libcuda was not found; the processor does the work")
    if importlib.util.find_spec("cupy") is None:
        return Finding("no", "gpu", "there is an NVIDIA driver, but no CuPy: install the extra cuda12 or cuda13")
    return Finding("note", "gpu", "there are an NVIDIA driver and CuPy")


def _assets() -> Iterator[Finding]:
    from engine.assets import GROUPS, PULL_COMMAND, cache_folder, is_cached, select

    for group in GROUPS:
        missing = [row.name for row in select(group=group) if not is_cached(row.name)]
        state: State = "no" if missing else "yes"
        text = f"missing {', '.join(missing)}: `{PULL_COMMAND}`" if missing else f"all in {cache_folder()}"
        yield Finding(state, f"assets to {group}", text)


def _bundle() -> Finding:
    from engine.bundle import open_bundle
    from engine.bundle_build import bundle_path

    try:
        opened = open_bundle(bundle_path("default"))
    except RigidError as error:
        return Finding("no", "default bundle", str(error))
    return Finding("yes", "default bundle", f"{opened.folder}, attributes {', '.join(opened.directions)}")


def _video() -> Finding:
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, number))}"
        for name, number in av.library_versions.items()
        if name in ("libavformat", "libavcodec")
    )
    if "libx264" not in av.codecs_available:
        return Finding("no", "video files", f"PyAV's FFmpeg ({libraries}) cannot encode H.264: it lacks libx264")
    return Finding("yes", "video files", f"PyAV's FFmpeg: {libraries}, libx264")


def _cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*")) if sys.platform == "linux" else None
    if devices == []:
        yield Finding("no", "cameras", "no /dev/video* device: none is connected, or its driver is not loaded")
        return
    from app.camera import open_camera

    indices = range(4) if devices is None else [int(path.name.removeprefix("video")) for path in devices]
    for index in indices:
        try:
            open_camera(index).release()
        except SourceError as error:
            yield Finding("no", f"camera {index}", str(error))
        else:
            yield Finding("yes", f"camera {index}", f"use it with `--source {index}`")


def _virtual_camera() -> Iterator[Finding]:
    from app.virtual_camera import probe

    for usable, text in probe():
        yield Finding("yes" if usable else "no", "virtual camera", f"{text}, with `--sink virtual`" if usable else text)


def window_obstacle() -> str:
    """Why the window cannot be opened here, and what helps; empty when it can. Loads nothing."""
    if importlib.util.find_spec("PyQt6") is None:
        return "it needs the package PyQt6; install the extra `gui`"
    if sys.platform != "linux" or os.environ.get("QT_QPA_PLATFORM", "").startswith(_SCREENLESS):
        return ""
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        return "there is no display; `rigid-live run` works without one"
    wanted = _QT_LIBRARIES if os.environ.get("WAYLAND_DISPLAY") else {**_QT_LIBRARIES, **_X11_LIBRARIES}
    missing = [package for library, package in wanted.items() if not _can_load(library)]
    return f"Qt lacks system libraries; `sudo apt-get install {' '.join(missing)}`" if missing else ""


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _window() -> Finding:
    obstacle = window_obstacle()
    return Finding("no", "window", obstacle) if obstacle else Finding("yes", "window", "PyQt6 and a display")
