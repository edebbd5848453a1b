"""A camera that is registered with pyvirtualcam in the sender's process, and notes what it is sent."""

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_REGISTERED = """
import os, sys, time
import numpy as np
import pyvirtualcam
from tests.app.clips import number_of
class Backend:
    def __init__(self, *, width, height, fps, fourcc, device, **more):
        self.shape, self.log = (height, width, 3), open({log!r}, "a", buffering=1)
    def send(self, frame):
        print(time.monotonic(), number_of(frame.reshape(self.shape)), os.getpid(), file=self.log)
    def close(self):
        print(time.monotonic(), "closed", os.getpid(), file=self.log)
    def device(self):
        return "Test Camera"
    def native_fourcc(self):
        return None
pyvirtualcam.register_backend("test", Backend)
from app.camera_sender import main
raise SystemExit(main())
"""


class Log:
    """What the registered backend was sent: (seconds, number in the picture or `closed`, process)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    @property
    def program(self) -> str:
        return _REGISTERED.format(log=str(self._path))

    def take_the_place_of_every_camera(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes this the only camera that there is."""
        monkeypatch.setattr("app.virtual_camera.SENDER", (sys.executable, "-c", self.program))
        monkeypatch.setattr("app.virtual_camera.BACKENDS", {sys.platform: ("test",)})

    @property
    def rows(self) -> list[tuple[float, str, int]]:
        lines = (line.split() for line in self._path.read_text(encoding="utf-8").splitlines())
        return [(float(at), what, int(process)) for at, what, process in lines]

    @property
    def numbers(self) -> list[str]:
        return [what for _, what, _ in self.rows]


def need_pyvirtualcam() -> None:
    """Skips without it; looks only, since this process must not have it."""
    if importlib.util.find_spec("pyvirtualcam") is None:
        pytest.skip("could not import pyvirtualcam")


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited {seconds} s in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
