"""From networks' images back to the frame: masks of frame and edit, their union, and the blend (Eqs. 6 and 7).

Masks are made once, on the 256 px crop. The frame is touched only inside the rectangle of the mask, and there only
where the mask is not 0: everywhere else the pixels of the result are the frame's.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.bundle import ParserSpec
from engine.face_places import feature_places
from engine.frames import ImageU8
from engine.geometry import (
    CROP_SIZE,
    Affine,
    Rectangle,
    compose,
    invert_affine,
    pixels_per_pixel,
    resized_from_crop,
    shrunk,
    transform_points,
    translation,
    warp,
)
from engine.runtimes.base import FloatArray, Network
from engine.skin import tone_change

LEAST_COVER = 0.08
"""Share of the crop below which the parser has missed the face, which fills a third of an FFHQ crop."""

BAND_ROWS = 48
"""Rows of the frame that faces are laid over at a time."""

WORTH_DOUBLING = 1.5
"""Enlargement from which doubling the crop with a cubic, then a linear warp, is as sharp as a cubic warp and faster."""

HAIR_CLASSES = ("hair", "hat")
"""What hair is, and what hides it, by the names of CelebAMask-HQ."""

NECK_CLASSES = ("neck", "necklace")
"""What a face goes on as: the generator paints it in the person's own colour."""

PART_REACH = 1
PART_RISE = 12.0
"""Pixels of the parser's output on each side over which the margin between face and hair is averaged, and steps of the
logit over which the one turns into the other: a hairline that trembles as the parser does would show."""

THING_REACH = 3
"""Pixels of the parser's output on each side over which the margin of what is before a face is averaged."""

THING_CORE = 2
"""Pixels on each side of a thing's core that are sure too; a speck on a bare face has none."""

THING_GROWTH = 10
THING_BENEFIT = 0.5
"""What lies this near to a core belongs to its thing from a logit margin of -`THING_BENEFIT` on: the parser is sure of
fingers, and less so of the hand that goes on beside a chin."""

CHANGED = 0.22
"""Mean change on the [-1, 1] scale at which an edit counts as another thing than what it was made of."""

GATE_RESOLUTION = 64
GATE_REACH = 3  # px at that resolution: what lies this near to a changed place is changed with it
GATE_BLUR = 1.5

WORN_MARGIN = 1.0
WORN_SPECK = 1
WORN_REACH = 3
WORN_BLUR = 1.5
"""What a face wears is taken off from this far below the parser's margin on; specks reach no further than WORN_SPECK
pixels of its output to each side, and rims and their shadows WORN_REACH further than it says. The edge is soft."""


@dataclass(frozen=True)
class MaskShape:
    """How the parser's mask becomes the blend's; in pixels of the 256 px crop.

    erode_px: taken off all around, the crop's border included, so that what surrounds the face never comes from the
    generator. feather_px: the width of the soft edge; at most 2 x erode_px, so that it too lies inside the parser's
    mask and is 0 at the crop's border. Small by default: the parser follows chin and hair closely, and a wide edge
    would show the old chin around the new, and dark hair as a rim around grey.
    """

    erode_px: int = 2
    feather_px: int = 4

    def __post_init__(self) -> None:
        assert 0 <= self.feather_px <= 2 * self.erode_px, "the soft edge would leave the mask"

    @property
    def boxes(self) -> tuple[int, int]:
        """Half widths of the two boxes that, one after the other, make the soft edge; 0 is none.

        Two boxes make an edge of finite reach, which a Gaussian has not.
        """
        reach = max(self.feather_px // 2 - 1, 0)
        return reach // 2, reach - reach // 2


@dataclass(frozen=True)
class Patch:
    """One edited face on its way back: image RGB [-1, 1] [3, S, S], mask [0, 1] [S, S], and where the crop lies.

    crop: I_t, RGB [-1, 1] [3, S, S], to keep the frame's own detail by (`paste`); None lays the image over the frame as
    it is. reshaped: as `give_back` takes it.
    """

    image: FloatArray
    mask: FloatArray
    crop_from_frame: Affine
    crop: FloatArray | None = None
    reshaped: float = 1.0


def image_from_u8(crop_u8: ImageU8) -> FloatArray:
    """uint8 BGR [S, S, 3] as the networks see it: float32 RGB [-1, 1] [1, 3, S, S]."""
    rgb = np.ascontiguousarray(crop_u8[..., ::-1].transpose(2, 0, 1))
    return (rgb.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1.0))[None]


def levels_from_image(image: FloatArray) -> FloatArray:
    """RGB [-1, 1] [3, S, S] as levels from 0 to 255, BGR float32 [S, S, 3]; values outside the range are clipped."""
    levels = np.asarray(cv2.merge(list(image[::-1])), dtype=np.float32)
    levels *= np.float32(127.5)
    levels += np.float32(127.5)
    return np.clip(levels, 0.0, 255.0, out=levels)


def give_back(
    crop: FloatArray,
    inversion: FloatArray,
    edit: FloatArray,
    zone: FloatArray,
    shift: Sequence[int] | NDArray[np.int32] = (0, 0),
    reshaped: float = 1.0,
    off: FloatArray | None = None,
    tones: float = 1.0,
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
    what the edit does to the colours of skin stays in it (`skin.tone_change`). eyes, mouth: how much of the result is
    seen there, the rest being I_t where shapes change: who speaks and blinks does so on (`directions.meant_for`).
    """
    inversion, edit = np.clip(inversion, -1.0, 1.0), np.clip(edit, -1.0, 1.0)
    if tones < 1.0:
        _take_off_tones(inversion, edit, 1.0 - tones)
    gate = _unchanged_between(inversion, edit, reshaped, off)
    restored: FloatArray = np.subtract(crop, inversion, out=inversion)
    restored *= gate
    restored += edit
    if min(zone.min(), eyes, mouth) < 1.0:
        restored = crop + seen_share(zone, reshaped, eyes, mouth) * (restored - crop)
    return _moved(restored, crop, *shift) if any(shift) else restored


def seen_share(zone: FloatArray, reshaped: float, eyes: float, mouth: float) -> FloatArray:
    """How much of an edit is seen at each place of a crop, the rest being the crop, float32 [0, 1] [S, S].

    As `give_back` takes them.
    """
    own = feature_places(len(zone)) * np.array([1.0 - eyes, 1.0 - mouth], np.float32)[:, None, None]
    share: FloatArray = zone[:, None] * (np.float32(1.0) - np.float32(reshaped) * own.max(axis=0))
    return share


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


def _unchanged_between(a: FloatArray, b: FloatArray, reshaped: float, off: FloatArray | None = None) -> FloatArray:
    """`unchanged_share` of two images [3, S, S] on [-1, 1], for each of their pixels, [S, S]; none where `off`."""
    change, plane = np.zeros_like(a[0]), np.empty_like(a[0])
    for both in zip(a, b, strict=True):
        change += np.abs(np.subtract(*both, out=plane), out=plane)
    small = shrunk(change, GATE_RESOLUTION) / np.float32(len(a))
    share = np.maximum(unchanged_share(small), np.float32(1.0 - reshaped))
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


@dataclass(frozen=True)
class FaceParse:
    """What the parser makes of a face in the frame and of its edit.

    Margins, float32 [h, w]: how far the best class of a set lies above the best other, positive inside. frame, edit: of
    the face, in the frame not where something is before it. things: of that, as `_things` has it; None from a parser
    that knows no such class. around: of what is neither a face, nor its neck, nor before one in the edit. skin: of the
    face but for hair, in the frame; bare: of where the frame shows no hair, and it or the edit, about, skin. hair: of
    hair, in the frame.
    """

    frame: FloatArray
    edit: FloatArray
    things: FloatArray | None
    around: FloatArray
    skin: FloatArray
    bare: FloatArray
    hair: FloatArray


def parse_faces(parser: Network, parts: ParserSpec, crops: FloatArray, edits: FloatArray) -> tuple[FaceParse, ...]:
    """Parse B faces and their edits as one batch; both RGB [-1, 1] [B, 3, S, S]."""
    logits = parser(crop=np.concatenate([crops, edits]))["logits"]
    everything, faces, things = set(parts.classes), set(parts.face_classes), set(parts.occluder_classes)
    of_frame, of_edit = slice(0, len(crops)), slice(len(crops), None)
    face, thing, rest = (_best(logits, parts, names) for names in (faces, things, everything - faces - things))
    frame = _finite(face[of_frame] - rest[of_frame])
    edit = _finite(face[of_edit] - np.maximum(rest, thing)[of_edit])
    person = faces | things | (everything & set(NECK_CLASSES))
    around = _finite(_best(logits[of_edit], parts, everything - person) - _best(logits[of_edit], parts, person))
    before = _finite(thing[of_frame] - np.maximum(face, rest)[of_frame])
    hidden = [_things(margin) if things else None for margin in before]
    skin, bare, hair = _part_margins(logits[of_frame], logits[of_edit], parts)
    return tuple(FaceParse(*parse) for parse in zip(frame, edit, hidden, around, skin, bare, hair, strict=True))


def _part_margins(
    frames: FloatArray, edits: FloatArray, parts: ParserSpec
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`skin`, `bare` and `hair` of `FaceParse` from the logits of frames and edits."""
    everything, things = set(parts.classes), set(parts.occluder_classes)
    hair = everything & set(HAIR_CLASSES)
    skin = set(parts.face_classes) - hair
    of_frame = _finite(_best(frames, parts, skin) - _best(frames, parts, everything - skin - things))
    of_hair = _finite(_best(frames, parts, hair) - _best(frames, parts, everything - hair))
    if not hair:
        return of_frame, np.full_like(of_frame, PART_RISE), of_hair
    of_edit = _finite(_best(edits, parts, skin) - _best(edits, parts, everything - skin))
    # A chin's edge, unlike a hairline, is the mask's own business: a quarter of the rise keeps most of it.
    return of_frame, np.minimum(-of_hair, np.maximum(of_frame, of_edit) + np.float32(0.25 * PART_RISE)), of_hair


def face_mask(parse: FaceParse, size: int, shape: MaskShape, hair: float = 1.0) -> FloatArray:
    """M_{E_t} u M_{I_t} without what is before the face in the frame, eroded and feathered (Eq. 7).

    hair: how much of it the mask takes in, in [0, 2]: 1 is face and hair, as the paper has it; at 0 the frame's hair
    stays and none is added, at 2 the frame's face stays.

    With the inversion in place of the edit this is M_{I_t} of Eq. 6 in all but name. A hand before the face is taken
    out of the union, because the generator paints a face in its place; `_things` alone says where, so that specks leave
    no holes in M_{I_t}. Hair or a chin that the edit lets grow over the background stays in. Where the parser finds
    next to no face in a crop made around one, the place where FFHQ puts faces is the mask: a tracked face must not go
    out unedited. Returns float32 [0, 1] [size, size].
    """
    union = np.maximum(parse.frame, parse.edit)
    if parse.things is not None:
        union = np.minimum(union, -parse.things)
    mask = soft_mask(union, size, shape)
    if mask.mean() < LEAST_COVER:
        return usual_mask(size, shape)
    return mask if hair == 1.0 else mask * _part_share(parse, hair, size)


def _part_share(parse: FaceParse, hair: float, size: int) -> FloatArray:
    """How much of the mask is left without hair, or without the face, float32 [0, 1] [size, size]."""
    margin = mean_around(parse.bare if hair < 1.0 else -parse.skin, PART_REACH)
    share = np.clip(np.float32(0.5) + margin / np.float32(PART_RISE), 0.0, 1.0)
    share = np.float32(1.0) + np.float32(abs(1.0 - hair)) * (share - np.float32(1.0))
    return np.asarray(cv2.resize(share, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _best(logits: FloatArray, parts: ParserSpec, names: Collection[str]) -> FloatArray:
    """The best logit of these classes, -inf of none, [B, h, w] from [B, K, h, w]. The differences of such are margins:
    unlike a mask they are smooth enough to be enlarged."""
    chosen = [logits[:, n] for n, name in enumerate(parts.classes) if name in names]
    return reduce(np.maximum, chosen, np.full_like(logits[:, 0], -np.inf))


def _finite(margin: FloatArray) -> FloatArray:
    """A pixel that nothing is known of lies on the edge, which is outside."""
    finite: FloatArray = np.nan_to_num(margin, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
    return finite


def _things(before: FloatArray) -> FloatArray:
    """The margin of what is before a face [h, w], as one of things: higher near a core that is wide, -inf elsewhere.

    The parser takes specks of a bare face for a thing, an eyebrow's end say, and of a hand it is sure only in parts.
    """
    mean = mean_around(before, THING_REACH)
    core = cv2.erode((mean > 0.0).astype(np.uint8), square(THING_CORE))
    near = cv2.dilate(core, square(THING_GROWTH))
    return np.where(near > 0, mean + np.float32(THING_BENEFIT), np.float32(-np.inf))


def worn(logits: FloatArray, parts: ParserSpec, off: Mapping[str, float]) -> FloatArray:
    """Where an edit takes off what a face wears, float32 [0, 1] [GATE_RESOLUTION, GATE_RESOLUTION].

    There neither the frame nor the noise map, which draws glasses too, may say what is seen: the code alone draws it.
    logits: the parser's of the frame's crop, NumPy's [K, h, w]. off: by class, how much of it.
    """
    share = np.zeros((GATE_RESOLUTION, GATE_RESOLUTION), np.float32)
    for name in off.keys() & set(parts.classes):
        margin = _best(logits[None], parts, {name}) - _best(logits[None], parts, set(parts.classes) - {name})
        there = (margin[0] > -WORN_MARGIN).astype(np.uint8)
        there = cv2.morphologyEx(there, cv2.MORPH_OPEN, square(WORN_SPECK))
        there = cv2.dilate(there, square(WORN_REACH))
        soft = cv2.GaussianBlur(there.astype(np.float32), (0, 0), WORN_BLUR)
        share = np.maximum(share, np.float32(off[name]) * shrunk(np.asarray(soft, np.float32), GATE_RESOLUTION))
    return share


def mean_around(margin: FloatArray, reach: int) -> FloatArray:
    """The mean over a square that reaches so many pixels to each side; the border is repeated."""
    return np.asarray(cv2.blur(margin, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REPLICATE))


def square(reach: int) -> NDArray[np.uint8]:
    """A structuring element that reaches so many pixels to each side."""
    return np.ones((2 * reach + 1,) * 2, np.uint8)


def usual_mask(size: int, shape: MaskShape) -> FloatArray:
    """Where a face is in an FFHQ crop: an ellipse from brow to chin, float32 [0, 1] [size, size]."""
    y, x = np.mgrid[0:1:128j, 0:1:128j]
    return soft_mask((1.0 - ((x - 0.5) / 0.32) ** 2 - ((y - 0.54) / 0.4) ** 2).astype(np.float32), size, shape)


def soft_mask(margin: FloatArray, size: int, shape: MaskShape) -> FloatArray:
    """A mask with a soft edge, float32 [0, 1] [size, size], from a margin [h, w] that is positive inside the face."""
    enlarged = cv2.resize(margin, (size, size), interpolation=cv2.INTER_LINEAR)
    inside = np.asarray(enlarged > 0.0, dtype=np.uint8)
    if shape.erode_px:
        core = cv2.erode(inside, square(shape.erode_px), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        inside = np.asarray(core, dtype=np.uint8)
    mask = inside.astype(np.float32)
    for half in shape.boxes:
        if half:
            width = 2 * half + 1
            mask = np.asarray(cv2.blur(mask, (width, width), borderType=cv2.BORDER_CONSTANT), dtype=np.float32)
    return mask


def blend(frame_u8: ImageU8, patches: Sequence[Patch]) -> ImageU8:
    """The frame with the patches over it, B(UA(E_t), I_t, M); a new array, the frame is not written to."""
    out = frame_u8.copy()
    paste(out, patches)
    return out


def paste(out: ImageU8, patches: Sequence[Patch]) -> None:
    """Lay the patches over the frame `out`, which is written to inside their rectangles and not read elsewhere.

    A crop of 256 px does not hold what a face close up shows: pores, lashes, the wire of glasses. So with g near 1
    where the edit E looks like the crop I, and U bringing a crop to its place, what is laid over the frame F is not
    U(E) but U(E) + g (F - U(I)), as U(E - g I) + g F: the edit's change on the frame's own pixels.
    """
    height, width = out.shape[:2]
    for patch in patches:
        left, top, columns, rows = cv2.boundingRect((patch.mask > 0.0).astype(np.uint8))
        box_px = (left, top, left + columns, top + rows)
        x0, y0, x1, y1 = reach_px(box_px, patch.crop_from_frame, (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        layer = _layer(patch)
        # What takes a whole face is written to memory and read again at every step; a band stays in the cache.
        for start in range(y0, y1, BAND_ROWS):
            _lay(layer, out[start : min(start + BAND_ROWS, y1), x0:x1], translation(-x0, -start))


class Resampling(Enum):
    """How the crop gets to the frame's pixels."""

    DOUBLED = auto()
    """Doubled with a cubic, then warped: much enlarged."""
    CUBIC = auto()
    """Warped with a cubic: about as large as it is."""
    LOW_PASSED = auto()
    """Warped as everything else: made smaller."""


@dataclass(frozen=True)
class _Layer:
    """A patch as it is read.

    levels: E - g I, BGR [n, n, 3]. shares: the mask and, where there is a crop, g, of the crop's pixels, [S, S] each.
    """

    levels: FloatArray
    frame_from_levels: Affine
    shares: Sequence[FloatArray]
    frame_from_crop: Affine
    resampling: Resampling


def _layer(patch: Patch) -> _Layer:
    levels, shares = levels_from_image(patch.image), [patch.mask]
    if patch.crop is not None:
        gate = _unchanged_between(patch.crop, np.clip(patch.image, -1.0, 1.0), patch.reshaped)
        levels -= levels_from_image(patch.crop) * gate[..., None]
        shares.append(gate)
    frame_from_levels = frame_from_crop = invert_affine(patch.crop_from_frame)
    how = resampling_of(frame_from_crop)
    if how is Resampling.DOUBLED:
        doubled = 2 * CROP_SIZE
        levels = np.asarray(cv2.resize(levels, (doubled, doubled), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
        frame_from_levels = compose(frame_from_crop, invert_affine(resized_from_crop(doubled)))
    return _Layer(levels, frame_from_levels, shares, frame_from_crop, how)


def _lay(layer: _Layer, band: ImageU8, place: Affine) -> None:
    """Lay a patch over a band of the frame, which is written to. place: to its pixels from the frame's."""
    size = band.shape[1], band.shape[0]
    band_from_crop = compose(place, layer.frame_from_crop)
    mask, *gate = (warp(share, band_from_crop, size, cv2.BORDER_CONSTANT) for share in layer.shares)
    mask = np.clip(mask, 0.0, 1.0, out=mask)
    band_from_levels = compose(place, layer.frame_from_levels)
    if layer.resampling is Resampling.CUBIC:
        flags, border = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        image = cv2.warpAffine(layer.levels, invert_affine(band_from_levels), size, flags=flags, borderMode=border)
    else:
        image = warp(layer.levels, band_from_levels, size, cv2.BORDER_REPLICATE)
    if gate:
        own = cv2.multiply(band, cv2.merge(gate * 3), dtype=cv2.CV_32F)
        image = cv2.add(image, own, dtype=cv2.CV_8U)
    else:
        image = np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8)
    band[...] = cv2.blendLinear(image, np.ascontiguousarray(band), mask, np.float32(1.0) - mask)


def resampling_of(rectangle_from_crop: Affine) -> Resampling:
    """How the crop is brought through this transform."""
    spacing = pixels_per_pixel(rectangle_from_crop)
    if spacing < 1.0 / WORTH_DOUBLING:
        return Resampling.DOUBLED
    return Resampling.CUBIC if spacing < 1.0 else Resampling.LOW_PASSED


def reach_px(box_px: Rectangle, crop_from_frame: Affine, frame_size: tuple[int, int]) -> Rectangle:
    """The rectangle of the frame (width, height) that a mask can reach which is 0 outside a box of the crop.

    box_px: in pixels of the crop; an empty one gives an empty rectangle.
    """
    x0, y0, x1, y1 = box_px
    if x1 <= x0 or y1 <= y0:
        return 0, 0, 0, 0
    # One crop pixel around, which interpolation reaches, but not beyond the crop.
    low, high = np.maximum([x0 - 1.0, y0 - 1.0], -0.5), np.minimum([x1, y1], CROP_SIZE - 0.5)
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    reached = transform_points(invert_affine(crop_from_frame), corners)
    start = np.clip(np.floor(reached.min(axis=0)) - 1, 0, frame_size).astype(int)
    stop = np.clip(np.ceil(reached.max(axis=0)) + 2, 0, frame_size).astype(int)
    return int(start[0]), int(start[1]), int(stop[0]), int(stop[1])
