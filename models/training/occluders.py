"""Things that come between a camera and a face: hands, cups, phones, cloths, drawn at random with real textures.

Made on the 256 px crop, for the parser's training and for scoring it. `TRAINED` and `HELD_OUT` name kinds that share no
shape, so that a score on the second says what the parser makes of things it has not been shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from models.training.hand_photos import HandPhoto

CROP_PX = 256
U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Xy = NDArray[np.float64]

_FAR_PX = 400.0
"""Longer than any way out of the crop."""

_PHOTOGRAPHED = 0.7
"""Of the hands, where there are photographs."""

_MOVING, _PATH_PX = 0.2, 21
"""How many occluders move while the shutter is open, and the side of the kernel that holds their path."""


@dataclass(frozen=True)
class Occluder:
    """paint: uint8 RGB [256, 256, 3]. alpha: float32 [0, 1] [256, 256], with the soft edge of a lens."""

    paint: U8
    alpha: F32


@dataclass(frozen=True)
class Paints:
    """What an occluder can be made of: skin(rng) and thing(rng) give uint8 RGB [256, 256, 3]; hands: photographed."""

    skin: Callable[[np.random.Generator], U8]
    thing: Callable[[np.random.Generator], U8]
    hands: Sequence[HandPhoto] = ()


@dataclass(frozen=True)
class _Part:
    """A piece of an occluder, laid over the ones before it. shape: uint8 [256, 256], 255 inside."""

    shape: U8
    paint: U8
    roundness_px: float


def lay_over(crop: U8, occluder: Occluder, rng: np.random.Generator) -> U8:
    """The crop, uint8 RGB [256, 256, 3], with the occluder before it, and the shadow that it throws half the time."""
    under = crop.astype(np.float32)
    if rng.random() < 0.5:
        shift = np.float32([[1, 0, rng.uniform(-10, 10)], [0, 1, rng.uniform(-4, 12)]])
        shadow = cv2.GaussianBlur(cv2.warpAffine(occluder.alpha, shift, (CROP_PX, CROP_PX)), (0, 0), rng.uniform(2, 8))
        under *= 1.0 - np.float32(rng.uniform(0.1, 0.55)) * shadow[..., None]
    alpha = occluder.alpha[..., None]
    return np.asarray(under + alpha * (occluder.paint - under) + np.float32(0.5), np.uint8)


def smeared(occluder: Occluder, rng: np.random.Generator) -> Occluder:
    """The occluder as it is or, now and then, moving along a straight path while the shutter is open."""
    if rng.random() >= _MOVING:
        return occluder
    path = np.zeros((_PATH_PX, _PATH_PX), np.float32)
    middle = np.full(2, (_PATH_PX - 1) / 2)
    reach = rng.uniform(2.0, middle[0]) * _direction(rng.uniform(0, np.pi))
    cv2.line(path, _point(middle - reach), _point(middle + reach), 1.0, 1, cv2.LINE_AA)
    path /= path.sum()
    alpha = np.clip(cv2.filter2D(occluder.alpha, -1, path), 0.0, 1.0)
    return Occluder(np.asarray(cv2.filter2D(occluder.paint, -1, path), np.uint8), alpha)


def draw_occluder(rng: np.random.Generator, kinds: Mapping[str, "Kind"], paints: Paints) -> Occluder:
    """One of the kinds, anywhere before the face."""
    names = list(kinds)
    chances = np.array([_CHANCES.get(name, 1.0) for name in names])
    return _joined(kinds[names[rng.choice(len(names), p=chances / chances.sum())]](rng, paints), rng)


def paints_from(lender: U8, skin: NDArray[np.bool_], colour: Xy, hands: Sequence[HandPhoto] = ()) -> Paints:
    """Paints of training. lender: another crop, uint8 RGB [256, 256, 3]; skin: where it has skin, [256, 256].

    colour: RGB, 0..255, of the skin of the face itself, which a hand before it mostly has. hands: photographed ones.
    """

    def hand(rng: np.random.Generator) -> U8:
        other = lender[skin].mean(0) if skin.any() and rng.random() < 0.35 else colour
        return skin_paint(other, rng)

    def thing(rng: np.random.Generator) -> U8:
        return texture_paint(lender, rng) if rng.random() < 0.6 else plain_paint(rng)

    return Paints(hand, thing, hands)


def skin_paint(colour: Xy, rng: np.random.Generator) -> U8:
    """Skin of about this colour (RGB, 0..255), uneven as skin is."""
    base = np.asarray(colour) * rng.uniform(0.65, 1.25) * rng.uniform(0.94, 1.06, 3)
    coarse = (base + rng.normal(0, 9, (5, 5, 1)) + rng.normal(0, 3, (5, 5, 3))).astype(np.float32)
    fine = (rng.normal(0, 1, (64, 64)) * rng.uniform(0, 7)).astype(np.float32)
    uneven = cv2.resize(coarse, (CROP_PX, CROP_PX)) + cv2.resize(fine, (CROP_PX, CROP_PX))[..., None]
    return np.asarray(np.clip(uneven, 0, 255), np.uint8)


def texture_paint(lender: U8, rng: np.random.Generator) -> U8:
    """A piece of another picture, turned, enlarged and recoloured."""
    side = int(rng.integers(40, 200))
    x, y = rng.integers(0, CROP_PX - side, 2)
    piece = cv2.resize(np.rot90(lender[y : y + side, x : x + side], rng.integers(4)), (CROP_PX, CROP_PX))
    levels = np.arange(256)[:, None] * rng.uniform(0.5, 1.4, 3) + rng.uniform(-30, 30)
    return np.asarray(cv2.LUT(piece, np.clip(levels, 0, 255).astype(np.uint8)[None]), np.uint8)


def plain_paint(rng: np.random.Generator) -> U8:
    """One colour that runs into another, now and then with writing on it."""
    first = rng.uniform(0, 255, 3)
    near = np.clip(first + rng.normal(0, 25, (2, 2, 3)), 0, 255).astype(np.float32)
    grain = rng.standard_normal((CROP_PX, CROP_PX, 1), np.float32) * np.float32(rng.uniform(0, 5))
    paint = np.asarray(np.clip(cv2.resize(near, (CROP_PX, CROP_PX)) + grain, 0, 255), np.uint8)
    if rng.random() < 0.3:
        ink = tuple(int(level) for level in 255 - first)
        step = int(rng.integers(10, 26))
        for line in range(step, CROP_PX, step):
            cv2.line(paint, (0, line), (int(rng.integers(60, 256)), line), ink, int(rng.integers(1, 4)))
    return paint


def pattern_paint(rng: np.random.Generator) -> U8:
    """Stripes, checks or dots of two colours: held out for the score, no training shows them."""
    y, x = np.mgrid[:CROP_PX, :CROP_PX].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), rng.uniform(10, 40)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    waves = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period)
    chosen = (waves[0], waves[0] * waves[1], waves[0] + waves[1] - 1.0)[rng.integers(3)] > 0
    first, second = rng.uniform(0, 255, (2, 3))
    return np.asarray(np.where(chosen[..., None], first, second), np.uint8)


def _joined(parts: Sequence[_Part], rng: np.random.Generator) -> Occluder:
    """The parts over one another, lit from one side, darker towards the edge of each."""
    paint = np.zeros((CROP_PX, CROP_PX, 3), np.float32)
    shape = _empty()
    y, x = np.mgrid[-1 : 1 : CROP_PX * 1j, -1 : 1 : CROP_PX * 1j].astype(np.float32)
    turn, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    light = np.float32(1.0) + np.float32(fall * np.cos(turn)) * x + np.float32(fall * np.sin(turn)) * y
    edge = rng.uniform(0.55, 0.95)
    for part in parts:
        left, top, columns, rows = cv2.boundingRect(part.shape)
        box = slice(top, top + rows), slice(left, left + columns)
        inside = part.shape[box] > 127
        if not inside.any():
            continue
        depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
        relief = edge + (1.0 - edge) * np.sqrt(np.minimum(depth / part.roundness_px, 1.0))
        paint[box][inside] = (part.paint[box] * (light[box] * relief.astype(np.float32))[..., None])[inside]
        shape |= part.shape
    levels = np.asarray(np.clip(paint, 0, 255), np.uint8)
    grown = cv2.dilate(levels, np.ones((15, 15), np.uint8))  # so that the soft edge does not mix with black
    levels[shape <= 127] = grown[shape <= 127]
    alpha = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.5, 1.6)).astype(np.float32) / 255.0
    return Occluder(levels, alpha)


def _empty() -> U8:
    return np.zeros((CROP_PX, CROP_PX), np.uint8)


def _polygon(corners: Xy, soft_px: float = 0.0) -> U8:
    """Filled polygon [N, 2]; soft_px rounds its corners."""
    shape = _empty()
    cv2.fillPoly(shape, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
    if soft_px:
        shape = np.where(cv2.GaussianBlur(shape, (0, 0), soft_px) > 127, np.uint8(255), np.uint8(0))
    return shape


def _stroke(points: Sequence[Xy], widths: Sequence[float]) -> U8:
    """A limb through the points, round at its ends, tapering from width to width."""
    shape = _empty()
    for (a, b), (wide, narrow) in zip(pairwise(points), pairwise(widths), strict=True):
        for share in np.linspace(0, 1, max(int(np.hypot(*(b - a)) / max(narrow, 4) * 3), 2)):
            at, radius = a + share * (b - a), (wide + share * (narrow - wide)) / 2
            if np.abs(at - CROP_PX / 2).max() < CROP_PX:
                cv2.circle(shape, _point(at), max(round(radius), 1), 255, -1)
    return shape


def _box(centre: Xy, half: Xy, turn: float) -> Xy:
    """Corners [4, 2] of a turned rectangle."""
    along = _direction(turn)
    across = np.array([-along[1], along[0]])
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    return centre + signs[:, :1] * half[0] * along + signs[:, 1:] * half[1] * across


def _direction(turn: float) -> Xy:
    return np.array([np.cos(turn), np.sin(turn)])


def _point(xy: Xy) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


def _before_the_face(rng: np.random.Generator) -> Xy:
    return np.array([rng.uniform(55, 201), rng.uniform(60, 225)])


def _hand(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A hand and its forearm, drawn; photographed mostly, if there are photographs."""
    photographed = bool(paints.hands) and rng.random() < _PHOTOGRAPHED
    return _photographed_hand(rng, paints) if photographed else _drawn_hand(rng, paints)


def _photographed_hand(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A hand of a photograph, of the colour that the paints have for skin, on a drawn forearm that goes on from it."""
    hand, skin = paints.hands[rng.integers(len(paints.hands))], paints.skin(rng)
    inside = hand.inside > 127
    height = len(inside)
    palm = np.array([rng.uniform(25, 231), rng.uniform(60, 250)])
    # Mostly from below, as arms come into a call, now and then from anywhere.
    turn = rng.normal(0.0, 0.7) if rng.random() < 0.75 else rng.uniform(-np.pi, np.pi)
    rows = np.flatnonzero(inside.any(axis=1))
    size = rng.uniform(70, 190) / (height - rows[0])
    linear = (
        size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * [rng.choice([-1.0, 1.0]), 1.0]
    )
    centre = np.argwhere(inside).mean(axis=0)[::-1]
    crop_from_hand = np.column_stack([linear, palm - linear @ centre])

    own = hand.paint[inside].mean(axis=0)
    gains = skin.reshape(-1, 3).mean(axis=0) / np.maximum(own, 1.0) if rng.random() < 0.8 else np.ones(3)
    tinted = np.asarray(np.clip(hand.paint * gains, 0, 255), np.uint8)
    # The wall shines through at the edge; what is just inside goes on there.
    core = cv2.erode(hand.inside, np.ones((3, 3), np.uint8))
    edge = cv2.dilate(np.where(core[..., None] > 127, tinted, np.uint8(0)), np.ones((5, 5), np.uint8))
    tinted = np.where(core[..., None] > 127, tinted, edge)
    span = CROP_PX, CROP_PX
    paint = cv2.warpAffine(tinted, crop_from_hand, span, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shape = cv2.warpAffine(hand.inside, crop_from_hand, span, flags=cv2.INTER_LINEAR)
    shape = np.where(shape > 127, np.uint8(255), np.uint8(0))

    middle, thick = hand.wrist
    wrist = crop_from_hand @ [middle, height - 1.0, 1.0]
    thick *= size
    out = _direction(turn + np.pi / 2 + rng.normal(0, 0.25))
    arm = np.broadcast_to(tinted[-8:][inside[-8:]].mean(axis=0), (CROP_PX, CROP_PX, 3)).astype(np.uint8)
    begins = wrist - out * thick * 0.3
    arm_shape = _stroke([begins, wrist + out * _FAR_PX], [thick, thick * 1.6])
    parts = [_Part(arm_shape, arm, thick / 2), _Part(shape, paint, 0.01)]
    if rng.random() < 0.6:
        cuff = wrist + out * rng.uniform(-0.2, 1.5) * thick
        sleeve = _stroke([cuff, cuff + out * _FAR_PX], [thick * 1.4, thick * 2.2])
        parts.append(_Part(sleeve, paints.thing(rng), thick * 0.7))
    return parts


def _drawn_hand(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A forearm, perhaps in a sleeve, a palm, four fingers and a thumb, open, bent or a fist."""
    skin, palm = paints.skin(rng), _before_the_face(rng)
    turn, size = rng.uniform(0, 2 * np.pi), rng.uniform(34, 82)
    along = _direction(turn)
    across = np.array([-along[1], along[0]]) * rng.choice([-1.0, 1.0])
    wrist, bent = palm - along * size * 0.6, _direction(turn + rng.normal(0, 0.35))
    parts = [_Part(_stroke([wrist, wrist - bent * _FAR_PX], [size * 0.7, size * 1.1]), skin, size * 0.35)]
    if rng.random() < 0.45:
        cuff = wrist - bent * rng.uniform(0.1, 1.5) * size
        sleeve = _stroke([cuff, cuff - bent * _FAR_PX], [size * 0.95, size * 1.5])
        parts.append(_Part(sleeve, paints.thing(rng), size * 0.5))
    corners = [(-0.6, -0.42), (0.45, -0.5), (0.55, 0.0), (0.45, 0.5), (-0.6, 0.42)]
    outline = palm + size * np.array([a * along + c * across for a, c in corners])
    parts.append(_Part(_polygon(outline, size * 0.08), skin, size * 0.4))
    spread, stretch = rng.uniform(0.0, 0.3), rng.uniform(0.2, 1.0)
    for finger in range(4):
        place = (finger - 1.5) / 3.0
        base = palm + size * (0.4 * along + 0.85 * place * across)
        length = size * (1.0 - 0.25 * abs(place)) * stretch * rng.uniform(0.8, 1.1)
        parts.append(_Part(_finger(rng, base, turn, across, place * spread, length, size * 0.25), skin, size * 0.11))
    if rng.random() < 0.8:
        base, out = palm + size * (-0.25 * along - 0.45 * across), rng.uniform(-0.3, 0.9)
        tip = base + size * 0.75 * (along * (1 - abs(out) / 2) - across * out)
        parts.append(_Part(_stroke([base, tip], [size * 0.32, size * 0.2]), skin, size * 0.14))
    return parts


def _finger(
    rng: np.random.Generator, base: Xy, turn: float, across: Xy, splay: float, length: float, width: float
) -> U8:
    """Three bones from `base` on, bent a little at each joint."""
    aim = _direction(turn) + 2.0 * splay * across
    points, bend = [base], rng.normal(0, 0.12)
    for share in (0.45, 0.3, 0.25):
        aim = aim / np.hypot(*aim) + bend * across
        points.append(points[-1] + share * length * aim)
    return _stroke(points, [width, width * 0.95, width * 0.85, width * 0.65])


def _held(rng: np.random.Generator, paints: Paints, shape: U8, at: Xy, roundness_px: float) -> list[_Part]:
    """A thing, and half the time a hand that holds it."""
    thing = _Part(shape, paints.thing(rng), roundness_px)
    if rng.random() < 0.5:
        return [thing]
    skin, width = paints.skin(rng), rng.uniform(12, 22)
    turn = rng.uniform(0, 2 * np.pi)
    along, across = _direction(turn), _direction(turn + np.pi / 2)
    arm = _stroke([at - along * width, at - along * _FAR_PX], [width * 3.0, width * 4.5])
    held = [_Part(arm, skin, width * 2), thing]
    for finger in range(4):
        start = at + across * (finger - 1.5) * width * 1.02
        tip = start + along * width * rng.uniform(1.0, 2.2)
        held.append(_Part(_stroke([start - along * 2 * width, tip], [width * 1.1, width * 0.85]), skin, width / 2))
    return held


def _card(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A phone or a sheet of paper: four corners, seen askew."""
    at, half = _before_the_face(rng), rng.uniform([18, 30], [70, 90])
    corners = _box(at, half, rng.uniform(0, np.pi)) + rng.normal(0, 6, (4, 2))
    return _held(rng, paints, _polygon(corners, rng.choice([0.0, 3.0])), at, rng.uniform(2, 40))


def _mug(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A cylinder with a handle."""
    at, half = _before_the_face(rng), rng.uniform([22, 25], [48, 55])
    turn = rng.normal(0, 0.35)
    shape = _polygon(_box(at, half, turn), 3.0)
    side = at + rng.choice([-1.0, 1.0]) * half[0] * 1.05 * _direction(turn)
    cv2.ellipse(shape, _point(side), (round(half[0] * 0.5), round(half[1] * 0.6)), 0, 0, 360, 255, 8)
    return _held(rng, paints, shape, at, half[0])


def _microphone(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A ball or an egg on a rod."""
    at, radius = np.array([rng.uniform(60, 196), rng.uniform(110, 220)]), rng.uniform(12, 38)
    turn = rng.uniform(0, 2 * np.pi)
    rod = _stroke([at, at - _direction(turn) * _FAR_PX], [radius * 1.2, radius * rng.uniform(0.6, 1.2)])
    head = _empty()
    cv2.ellipse(
        head, _point(at), (round(radius * rng.uniform(1, 1.6)), round(radius)), np.rad2deg(turn), 0, 360, 255, -1
    )
    return [_Part(rod, plain_paint(rng), radius / 2), _Part(head, paints.thing(rng), radius)]


def _cloth(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A scarf or a face mask: a band over the lower part of the face, or a band from side to side."""
    top, tilt = rng.uniform(125, 190), rng.normal(0, 12)
    across = np.linspace(-20, 276, 9)
    upper = np.column_stack([across, top + tilt * np.linspace(-1, 1, 9) + rng.normal(0, 6, 9)])
    lower = np.column_stack([across[::-1], rng.uniform(225, 300) + rng.normal(0, 8, 9)])
    return [_Part(_polygon(np.concatenate([upper, lower]), 3.0), paints.thing(rng), rng.uniform(10, 60))]


def _mouth_mask(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A surgical mask, with its bands."""
    middle, wide, high = np.array([128, 178]) + rng.normal(0, 8, 2), rng.uniform(42, 60), rng.uniform(28, 42)
    corners = [(-1, -0.55), (0, -1), (1, -0.55), (0.85, 0.55), (0.3, 1), (-0.3, 1), (-0.85, 0.55)]
    shape = _polygon(middle + np.array(corners) * [wide, high], 2.5)
    for side in (-1.0, 1.0):
        start = middle + np.array([side * wide * 0.95, -high * 0.4])
        cv2.line(shape, _point(start), _point(start + np.array([side * 40, -rng.uniform(0, 40)])), 255, 2, cv2.LINE_AA)
    return [_Part(shape, paints.thing(rng), high * 1.5)]


def _strap(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A strap, a lead, a stick, a bare arm: a band that runs through the crop, straight or bent."""
    at, turn, width = _before_the_face(rng), rng.uniform(0, 2 * np.pi), rng.uniform(6, 46)
    bend = rng.normal(0, 0.5)
    points = [at - _FAR_PX * _direction(turn), at, at + rng.uniform(20, 90) * _direction(turn + bend)]
    if rng.random() < 0.6:
        points.append(points[-1] + _FAR_PX * _direction(turn + 2 * bend))
    paint = paints.skin(rng) if rng.random() < 0.5 else paints.thing(rng)
    return [_Part(_stroke(points, list(width * rng.uniform(0.8, 1.2, len(points)))), paint, width / 2)]


def _blob(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """Anything: one closed shape, smooth or angular, 40 to 200 px wide."""
    corners = int(rng.integers(3, 10))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(20, 100) * rng.uniform(0.5, 1.0, corners)
    ring = _before_the_face(rng) + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    paint = paints.skin(rng) if rng.random() < 0.25 else paints.thing(rng)
    return [_Part(_polygon(ring, rng.choice([0.0, 3.0, 8.0])), paint, rng.uniform(2, 40))]


def _bottle(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """Body, shoulders and neck."""
    at, wide = _before_the_face(rng), rng.uniform(16, 34)
    turn = rng.uniform(0, 2 * np.pi)
    along, across = _direction(turn), _direction(turn + np.pi / 2)
    profile = [(-2.4, 1), (0.6, 1), (1.3, 0.35), (2.4, 0.35), (2.4, -0.35), (1.3, -0.35), (0.6, -1), (-2.4, -1)]
    outline = at + wide * np.array([a * along + c * across for a, c in profile])
    return _held(rng, paints, _polygon(outline, 2.0), at - along * wide, wide)


def _star(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A star or a leaf with five to eight points."""
    points = int(rng.integers(5, 9))
    angles = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False) + rng.uniform(0, 1)
    radii = rng.uniform(40, 80) * np.where(np.arange(2 * points) % 2, rng.uniform(0.4, 0.6), 1.0)
    ring = _before_the_face(rng) + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    return [_Part(_polygon(ring), paints.thing(rng), rng.uniform(2, 30))]


def _ring(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """A hoop, a tyre, the rim of a racket: the face shows through its middle."""
    shape, radius = _empty(), rng.uniform(35, 65)
    axes = (round(radius), round(radius * rng.uniform(0.6, 1.0)))
    cv2.ellipse(shape, _point(_before_the_face(rng)), axes, rng.uniform(0, 180), 0, 360, 255, int(rng.integers(16, 32)))
    return [_Part(shape, paints.thing(rng), 10.0)]


def _arms(rng: np.random.Generator, paints: Paints) -> list[_Part]:
    """Two bare forearms that cross."""
    skin, at, width = paints.skin(rng), _before_the_face(rng), rng.uniform(28, 52)
    turn = rng.uniform(0, np.pi)
    parts = []
    for aim in (turn, turn + rng.uniform(0.5, 1.6)):
        ends = [at - _direction(aim) * _FAR_PX, at + _direction(aim) * rng.uniform(40, 90)]
        parts.append(_Part(_stroke(ends, [width * 1.3, width * 0.8]), skin, width / 2))
    return parts


Kind = Callable[[np.random.Generator, Paints], list[_Part]]

TRAINED: Mapping[str, Kind] = MappingProxyType(
    {
        "hand": _hand,
        "card": _card,
        "mug": _mug,
        "microphone": _microphone,
        "cloth": _cloth,
        "mouth mask": _mouth_mask,
        "strap": _strap,
        "blob": _blob,
    }
)
HELD_OUT: Mapping[str, Kind] = MappingProxyType({"bottle": _bottle, "star": _star, "ring": _ring, "arms": _arms})
_CHANCES: Mapping[str, float] = MappingProxyType({"hand": 5.0, "strap": 2.0, "blob": 2.0})
