"""From slider values to n, the move of the latent code (Eq. 5), and to what of the picture it is meant for."""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.direction_file import Direction

WHOLE_FROM = 0.1
"""Value from which a slider takes all of what it moves along, face or hair; up to there more and more."""

OFF_FROM = 0.3
"""Distance below 0 from which a slider has wholly taken off what it takes off."""

ZONE_FADE = 0.08
"""Share of a crop's height over which an edit turns into what it was made from, beyond its zone."""


def edit_offset(
    directions: Mapping[str, Direction], values: Mapping[str, float], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """The sum over the sliders of value x range x direction, float32 [L, D].

    values: in [-1, 1] by attribute; v > 0 moves by v x hi, v < 0 by |v| x lo. shape: (L, D).
    """
    offset = np.zeros(shape, np.float32)
    for name, value in values.items():
        offset += np.float32(_units(directions[name], value)) * directions[name].direction
    return offset


def _units(direction: Direction, value: float) -> float:
    return value * direction.hi if value > 0 else -value * direction.lo


def edit_shift(directions: Mapping[str, Direction], values: Mapping[str, float], size: int) -> NDArray[np.int32]:
    """How far an edit is moved within a crop of that size, (to the right, down) in whole pixels, int32 [2].

    A shift by parts of a pixel would blur. values: as `edit_offset` takes them.
    """
    moves = [_units(directions[name], value) * np.array(directions[name].shift) for name, value in values.items()]
    return np.rint(size * np.sum(moves, axis=0)).astype(np.int32) if moves else np.zeros(2, np.int32)


class Reach(NamedTuple):
    """Where in its crop an edit acts, of F faces; NumPy's arrays, or CuPy's where these have been placed on a card.

    hair, outline, eyes, mouth, glasses, reshaped, tones: float32 [F], `hair_weight` and `meant_for` of the six. zones:
    float32 [F, S], `zone_shares`. shifts: int32 [F, 2], `edit_shift`.
    off: float32 [0, 1] [F, G, G], where a face takes off what it wears, `masks.worn`; None for nowhere.
    """

    hair: NDArray[np.float32]
    outline: NDArray[np.float32]
    eyes: NDArray[np.float32]
    mouth: NDArray[np.float32]
    glasses: NDArray[np.float32]
    reshaped: NDArray[np.float32]
    tones: NDArray[np.float32]
    zones: NDArray[np.float32]
    shifts: NDArray[np.int32]
    off: NDArray[np.float32] | None = None

    def of(self, faces: Sequence[int] | int) -> "Reach":
        """Of these faces alone; of one that is given by its number, without the first axis."""
        return self._replace(**{name: part[faces] for name, part in self._asdict().items() if part is not None})


def edit_reach(directions: Mapping[str, Direction], faces: Iterable[Mapping[str, float]], size: int) -> Reach:
    """Of faces with these values of the sliders (as `edit_offset` takes them), in crops of that size."""
    values = tuple(faces)

    def weights(part: str) -> NDArray[np.float32]:
        return np.array([meant_for(part, directions, one) for one in values], np.float32)

    # What is taken off is worn before the eyes, and may not be seen there either.
    bared = np.array([max(taken_off(directions, one).values(), default=0.0) for one in values], np.float32)
    return Reach(
        hair=np.array([hair_weight(directions, one) for one in values], np.float32),
        outline=weights("outline"),
        eyes=np.maximum(weights("eyes"), bared),
        mouth=weights("mouth"),
        glasses=weights("glasses"),
        reshaped=weights("reshapes"),
        tones=weights("tones"),
        zones=np.stack([zone_shares(directions, one, size) for one in values]),
        shifts=np.stack([edit_shift(directions, one, size) for one in values]),
    )


def hair_weight(directions: Mapping[str, Direction], values: Mapping[str, float]) -> float:
    """How much of the hair an edit takes in, [0, 2]: 0 the face without hair, 1 both, 2 hair alone.

    values: as `edit_offset` takes them.
    """
    of_hair = {name: value for name, value in values.items() if value < 0.0 or directions[name].hair_above}
    return 1.0 + meant_for("hair", directions, of_hair) - meant_for("face", directions, values)


def meant_for(part: str, directions: Mapping[str, Direction], values: Mapping[str, float]) -> float:
    """How far the sliders are set that change this part, [0, 1]: 0 without any that is meant to.

    part: of what a `Direction` says of itself: face, hair, outline, eyes, mouth, glasses, reshapes, tones. values: as
    `edit_offset` takes them.
    """
    moves = attrgetter(part)
    return min(sum(abs(value) for name, value in values.items() if moves(directions[name])) / WHOLE_FROM, 1.0)


def taken_off(directions: Mapping[str, Direction], values: Mapping[str, float]) -> Mapping[str, float]:
    """The parser's classes of what an edit takes off a face, and how much of it, (0, 1].

    values: as `edit_offset` takes them.
    """
    set_below = [(directions[name].takes_off, -value) for name, value in values.items() if value < 0.0]
    return {thing: min(distance / OFF_FROM, 1.0) for thing, distance in set_below if thing}


def zone_shares(directions: Mapping[str, Direction], values: Mapping[str, float], size: int) -> NDArray[np.float32]:
    """How much each row of a crop takes of an edit, float32 [0, 1] [size].

    A direction that lets a beard grow also moves the eyes a little: what lies outside the zones of all sliders that are
    set is left alone. A slider brings in its zone as it goes up to WHOLE_FROM, as far as others have not; one alone has
    all of its zone at once. values: as `edit_offset` takes them.
    """
    reach = {name: min(abs(value) / WHOLE_FROM, 1.0) for name, value in values.items() if value}
    if not reach:
        return np.ones(size, np.float32)
    furthest = max(reach.values())
    zones = [np.float32(share / furthest) * zone_rows(directions[name].zone, size) for name, share in reach.items()]
    shares: NDArray[np.float32] = np.maximum.reduce(zones)
    return shares


def zone_rows(zone: tuple[float, float], size: int) -> NDArray[np.float32]:
    """1 between the ends of a zone, falling smoothly to 0 over ZONE_FADE beyond, float32 [size]."""
    rows = (np.arange(size) + 0.5) / size
    outside = np.maximum(zone[0] - rows, rows - zone[1])
    share = np.clip(1.0 - outside / ZONE_FADE, 0.0, 1.0)
    smooth: NDArray[np.float32] = (share * share * (3.0 - 2.0 * share)).astype(np.float32)
    return smooth
