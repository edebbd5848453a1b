"""The ways to be a camera on each system, and the step that is missing where one cannot be used.

Only the sender's process opens them: pyvirtualcam is GPL-2, and a driver that crashes takes its process with it.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from engine.errors import SinkError
from engine.frames import ImageU8

CAMERA_NAME = "RIGID Live"

BACKENDS: Mapping[str, tuple[str, ...]] = {
    "linux": ("v4l2loopback", "pipewire"),
    "darwin": ("obs",),
    "win32": ("obs", "unitycapture"),
}
"""By system, the most widely understood first: whoever loaded v4l2loopback did so for programs that know no other."""

_LOOPBACK = "sudo modprobe v4l2loopback exclusive_caps=1 card_label='RIGID Live'"
_USER_SERVICE = "systemctl --user --now enable pipewire wireplumber"
STEPS: Mapping[str, Mapping[str, str]] = {
    "pyvirtualcam": {"": "pip install pyvirtualcam"},
    "v4l2loopback": {
        "apt-get": f"sudo apt-get install v4l2loopback-dkms && {_LOOPBACK}",
        "dnf": f"sudo dnf install akmod-v4l2loopback && {_LOOPBACK}",
        "pacman": f"sudo pacman -S v4l2loopback-dkms && {_LOOPBACK}",
        "zypper": f"sudo zypper install v4l2loopback-kmp-default && {_LOOPBACK}",
        "": _LOOPBACK,
    },
    "pipewire": {
        "apt-get": f"sudo apt-get install pipewire wireplumber && {_USER_SERVICE}",
        "dnf": f"sudo dnf install pipewire wireplumber && {_USER_SERVICE}",
        "pacman": f"sudo pacman -S pipewire wireplumber && {_USER_SERVICE}",
        "zypper": f"sudo zypper install pipewire wireplumber && {_USER_SERVICE}",
        "": _USER_SERVICE,
    },
    "obs": {
        "winget": "winget install OBSProject.OBSStudio",
        "brew": "brew install --cask obs",
        "": "install OBS Studio and start its virtual camera once",
    },
    "unitycapture": {"": "install UnityCapture"},
}
"""What helps where something is missing, by the program that installs packages; empty where there is none of them."""


class CameraBackend(Protocol):
    """A camera that other programs see. Used by one thread."""

    def send(self, image_u8: ImageU8) -> None:
        """Shows a BGR picture [H, W, 3] of the camera's size; SinkError when the camera is gone."""

    def close(self) -> None:
        """Takes the camera away."""


def open_backend(name: str, size: tuple[int, int], fps: int) -> tuple[CameraBackend, str]:
    """Opens a camera, and says under which name it is found; SinkError says why not and what helps."""
    opened: tuple[CameraBackend, str]
    try:
        opened = _open_pipewire(size, fps) if name == "pipewire" else _open_pyvirtualcam(name, size, fps)
    except ModuleNotFoundError as error:
        raise _missing(f"{name}: the package {error.name} is not installed", "pyvirtualcam") from error
    except SinkError as error:
        raise _missing(f"{name}: {error}", name) from error
    return opened


def step_for(missing: str, has: Callable[[str], object] = shutil.which) -> str:
    """The command that helps here. has: tells whether there is a program of that name."""
    steps = STEPS.get(missing, {})
    return next((command for program, command in steps.items() if not program or has(program)), "")


def _missing(found: str, what: str) -> SinkError:
    step = step_for(what)
    return SinkError(f"{found}; `{step}`" if step else found)


def _open_pipewire(size: tuple[int, int], fps: int) -> tuple[CameraBackend, str]:
    from app.pipewire import PipeWireCamera

    return PipeWireCamera(CAMERA_NAME, size, fps), f"{CAMERA_NAME} (PipeWire)"


def _open_pyvirtualcam(name: str, size: tuple[int, int], fps: int) -> tuple[CameraBackend, str]:
    pyvirtualcam: Any = import_module("pyvirtualcam")
    try:
        camera = pyvirtualcam.Camera(*size, fps, fmt=pyvirtualcam.PixelFormat.BGR, backend=name)
    except KeyError as error:
        raise SinkError("this pyvirtualcam does not know it") from error
    except (RuntimeError, ValueError, OSError) as error:
        said = str(error).removeprefix(f"'{name}' backend: ").splitlines() or [type(error).__name__]
        raise SinkError(said[0].split(". ")[0]) from error
    return _PyVirtualCam(camera), f"{_device_name(camera.device)} ({name})"


def _device_name(device: str, folder: Path = Path("/sys/class/video4linux")) -> str:
    """The name that programs show for a device: on Linux pyvirtualcam only knows its file."""
    if sys.platform != "linux":
        return device
    try:
        return (folder / Path(device).name / "name").read_text(encoding="utf-8").strip() or device
    except OSError:
        return device


class _PyVirtualCam:
    def __init__(self, camera: Any) -> None:
        self._camera = camera

    def send(self, image_u8: ImageU8) -> None:
        try:
            self._camera.send(image_u8)
        except (RuntimeError, ValueError, OSError) as error:
            raise SinkError(f"the camera is gone: {error}") from error

    def close(self) -> None:
        self._camera.close()
