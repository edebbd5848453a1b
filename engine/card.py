"""The graphics card as CuPy sees it: whether there is one, what it is, and what it says when it fails."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.errors import CardFailed

Import = Callable[[str], Any]
"""Imports a module by name; tests hand in stand-ins."""

LESS = "close other programs that use the card, or edit fewer faces (--max-faces)"
"""What to do when a card is out of memory."""


@dataclass(frozen=True)
class Card:
    """The graphics card in use. capability: "8.9". driver: the CUDA version that it supports, as CUDA counts it."""

    name: str
    capability: str
    driver: int


def card_obstacles(load: Import = importlib.import_module) -> tuple[str, ...]:
    """Every reason why CuPy can use no card here; empty when it can."""
    try:
        cupy = load("cupy")
    except (ImportError, OSError) as error:
        # A package whose shared libraries do not load is as good as none.
        missing = isinstance(error, ModuleNotFoundError)
        reason = "is not installed" if missing else f"cannot be loaded ({first_line(error)})"
        return (f"the package cupy {reason}: install the extra cuda12 or cuda13",)
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except (ImportError, cupy.cuda.runtime.CUDARuntimeError) as error:
        # CuPy loads the CUDA libraries only when they are needed.
        return (f"CuPy finds no usable NVIDIA card: {first_line(error)}",)
    return () if count else ("there is no NVIDIA card in this machine",)


def current_card(cupy: Any) -> Card:
    """The graphics card that CuPy uses."""
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    capability = f"{properties['major']}.{properties['minor']}"
    return Card(properties["name"].decode(), capability, runtime.driverGetVersion())


@contextmanager
def card_errors(cupy: Any) -> Iterator[None]:
    """What CuPy raises inside becomes CardFailed."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise CardFailed(f"the graphics card is out of memory ({first_line(error)}); {LESS}") from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise CardFailed(f"the graphics card failed: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
