"""From slider values to n, the move of the latent code (Eq. 5)."""

from collections.abc import Mapping
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from engine.bundle import Direction

WHOLE_FROM = 0.1
"""Value from which a slider takes all of what it moves along, face or hair; up to there more and more."""


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


def hair_weight(directions: Mapping[str, Direction], values: Mapping[str, float]) -> float:
    """How much of the hair an edit takes in, [0, 2]: 0 the face without hair, 1 both, 2 hair alone.

    values: as `edit_offset` takes them.
    """
    face, hair = (
        min(sum(abs(value) for name, value in values.items() if moves(directions[name])) / WHOLE_FROM, 1.0)
        for moves in (attrgetter("face"), attrgetter("hair"))
    )
    return 1.0 + hair - face
