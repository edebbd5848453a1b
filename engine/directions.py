"""From slider values to n, the move of the latent code (Eq. 5)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine.bundle import Direction

HAIR_FROM = 0.1
"""Value from which a slider that moves hair takes all of it along; up to there more and more."""


def edit_offset(
    directions: Mapping[str, Direction], values: Mapping[str, float], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """The sum over the sliders of value x range x direction, float32 [L, D].

    values: in [-1, 1] by attribute; v > 0 moves by v x hi, v < 0 by |v| x lo. shape: (L, D).
    """
    offset = np.zeros(shape, np.float32)
    for name, value in values.items():
        direction = directions[name]
        scale = value * direction.hi if value > 0 else -value * direction.lo
        offset += np.float32(scale) * direction.direction
    return offset


def hair_share(directions: Mapping[str, Direction], values: Mapping[str, float]) -> float:
    """How much of the hair is the edit's, [0, 1]: none while no slider is moved that moves hair.

    values: as `edit_offset` takes them.
    """
    moved = sum(abs(value) for name, value in values.items() if directions[name].hair)
    return min(moved / HAIR_FROM, 1.0)
