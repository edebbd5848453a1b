"""`directions.npz`: the attributes of a bundle, as a training writes them and the engine reads them.

For each attribute NAME: `NAME.direction` float32 [L, D], `NAME.range` float32 [2] = (lo, hi), `NAME.label`, `NAME.face`
and `NAME.hair`, whether these change with it, `NAME.hair_above`, `NAME.zone` float32 [2], the rows between which they
do, `NAME.shift` float32 [2] = (x, y), how far the edit is moved, `NAME.takes_off`, `NAME.outline`, `NAME.eyes`,
`NAME.mouth`, `NAME.glasses`, `NAME.reshapes` and `NAME.tones`; and `generator_id`, which ties them to the generator
they were found in.
"""

import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError

DIRECTIONS = "directions.npz"

SAID = ("face", "hair", "hair_above", "outline", "eyes", "mouth", "glasses", "reshapes", "tones")
"""What a direction says of itself, each yes or no."""

WHOLE_CROP = (0.0, 1.0)
"""The zone of a direction that changes all of a face."""


@dataclass(frozen=True)
class Direction:
    """One attribute: v > 0 moves the code by v * hi * direction, v < 0 by |v| * lo * direction (lo < 0).

    direction: float32 [L, D], the offset of W+ for one unit. face, hair: whether face and hair change with it; what
    does not is shown as it is in the frame. hair_above: whether hair changes with v > 0 too, not with v < 0 alone.
    zone: the rows of an aligned crop between which the face changes with it, as shares of the crop's height from the
    top; what lies above and below is shown as it is in the frame. shift: how far the edit is moved within the crop for
    one unit, (to the right, down), as shares of its side: a crop follows eyes and mouth, so that under a direction that
    turns the head it is the head that would go astray. takes_off: the parser's class of what v < 0 takes off the face;
    "" for nothing. outline, eyes, mouth: whether the head's outline, or what is seen there, eyes, and lips change with
    it; else the noise map has its full say there, and they are shown as they are in the frame, but for hair, which
    takes other colours where it changes. glasses: whether what is worn before the eyes changes with it; else it is the
    frame's, with what is seen through it, whose colours alone change. reshapes: whether shapes change with it; else
    colours alone do, and all detail stays the frame's. tones: whether the colours of skin change with it; else they
    stay the frame's.
    """

    name: str
    label: str
    direction: NDArray[np.float32]
    lo: float
    hi: float
    face: bool = True
    hair: bool = True
    hair_above: bool = True
    zone: tuple[float, float] = WHOLE_CROP
    shift: tuple[float, float] = (0.0, 0.0)
    takes_off: str = ""
    outline: bool = True
    eyes: bool = True
    mouth: bool = True
    glasses: bool = True
    reshapes: bool = True
    tones: bool = True


def read_directions(path: Path, generator_id: str) -> Mapping[str, Direction]:
    """The attributes of a file, by name in alphabetical order; their arrays cannot be written to.

    Raises BundleError when the file cannot be read, belongs to another generator, or holds a direction whose range or
    numbers are not what they should be.
    """
    try:
        # The stream is opened here because np.load leaves its own open when the file is no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} cannot be read as directions: {error}") from error
    found = str(arrays.get("generator_id", "no generator"))
    if found != generator_id:
        raise BundleError(f"{path} belongs to generator {found}, but {generator_id} was expected")
    names = sorted(key.removesuffix(".direction") for key in arrays if key.endswith(".direction"))
    return MappingProxyType({name: _direction(name, arrays, path) for name in names})


def _direction(name: str, arrays: Mapping[str, NDArray[Any]], path: Path) -> Direction:
    direction, span = arrays[f"{name}.direction"], arrays.get(f"{name}.range")
    if direction.ndim != 2 or direction.dtype != np.float32 or not np.isfinite(direction).all():
        raise BundleError(
            f"{path}: {name}.direction is {direction.dtype} {list(direction.shape)}, "
            f"but finite float32 numbers [L, D] were expected"
        )
    if span is None or span.shape != (2,) or not np.isfinite(span).all() or not span[0] <= 0 <= span[1]:
        raise BundleError(f"{path}: {name}.range is {span}, but two numbers lo <= 0 <= hi were expected")
    zone = np.asarray(arrays.get(f"{name}.zone", WHOLE_CROP))
    if zone.shape != (2,) or not 0.0 <= zone[0] < zone[1] <= 1.0:
        raise BundleError(f"{path}: {name}.zone is {zone}, but two numbers 0 <= top < bottom <= 1 were expected")
    shift = np.asarray(arrays.get(f"{name}.shift", (0.0, 0.0)))
    if shift.shape != (2,) or not np.abs(shift).max() <= 1.0:
        raise BundleError(f"{path}: {name}.shift is {shift}, but two numbers from -1 to 1 were expected")
    direction.flags.writeable = False
    label, takes_off = str(arrays.get(f"{name}.label", name)), str(arrays.get(f"{name}.takes_off", ""))
    said = {part: bool(arrays.get(f"{name}.{part}", True)) for part in SAID}
    (lo, hi), (top, bottom), (x, y) = (numbers.tolist() for numbers in (span, zone, shift))
    return Direction(name, label, direction, lo, hi, zone=(top, bottom), shift=(x, y), takes_off=takes_off, **said)


def write_directions(path: Path, directions: Iterable[Direction], generator_id: str) -> None:
    """Writes the file, whole or not at all; makes its folder."""
    arrays: dict[str, NDArray[Any]] = {"generator_id": np.array(generator_id)}
    for direction in directions:
        arrays[f"{direction.name}.direction"] = direction.direction.astype(np.float32)
        arrays[f"{direction.name}.range"] = np.array([direction.lo, direction.hi], np.float32)
        arrays[f"{direction.name}.label"] = np.array(direction.label)
        for part in SAID:
            arrays[f"{direction.name}.{part}"] = np.array(getattr(direction, part))
        arrays[f"{direction.name}.zone"] = np.array(direction.zone, np.float32)
        arrays[f"{direction.name}.shift"] = np.array(direction.shift, np.float32)
        arrays[f"{direction.name}.takes_off"] = np.array(direction.takes_off)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
