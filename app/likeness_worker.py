"""The process that finds a likeness: `python -m app.likeness_worker --bundle NAME`.

It takes aligned crops as one NumPy array from stdin and writes to stdout a line `done SHARE` now and then and at the
end `found` and the likeness as a NumPy array, or `no REASON`. It works at a low priority and ends when its stdin does,
which happens however the program that started it comes to its end. No picture is written anywhere.
"""

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import RigidError

DONE, FOUND, NO = b"done ", b"found\n", b"no "
LOW = 10
"""Priority. At the lowest of all, beside an editor that keeps every core busy, it would never be done."""

LEAST_STEP = 0.01
"""Of the work, between two lines."""


def main(words: Sequence[str] | None = None) -> int:
    """Finds it: 0; 1 when it cannot be found."""
    parser = argparse.ArgumentParser(prog="likeness_worker", description=__doc__)
    parser.add_argument("--bundle", required=True)
    args = parser.parse_args(words)
    for name in ("SIGINT", "SIGHUP"):  # reach every process of a terminal; the program ends this one in order
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(LOW)
    crops = np.load(io.BytesIO(_read()), allow_pickle=False)
    threading.Thread(target=_wait_for_the_end, name="end", daemon=True).start()
    # Load much; who starts this process imports this module too.
    from engine.bundle import open_bundle
    from engine.bundle_build import bundle_path
    from engine.likeness import likeness_of
    from engine.runtimes.select import select

    try:
        found = likeness_of(crops, open_bundle(bundle_path(args.bundle)), select("auto"), _Teller())
    except RigidError as error:
        return _refused(str(error))
    _say(FOUND + _bytes_of(found))
    return 0


def _read() -> bytes:
    """The array's bytes, whose number stands in the eight before them; not through Python's buffer."""
    size = int.from_bytes(_exactly(8), "little")
    return _exactly(size)


def _exactly(size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(sys.stdin.fileno(), size - len(parts))
        if not part:
            raise SystemExit(1)
        parts += part
    return bytes(parts)


def framed(array: NDArray[Any]) -> bytes:
    """An array as the worker reads it."""
    content = _bytes_of(array)
    return len(content).to_bytes(8, "little") + content


def _bytes_of(array: NDArray[Any]) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()


class _Teller:
    """Says how far it is, not at every step."""

    def __init__(self) -> None:
        self._told = 0.0

    def __call__(self, share: float) -> None:
        if share - self._told >= LEAST_STEP:
            self._told = share
            _say(DONE + f"{share:.2f}\n".encode())


def _refused(reason: str) -> int:
    _say(NO + " ".join(reason.split()).encode() + b"\n")
    return 1


def _say(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _wait_for_the_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
