"""What the inversion lost of a person, given back to the edit, and what of the edit is seen: all on the 256 px crop."""

from functools import cache, reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.directions import Reach
from engine.face_places import part_places
from engine.geometry import shrunk, square
from engine.hair import pigmented
from engine.runtimes.base import FloatArray
from engine.skin import tone_change

CHANGED = 0.22
"""Mean change on the [-1, 1] scale at which an edit counts as another thing than what it was made of."""

GATE_RESOLUTION = 64
GATE_REACH = 3  # px at that resolution: what lies this near to a changed place is changed with it
GATE_BLUR = 1.5


def give_back(crop: FloatArray, inversion: FloatArray, edit: FloatArray, reach: Reach) -> FloatArray:
    """The edit with what the inversion lost of the person: E_t + g (I_t - O_t), RGB [-1, 1] [3, S, S].

    No inversion is perfect, and pasting the edit alone shows the generator's idea of the person. Where the edit leaves
    the inversion nearly alone (g near 1) the result is the frame plus the edit's change, so pores, glasses and hair
    stay the person's own; where it paints something new, such as teeth (g near 0), it is the paper's E_t. Without any
    change it is the frame itself, so that an edit grows from the frame without a jump.
    crop, inversion, edit: I_t, O_t, E_t, RGB [-1, 1] [3, S, S]; the generator's are clipped first.

    reach: of this one face (`Reach.of`). g is at least 1 - `reshaped`, 1 where an edit is of colours alone, and 0 in
    any case where something is taken `off`. `tones`: how much of what the edit does to the colours of skin stays in it
    (`skin.tone_change`). `outline`: how far shapes change at the head's outline and beyond, colours alone for the rest.
    Where colours alone change it is `hair` that takes them, as far as hair can (`hair.pigmented`). `zones`, `eyes`,
    `mouth`: how much of the result is seen in each row and at those, the rest being I_t; at eyes and mouth where shapes
    change: who speaks and blinks does so on. `shifts`: how far all of that is moved, (to the right, down) px; what
    would come from beyond the border is I_t, and over as many pixels again the one turns into the other.
    """
    inversion, edit = np.clip(inversion, -1.0, 1.0), np.clip(edit, -1.0, 1.0)
    reshaped, outline, eyes, mouth = (float(part) for part in (reach.reshaped, reach.outline, reach.eyes, reach.mouth))
    if reach.tones < 1.0:
        _take_off_tones(inversion, edit, 1.0 - float(reach.tones))
    gate = unchanged_between(inversion, edit, reshaped, outline, reach.off)
    restored: FloatArray = np.subtract(crop, inversion, out=inversion)
    restored *= gate
    restored += edit
    if reach.hair > 0.0 and outline < 1.0:
        of_hair = min(float(reach.hair), 1.0) * (1.0 - outline)
        restored = pigmented(crop, restored, np.float32(of_hair) * colours_alone(crop.shape[-1], reshaped, 0.0))
    if min(reach.zones.min(), eyes, mouth) < 1.0:
        restored = crop + seen_share(reach.zones, reshaped, eyes, mouth) * (restored - crop)
    return _moved(restored, crop, *reach.shifts) if reach.shifts.any() else restored


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

    At least where edits are of `colours_alone`; reshaped, outline: as that takes them.
    """
    change, plane = np.zeros_like(a[0]), np.empty_like(a[0])
    for both in zip(a, b, strict=True):
        change += np.abs(np.subtract(*both, out=plane), out=plane)
    small = shrunk(change, GATE_RESOLUTION) / np.float32(len(a))
    share = np.maximum(unchanged_share(small), colours_alone(GATE_RESOLUTION, reshaped, outline))
    if off is not None:
        share = share * (np.float32(1.0) - off)
    return np.asarray(cv2.resize(share, change.shape[::-1], dst=plane), dtype=np.float32)


def colours_alone(size: int, reshaped: float, outline: float) -> FloatArray:
    """How far an edit is of colours alone at each place of a crop, float32 [0, 1] [size, size]; as `give_back` has it:
    1 - reshaped, and at the head's outline and beyond 1 - reshaped x outline.
    """
    share: FloatArray = np.float32(1.0 - reshaped) + np.float32(reshaped * (1.0 - outline)) * parts_of(size)[0]
    return share


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
