"""What the inversion lost of a person, given back to the edit, and what of the edit is seen: all on the 256 px crop."""

from collections.abc import Sequence
from functools import cache, reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.face_places import part_places
from engine.geometry import shrunk, square
from engine.runtimes.base import FloatArray
from engine.skin import tone_change

CHANGED = 0.22
"""Mean change on the [-1, 1] scale at which an edit counts as another thing than what it was made of."""

GATE_RESOLUTION = 64
GATE_REACH = 3  # px at that resolution: what lies this near to a changed place is changed with it
GATE_BLUR = 1.5


def give_back(
    crop: FloatArray,
    inversion: FloatArray,
    edit: FloatArray,
    zone: FloatArray,
    shift: Sequence[int] | NDArray[np.int32] = (0, 0),
    reshaped: float = 1.0,
    off: FloatArray | None = None,
    tones: float = 1.0,
    outline: float = 1.0,
    eyes: float = 1.0,
    mouth: float = 1.0,
) -> FloatArray:
    """The edit with what the inversion lost of the person: E_t + g (I_t - O_t), RGB [-1, 1] [3, S, S].

    No inversion is perfect, and pasting the edit alone shows the generator's idea of the person. Where the edit leaves
    the inversion nearly alone (g near 1) the result is the frame plus the edit's change, so pores, glasses and hair
    stay the person's own; where it paints something new, such as teeth (g near 0), it is the paper's E_t. Without any
    change it is the frame itself, so that an edit grows from the frame without a jump.
    crop, inversion, edit: I_t, O_t, E_t, RGB [-1, 1] [3, S, S]; the generator's are clipped first. zone: how much each
    row takes of the result, the rest being I_t, float32 [0, 1] [S] (`directions.zone_shares`). shift: how far all of
    that is moved, (to the right, down) px (`directions.edit_shift`); what would come from beyond the border is I_t, and
    over as many pixels again the one turns into the other. reshaped: 1 less the least g, which is 1 where an edit is of
    colours alone (`directions.meant_for`). off: where g is 0 in any case, [0, 1] [G, G] (`worn`). tones: how much of
    what the edit does to the colours of skin stays in it (`skin.tone_change`). outline: how far shapes change at the
    head's outline and beyond, colours alone for the rest. eyes, mouth: how much of the result is seen there, the rest
    being I_t where shapes change: who speaks and blinks does so on. All three of `directions.meant_for`.
    """
    inversion, edit = np.clip(inversion, -1.0, 1.0), np.clip(edit, -1.0, 1.0)
    if tones < 1.0:
        _take_off_tones(inversion, edit, 1.0 - tones)
    gate = unchanged_between(inversion, edit, reshaped, outline, off)
    restored: FloatArray = np.subtract(crop, inversion, out=inversion)
    restored *= gate
    restored += edit
    if min(zone.min(), eyes, mouth) < 1.0:
        restored = crop + seen_share(zone, reshaped, eyes, mouth) * (restored - crop)
    return _moved(restored, crop, *shift) if any(shift) else restored


def seen_share(zone: FloatArray, reshaped: float, eyes: float, mouth: float, outline: float = 1.0) -> FloatArray:
    """How much of an edit is seen at each place of a crop, the rest being the crop, float32 [0, 1] [S, S].

    As `give_back` takes them, but for the outline, which is counted out here: `masks.face_mask` leaves it alone.
    """
    left = 1.0 - np.array([outline, eyes, mouth], np.float32)
    own = reduce(np.maximum, left[:, None, None] * parts_of(len(zone)))
    share: FloatArray = zone[:, None] * (np.float32(1.0) - np.float32(reshaped) * own)
    return share


@cache
def parts_of(size: int) -> FloatArray:
    """`part_places` in so many cells to a side, float32 [3, size, size]."""
    return np.stack(part_places(size, np.ones(1, np.float32)))


def _moved(image: FloatArray, crop: FloatArray, right: int, down: int) -> FloatArray:
    """An image [C, S, S] moved by whole pixels over the crop, into which it fades where it ends."""
    size = image.shape[-1]
    (rows, of_rows), (columns, of_columns) = _moved_line(size, down), _moved_line(size, right)
    moved = np.take(np.take(image, rows, axis=1), columns, axis=2)
    moved -= crop
    moved *= np.minimum(of_rows[:, None], of_columns)
    moved += crop
    return moved


def _moved_line(size: int, by: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Of each pixel of a line that is moved: the one that comes there, and its share of the result."""
    source = np.arange(size) - by
    within = source if by > 0 else size - 1 - source
    share = np.clip((within + 0.5) / abs(by), 0.0, 1.0) if by else np.ones(size)
    return np.clip(source, 0, size - 1), share.astype(np.float32)


def unchanged_between(
    a: FloatArray, b: FloatArray, reshaped: float, outline: float, off: FloatArray | None = None
) -> FloatArray:
    """`unchanged_share` of two images [3, S, S] on [-1, 1], for each of their pixels, [S, S]; none where `off`.

    At least 1 - reshaped, and at the outline 1 - reshaped x outline; as `give_back` takes them.
    """
    change, plane = np.zeros_like(a[0]), np.empty_like(a[0])
    for both in zip(a, b, strict=True):
        change += np.abs(np.subtract(*both, out=plane), out=plane)
    small = shrunk(change, GATE_RESOLUTION) / np.float32(len(a))
    beyond = parts_of(GATE_RESOLUTION)[0]
    least = np.float32(1.0 - reshaped) + np.float32(reshaped * (1.0 - outline)) * beyond
    share = np.maximum(unchanged_share(small), least)
    if off is not None:
        share = share * (np.float32(1.0) - off)
    return np.asarray(cv2.resize(share, change.shape[::-1], dst=plane), dtype=np.float32)


def _take_off_tones(inversion: FloatArray, edit: FloatArray, share: float) -> None:
    """Take a share of `skin.tone_change` off an edit [3, S, S], which is written to."""
    plane = np.empty_like(edit[0])  # one for all: new memory would take longer than all the arithmetic
    small = [shrunk(np.subtract(*both, out=plane), GATE_RESOLUTION) for both in zip(edit, inversion, strict=True)]
    for channel, tone in zip(edit, np.float32(share) * tone_change(np.stack(small)), strict=True):
        channel -= cv2.resize(tone, plane.shape, dst=plane)


def unchanged_share(change: FloatArray) -> FloatArray:
    """g: near 1 where little changes, near 0 where something new is painted and around it; both [G, G], G =
    GATE_RESOLUTION, the change a mean on the [-1, 1] scale."""
    near = cv2.GaussianBlur(cv2.dilate(change, square(GATE_REACH)), (0, 0), GATE_BLUR)
    share: FloatArray = np.exp(-np.square(near / CHANGED))
    return share
