"""The process that is the virtual camera: `python -m app.camera_sender`.

It takes the newest frame from shared memory and sends it at a fixed rate; without a new one the last is sent again.
What it has to say goes to stdout, one line each: `on NAME` once the camera is there, `no REASON` for every way that
cannot be used. It ends when its stdin does, which happens however the program that started it comes to its end.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2

from app.camera_backends import CameraBackend, open_backend
from app.shared_frame import SharedFrame
from engine.errors import SinkError

ON, NO = "on ", "no "
_PROBE_SIZE, _PROBE_FPS = (640, 360), 30
_HANG_S = 2.0


def main(words: Sequence[str] | None = None) -> int:
    """Sends until it is told to end: 0; 1 when no camera can be opened or the one that was is gone."""
    parser = argparse.ArgumentParser(prog="camera_sender", description=__doc__)
    parser.add_argument("--probe", action="store_true", help="only tell which backends can be used")
    parser.add_argument("--frames", type=Path, help="the shared memory's file")
    parser.add_argument("--size", type=int, nargs=2, default=_PROBE_SIZE, help="width and height in px")
    parser.add_argument("--fps", type=int, default=_PROBE_FPS)
    parser.add_argument("backends", nargs="+", help="tried in this order")
    args = parser.parse_args(words)
    if args.probe:
        return _probe(args.backends)
    for name in ("SIGINT", "SIGHUP"):  # reach every process of a terminal; the program ends this one in order
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(1)  # the processor is the engine's
    frames = SharedFrame(args.frames, tuple(args.size))
    ending = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ending, frames), name="end", daemon=True).start()
    camera = _open_first(args.backends, frames.size, args.fps)
    if camera is None:
        return 1
    try:
        _send(camera, frames, args.fps, ending)
    except SinkError as error:
        _say(NO, str(error))
        return 1
    finally:
        camera.close()
    return 0


def _send(camera: CameraBackend, frames: SharedFrame, fps: int, ending: threading.Event) -> None:
    due_s = time.monotonic()
    while not ending.is_set():
        camera.send(frames.take()[1])
        due_s = max(due_s + 1 / fps, time.monotonic() - 1 / fps)
        ending.wait(max(due_s - time.monotonic(), 0))


def _open_first(backends: Sequence[str], size: tuple[int, int], fps: int) -> CameraBackend | None:
    for name in backends:
        try:
            camera, found_as = open_backend(name, size, fps)
        except SinkError as error:
            _say(NO, str(error))
        else:
            _say(ON, found_as)
            return camera
    return None


def _probe(backends: Sequence[str]) -> int:
    for name in backends:
        camera = _open_first([name], _PROBE_SIZE, _PROBE_FPS)
        if camera is not None:
            camera.close()
    return 0


def _wait_for_the_end(ending: threading.Event, frames: SharedFrame) -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through Python's buffer, whose lock this thread would keep at exit
        pass
    frames.remove()  # a program that was killed cannot do it
    ending.set()
    time.sleep(_HANG_S)
    os._exit(1)  # the driver hangs


def _say(word: str, text: str) -> None:
    print(word + text, flush=True)  # noqa: T201 - the protocol between the two processes


if __name__ == "__main__":
    raise SystemExit(main())
