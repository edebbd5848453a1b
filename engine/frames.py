"""The records that travel through the program: a camera's frame, the sliders, the edited frame."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from engine.errors import ValueOutOfRange

ImageU8 = NDArray[np.uint8]
"""A frame as cameras give it: uint8 BGR [H, W, 3]."""


class Phase(StrEnum):
    """Where a face is in its life; the transitions are a table in `engine/state.py`."""

    SEARCHING = "searching"
    ANCHORING = "anchoring"
    TRACKING = "tracking"
    HOLDING = "holding"


@dataclass(frozen=True)
class CameraFrame:
    """One frame from a source; never written to after creation.

    index: position in the source, from 0. captured_ns: capture time on a monotonic clock; for files the
    presentation time. image: uint8 BGR [H, W, 3].
    """

    index: int
    captured_ns: int
    image: ImageU8


@dataclass(frozen=True)
class Controls:
    """What the person asks for: one value in [-1, 1] an attribute; absent means 0, "leave alone".

    Raises ValueOutOfRange when a value is outside [-1, 1] or nan.
    """

    values: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if not math.isfinite(value) or abs(value) > 1.0:
                raise ValueOutOfRange(f"attribute {name!r} is {value}; a value from -1 to 1 was expected")
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @property
    def neutral(self) -> bool:
        """True when every attribute is 0, so that the frame goes out untouched."""
        return not any(self.values.values())


@dataclass(frozen=True)
class EditedFrame:
    """What leaves the engine for one `CameraFrame`.

    image: uint8 BGR [H, W, 3], the input array itself when nothing is edited. phase: of the largest face.
    stages_ms: wall milliseconds a stage took.
    """

    index: int
    captured_ns: int
    image: ImageU8
    phase: Phase
    stages_ms: Mapping[str, float]
