"""The cameras that are connected, by name, without opening them."""

import sys
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path("/sys/class/video4linux")
_GUESSED = 4


@dataclass(frozen=True)
class Camera:
    """A camera. index: what `--source` takes."""

    index: int
    name: str


def list_cameras(folder: Path = _FOLDER) -> tuple[Camera, ...]:
    """The cameras there are, by index. folder: where Linux lists video devices.

    Linux knows their names; a camera's further nodes, which carry metadata, are left out. Other systems do not say
    without opening them: there the first four indices are offered.
    """
    if sys.platform != "linux":
        return tuple(Camera(index, f"Camera {index}") for index in range(_GUESSED))
    found = []
    for device in folder.glob("video*"):
        number = device.name.removeprefix("video")
        if number.isdecimal() and _read(device / "index") in ("", "0"):
            found.append(Camera(int(number), _read(device / "name") or f"Camera {number}"))
    return tuple(sorted(found, key=lambda camera: camera.index))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
