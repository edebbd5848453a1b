"""A camera that Zoom, Meet, Teams or OBS can pick: this program's side of it.

The camera lives in a process of its own (app/camera_sender.py) that takes the newest frame from shared memory. When
that process dies it is started again, and shows the last frame at once.
"""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from app.camera_backends import BACKENDS
from app.camera_sender import NO, ON
from app.shared_frame import SharedFrame
from app.video_sink import fitted
from engine.errors import SinkError
from engine.frames import EditedFrame, ImageU8

log = logging.getLogger(__name__)

FPS = 30
"""What webcams give, and what programs expect; the engine may be slower."""
SENDER = (sys.executable, "-m", "app.camera_sender")
_AGAIN_S, _STEADY_S = 5.0, 2.0
"""A camera that could not be opened, or that died sooner than the second, is tried again after the first."""
_OPEN_S = 20.0
_END_S = 3.0


class VirtualCamera:
    """A camera of one size. A thread watches over its process; nothing here waits for a driver.

    `name` is what the camera is found as, empty while there is none; `problem` says why in one line, empty while there
    is one or the first is being opened.
    """

    def __init__(
        self, size: tuple[int, int], backends: Sequence[str] | None = None, sender: Sequence[str] | None = None
    ) -> None:
        """size: width and height in px, even. backends: tried in this order. SinkError when there is no memory."""
        self.name, self.problem = "", ""
        self._began = False
        self._frames = SharedFrame.create(size)
        backends = BACKENDS.get(sys.platform, ()) if backends is None else backends
        shape = map(str, size)
        self._command = [
            *(sender or SENDER),
            "--frames",
            str(self._frames.path),
            "--size",
            *shape,
            "--fps",
            str(FPS),
            *backends,
        ]
        self._process: subprocess.Popen[str] | None = None
        self._starting = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="camera", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process that is the camera now, or was it last; None before the first."""
        return self._process.pid if self._process else None

    def show(self, image_u8: ImageU8) -> None:
        """Makes a BGR picture [H, W, 3] what the camera shows, fitted to its size. Does not wait."""
        self._frames.put(fitted(image_u8, self._frames.size))

    def wait(self, timeout_s: float = _OPEN_S) -> None:
        """Waits until the camera is there; SinkError when it cannot be."""
        give_up = time.monotonic() + timeout_s
        while not self.name:
            if self.problem or time.monotonic() > give_up:
                raise SinkError(self.problem or f"the virtual camera did not open in {timeout_s:.0f} s")
            time.sleep(0.01)

    def end(self) -> None:
        """Ends the process and the thread; a process that hangs is killed."""
        self._ending.set()
        with self._starting:
            process = self._process
            if process and process.stdin:
                process.stdin.close()
        if process:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()
        self._frames.remove()

    def _work(self) -> None:
        while not self._ending.is_set():
            began_s = time.monotonic()
            try:
                was_on = self._run()
            except OSError as error:
                self.problem, was_on = f"the virtual camera's process cannot be started: {error}", False
            self.name = ""
            if was_on and not self._ending.is_set():
                self.problem = "the virtual camera's process ended; it is started again"
                log.warning("%s", self.problem)
            steady = was_on and time.monotonic() - began_s > _STEADY_S
            self._ending.wait(0 if steady else _AGAIN_S)

    def _run(self) -> bool:
        """Starts the process and stays until it has ended; True when there was a camera."""
        with self._starting:
            if self._ending.is_set():
                return False
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        was_on, reasons = False, []
        with self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(ON):
                    self.name, self.problem, self._began = line.removeprefix(ON).strip(), "", True
                    was_on = True
                    log.info("the virtual camera is on: pick %s", self.name)
                elif line.startswith(NO):
                    reasons.append(line.removeprefix(NO).strip())
        if not self._ending.is_set() and not was_on:
            self._refused(reasons or [f"its process ended with code {process.returncode}"])
        return was_on

    def _refused(self, reasons: Sequence[str]) -> None:
        problem = "no virtual camera: " + "; or ".join(reasons)
        if problem != self.problem and self._began:
            log.warning("%s", problem)  # before the first, whoever waits for it tells of it
        self.problem = problem


class CameraSink:
    """The virtual camera as a sink. compare: before | after side by side."""

    standing = True

    def __init__(self, camera: VirtualCamera, *, compare: bool) -> None:
        self.camera = camera
        self._compare = compare

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Shows the frame; never waits, and never fails: a camera that died is started again."""
        self.camera.show(np.hstack((original, edited.image)) if self._compare else edited.image)

    def finish(self, *, whole: bool) -> None:
        """Takes the camera away."""
        self.camera.end()

    def discard(self) -> None:
        """Takes the camera away."""
        self.camera.end()


def open_camera_sink(size: tuple[int, int], *, compare: bool) -> CameraSink:
    """A camera that is there, of that size in px; SinkError says what is missing."""
    camera = VirtualCamera(size)
    try:
        camera.wait()
    except SinkError:
        camera.end()
        raise
    return CameraSink(camera, compare=compare)


def probe() -> list[tuple[bool, str]]:
    """Tries every backend of this system in a process of its own: (can be used, name or reason) of each."""
    backends = BACKENDS.get(sys.platform, ())
    if not backends:
        return [(False, f"there is none for {sys.platform}")]
    command = [*SENDER, "--probe", *backends]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_OPEN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [(False, f"the camera's process cannot be used: {error}")]
    lines = [line for line in done.stdout.splitlines() if line.startswith((ON, NO))]
    if len(lines) < len(backends):
        lines.append(f"{NO}the camera's process ended with code {done.returncode}")
    return [(line.startswith(ON), line.removeprefix(ON if line.startswith(ON) else NO)) for line in lines]
