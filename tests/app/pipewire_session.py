"""PipeWire without a desktop: daemon, session manager and bus of the test's own, and a program that reads a camera."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.frames import ImageU8

_NEEDED = ("dbus-daemon", "pipewire", "wireplumber", "gst-launch-1.0")


@contextmanager
def pipewire_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs PipeWire for as long as it is open, and points the environment at it."""
    missing = [program for program in _NEEDED if not shutil.which(program)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    with ExitStack() as stack:
        # A socket's path is short: pytest's folders are too deep.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rl-", ignore_cleanup_errors=True)))
        for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "HOME"):
            monkeypatch.setenv(name, str(folder))
        monkeypatch.delenv("PIPEWIRE_RUNTIME_DIR", raising=False)
        bus = f"unix:path={folder}/bus"
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus)
        _start(stack, folder, ["dbus-daemon", "--session", "--nofork", "--address", bus], folder / "bus")
        _start(stack, folder, ["pipewire"], folder / "pipewire-0")
        _start(stack, folder, ["wireplumber"], None)
        yield


@contextmanager
def portal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs the desktop's portal, which gives browsers their cameras, in a session of PipeWire's; nobody is asked."""
    programs = [Path("/usr/libexec") / name for name in ("xdg-permission-store", "xdg-desktop-portal")]
    missing = [program.name for program in programs if not program.exists()]
    if missing:
        pytest.skip(f"there is no {missing[0]} here: `sudo apt-get install xdg-desktop-portal`")
    folder = Path(os.environ["HOME"])
    # The portal offers cameras only where a desktop could ask the person. This one has been asked already.
    desktop = "[portal]\nDBusName=test.Desktop\nInterfaces=org.freedesktop.impl.portal.Access;\nUseIn=test\n"
    (folder / "test.portal").write_text(desktop, encoding="utf-8")
    monkeypatch.setenv("XDG_DESKTOP_PORTAL_DIR", str(folder))
    monkeypatch.setenv("XDG_CURRENT_DESKTOP", "test")
    store = "org.freedesktop.impl.portal.PermissionStore"
    call = ["dbus-send", "--session", "--print-reply", f"--dest={store}", f"/{store.replace('.', '/')}"]
    with ExitStack() as stack:
        for program in programs:
            _start(stack, folder, [str(program)], None)
        answer = [f"{store}.SetPermission", "string:devices", "boolean:true", "string:camera", "string:"]
        done = subprocess.run([*call, *answer, "array:string:yes"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield


class Consumer:
    """A program that picks the camera, as a video call does. Frames are read as fast as they come."""

    def __init__(self, size: tuple[int, int]) -> None:
        """size: width and height in px that the camera is expected to have."""
        self.arrivals: list[tuple[float, ImageU8]] = []
        """Monotonic seconds at which a frame was read, and the frame, uint8 BGR."""
        shown = f"video/x-raw,format=BGR,width={size[0]},height={size[1]}"
        words = ["gst-launch-1.0", "-q", "--no-fault", "pipewiresrc", "target-object=rigid-live", "!", "videoconvert"]
        self._process = subprocess.Popen(
            [*words, "!", shown, "!", "fdsink", "fd=1", "sync=false"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._size = size
        self._thread = threading.Thread(target=self._read, name="consumer", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Lets the camera go."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout
        self._process.stdout.close()

    def _read(self) -> None:
        width, height = self._size
        assert self._process.stdout
        while len(content := self._process.stdout.read(width * height * 3)) == width * height * 3:
            now_s = time.monotonic()
            self.arrivals.append((now_s, np.frombuffer(content, np.uint8).reshape(height, width, 3)))


def _start(stack: ExitStack, folder: Path, words: Sequence[str], made: Path | None) -> None:
    """Starts a program that ends with the stack, and waits until it has made its socket."""
    with (folder / f"{Path(words[0]).name}.txt").open("wb") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, env=os.environ)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    give_up = time.monotonic() + 20
    while made is not None and not made.exists():
        assert process.poll() is None, (folder / f"{words[0]}.txt").read_text()
        assert time.monotonic() < give_up, f"{words[0]} did not start"
        time.sleep(0.02)
