"""Masks of a face in the frame and in its edit, and their union (Eqs. 6 and 7): made once, on the 256 px crop."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, reduce

import cv2
import numpy as np

from engine.bundle import ParserSpec
from engine.geometry import shrunk, square
from engine.restoring import GATE_RESOLUTION, parts_of
from engine.runtimes.base import FloatArray, Network

LEAST_COVER = 0.08
"""Share of the crop below which the parser has missed the face, which fills a third of an FFHQ crop."""

HAIR_CLASSES = ("hair", "hat")
"""What hair is, and what hides it, by the names of CelebAMask-HQ."""

NECK_CLASSES = ("neck", "necklace")
"""What a face goes on as: the generator paints it in the person's own colour."""

PART_REACH = 1
PART_RISE = 12.0
"""Pixels of the parser's output on each side over which the margin between face and hair is averaged, and steps of the
logit over which the one turns into the other: a hairline that trembles as the parser does would show."""

HAIR_REACH = 3
HAIR_RISE = 18.0
"""Likewise of hair that takes another colour, against all around: wider, for its edge against a wall is seen."""

GLASSES_CLASSES = ("glasses",)
"""What a face wears before the eyes, lenses with their rims."""

THING_REACH = 3
"""Pixels of the parser's output on each side over which the margin of what is before a face is averaged."""

THING_CORE = 2
"""Pixels on each side of a thing's core that are sure too; a speck on a bare face has none."""

THING_GROWTH = 10
THING_BENEFIT = 0.5
"""What lies this near to a core belongs to its thing from a logit margin of -`THING_BENEFIT` on: the parser is sure of
fingers, and less so of the hand that goes on beside a chin."""

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
class FaceParse:
    """What the parser makes of a face in the frame and of its edit.

    Margins, float32 [h, w]: how far the best class of a set lies above the best other, positive inside. frame, edit: of
    the face, in the frame not where something is before it. things: of that, as `_things` has it; None from a parser
    that knows no such class. around: of what is neither a face, nor its neck, nor before one in the edit. skin: of the
    face but for hair, in the frame; bare: of where the frame shows no hair, and it or the edit, about, skin. hair,
    glasses: of these, in the frame.
    """

    frame: FloatArray
    edit: FloatArray
    things: FloatArray | None
    around: FloatArray
    skin: FloatArray
    bare: FloatArray
    hair: FloatArray
    glasses: FloatArray


def parse_faces(parser: Network, parts: ParserSpec, crops: FloatArray, edits: FloatArray) -> tuple[FaceParse, ...]:
    """Parse B faces and their edits as one batch; both RGB [-1, 1] [B, 3, S, S]."""
    logits = parser(crop=np.concatenate([crops, edits]))["logits"]
    everything, faces, things = set(parts.classes), set(parts.face_classes), set(parts.occluder_classes)
    of_frame, of_edit = slice(0, len(crops)), slice(len(crops), None)
    face, thing, rest = (_best(logits, parts, names) for names in (faces, things, everything - faces - things))
    frame = _finite(face[of_frame] - rest[of_frame])
    edit = _finite(face[of_edit] - np.maximum(rest, thing)[of_edit])
    person = faces | things | (everything & set(NECK_CLASSES))
    around = _margin(logits[of_edit], parts, everything - person)
    before = _finite(thing[of_frame] - np.maximum(face, rest)[of_frame])
    hidden = [_things(margin) if things else None for margin in before]
    skin, bare, hair = _part_margins(logits[of_frame], logits[of_edit], parts)
    glasses = _margin(logits[of_frame], parts, GLASSES_CLASSES)
    margins = zip(frame, edit, hidden, around, skin, bare, hair, glasses, strict=True)
    return tuple(FaceParse(*parse) for parse in margins)


def _part_margins(
    frames: FloatArray, edits: FloatArray, parts: ParserSpec
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`skin`, `bare` and `hair` of `FaceParse` from the logits of frames and edits."""
    everything, things = set(parts.classes), set(parts.occluder_classes)
    hair = everything & set(HAIR_CLASSES)
    skin = set(parts.face_classes) - hair
    of_frame = _finite(_best(frames, parts, skin) - _best(frames, parts, everything - skin - things))
    of_hair = _margin(frames, parts, hair)
    if not hair:
        return of_frame, np.full_like(of_frame, PART_RISE), of_hair
    of_edit = _margin(edits, parts, skin)
    # A chin's edge, unlike a hairline, is the mask's own business: a quarter of the rise keeps most of it.
    return of_frame, np.minimum(-of_hair, np.maximum(of_frame, of_edit) + np.float32(0.25 * PART_RISE)), of_hair


def face_mask(parse: FaceParse, size: int, shape: MaskShape, hair: float = 1.0, outline: float = 1.0) -> FloatArray:
    """M_{E_t} u M_{I_t} without what is before the face in the frame, eroded and feathered (Eq. 7).

    hair: how much of it the mask takes in, in [0, 2]: 1 is face and hair, as the paper has it; at 0 the frame's hair
    stays and none is added, at 2 the frame's face stays. outline: at 0 ears and jaw stay the frame's, and of what lies
    beyond the mask takes in its hair alone.

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
    if hair == outline == 1.0:
        return mask
    share = _part_share(parse, hair) * _outline_share(parse, outline, hair)
    return mask * np.asarray(cv2.resize(share, (size, size), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _part_share(parse: FaceParse, hair: float) -> FloatArray:
    """How much of the mask is left without hair, or without the face, float32 [0, 1] [h, w]."""
    margin = mean_around(parse.bare if hair < 1.0 else -parse.skin, PART_REACH)
    left: FloatArray = np.float32(1.0) + np.float32(abs(1.0 - hair)) * (begun(margin, PART_RISE) - np.float32(1.0))
    return left


def _outline_share(parse: FaceParse, outline: float, hair: float) -> FloatArray:
    """How much of the mask is left without a head's outline, float32 [0, 1] [h, w]; hair that it takes in is left."""
    beyond = beyond_outline(parse.hair.shape)
    if hair > 0.0:
        share = begun(mean_around(parse.hair, HAIR_REACH), HAIR_RISE)
        beyond = beyond * (np.float32(1.0) - np.float32(min(hair, 1.0)) * share)
    left: FloatArray = np.float32(1.0) - np.float32(1.0 - outline) * beyond
    return left


def begun(margin: FloatArray, rise: float) -> FloatArray:
    """0 to 1 over so many steps of a margin, half of it where that is 0."""
    share: FloatArray = np.clip(np.float32(0.5) + margin / np.float32(rise), 0.0, 1.0)
    return share


@cache
def beyond_outline(shape: tuple[int, ...]) -> FloatArray:
    """Where a head's outline is, and what lies beyond, float32 [0, 1] [h, w]; shape: (h, w)."""
    return np.asarray(cv2.resize(parts_of(GATE_RESOLUTION)[0], shape[::-1]), dtype=np.float32)


def _margin(logits: FloatArray, parts: ParserSpec, names: Collection[str]) -> FloatArray:
    """How far the best of these classes lies above the best of all others, [B, h, w] from [B, K, h, w]."""
    return _finite(_best(logits, parts, names) - _best(logits, parts, set(parts.classes) - set(names)))


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


def largest_around(margin: FloatArray, reach: int) -> FloatArray:
    """The largest over such a square, as far as the grid goes."""
    return np.asarray(cv2.dilate(margin, square(reach)), dtype=np.float32)


def mean_around(margin: FloatArray, reach: int) -> FloatArray:
    """The mean over a square that reaches so many pixels to each side; the border is repeated."""
    return np.asarray(cv2.blur(margin, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REPLICATE))


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
