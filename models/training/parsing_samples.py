"""Samples for the face parser: CelebAMask-HQ pairs, and the damage that webcams and hands do to them.

Crops are uint8 RGB [256, 256, 3]; class maps are uint8 [128, 128] of indices into models.parsing.CLASSES. Transforms
are named dst_from_src and act on points (x, y) with pixel centres at integers.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.parsing import CLASSES, OCCLUDER_CLASSES, class_table
from models.training import occluders
from models.training.hand_photos import HandPhoto

CROP_PX = 256
LABEL_PX = 128
U8 = NDArray[np.uint8]
OCCLUDER = CLASSES.index(OCCLUDER_CLASSES[0])
UNKNOWN = 255
"""Label of pixels that nothing is known of; nothing is learnt from them."""

WORN = tuple(CLASSES.index(name) for name in ("glasses", "hat"))
_SKIN = CLASSES.index("skin")

# A label pixel covers 2x2 crop pixels: label centre i sits at crop coordinate 2i + 0.5.
_CROP_FROM_LABEL = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])


def load_pairs(pairs: list[tuple[Path, Path]]) -> tuple[U8, U8]:
    """Read (image, CelebAMask-HQ mask) files into arrays [N, 256, 256, 3] and [N, 256, 256] of class indices.

    Raises FileNotFoundError naming a file that OpenCV cannot read.
    """
    table = class_table()
    crops, labels = [], []
    for image_path, mask_path in pairs:
        image, mask = cv2.imread(str(image_path)), cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None:
            raise FileNotFoundError(f"not a readable pair of image and mask: {image_path}, {mask_path}")
        crops.append(
            cv2.cvtColor(cv2.resize(image, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        )
        labels.append(table[cv2.resize(mask, (CROP_PX, CROP_PX), interpolation=cv2.INTER_NEAREST)])
    return np.stack(crops), np.stack(labels)


def plain_sample(crop: U8, label: U8) -> tuple[U8, U8]:
    """The pair as it is, with the class map at the parser's size."""
    return _warp(crop, label, np.eye(3))


def augmented_sample(
    crops: U8, labels: U8, index: int, rng: np.random.Generator, hands: Sequence[HandPhoto] = ()
) -> tuple[U8, U8]:
    """Pair `index` dressed, moved, occluded, recoloured and degraded at random; other pairs lend it what it gets."""
    crop, label = crops[index], labels[index]
    if rng.random() < 0.5:
        other = rng.integers(len(crops))
        crop, label = put_on(crop, label, crops[other], labels[other], rng)
    crop, label = _warp(crop, label, random_affine(rng))
    occluded = rng.random()
    for _ in range((occluded < 0.5) + int(occluded < 0.12)):
        other = rng.integers(len(crops))
        crop, label = occlude(crop, label, crops[other], labels[other], rng, hands)
    return degrade(recolour(crop, rng), rng), label


def to_network(crops: list[U8]) -> Tensor:
    """uint8 RGB crops -> float32 [B, 3, 256, 256] in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def random_affine(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random src_from_crop [3, 3]: rotation +-15 degrees, scale 0.8..1.2, shift +-16 px, mirrored half the time."""
    angle, scale = np.deg2rad(rng.uniform(-15, 15)), 1.0 / rng.uniform(0.8, 1.2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    mirror = rng.choice([-1.0, 1.0])
    centre = (CROP_PX - 1) / 2
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    offset = centre + rng.uniform(-16, 16, 2) - linear @ [centre, centre]
    return np.vstack([np.column_stack([linear, offset]), [0.0, 0.0, 1.0]])


def _warp(crop: U8, label: U8, src_from_crop: NDArray[np.float64]) -> tuple[U8, U8]:
    moved = cv2.warpAffine(
        crop,
        src_from_crop[:2],
        (CROP_PX, CROP_PX),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    small = cv2.warpAffine(
        label,
        (src_from_crop @ _CROP_FROM_LABEL)[:2],
        (LABEL_PX, LABEL_PX),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return moved, small


def occlude(
    crop: U8, label: U8, lender: U8, lent: U8, rng: np.random.Generator, hands: Sequence[HandPhoto] = ()
) -> tuple[U8, U8]:
    """Put something in front of the face and label it occluder, so that a hand or a cup is not edited.

    lender, lent: another pair, uint8 RGB [256, 256, 3] and class indices [256, 256], for textures and skin.
    hands: photographed ones; without them all hands are drawn.
    """
    paints = occluders.paints_from(lender, lent == _SKIN, _skin_colour(crop, label, rng), hands)
    occluder = occluders.smeared(occluders.draw_occluder(rng, occluders.TRAINED, paints), rng)
    hidden = cv2.resize(occluder.alpha, (LABEL_PX, LABEL_PX), interpolation=cv2.INTER_AREA) >= 0.5
    return occluders.lay_over(crop, occluder, rng), np.where(hidden, np.uint8(OCCLUDER), label)


def _skin_colour(crop: U8, label: U8, rng: np.random.Generator) -> NDArray[np.float64]:
    """RGB of the face's skin, 0..255; of any colour where no skin is."""
    skin = crop[::2, ::2][label == _SKIN]
    return skin.mean(0) if len(skin) else rng.uniform(60, 220, 3)


def put_on(crop: U8, label: U8, lender: U8, lent: U8, rng: np.random.Generator) -> tuple[U8, U8]:
    """The pair with the hat and the glasses of another one, recoloured; as it is where it wears some itself.

    crop, lender: uint8 RGB [256, 256, 3]; label, lent: their class indices [256, 256]. Faces are aligned, so what sits
    on one sits nearly as well on the next.
    """
    worn = np.isin(lent, WORN)
    if not worn.any() or np.isin(label, WORN).any():
        return crop, label
    shift = np.eye(3)
    shift[:2, 2] = rng.normal(0, 4, 2)
    moved = cv2.warpAffine(worn.astype(np.uint8), shift[:2], (CROP_PX, CROP_PX), flags=cv2.INTER_NEAREST) > 0
    kinds = cv2.warpAffine(lent, shift[:2], (CROP_PX, CROP_PX), flags=cv2.INTER_NEAREST)
    painted = cv2.warpAffine(recolour(lender, rng), shift[:2], (CROP_PX, CROP_PX))
    alpha = cv2.GaussianBlur(moved.astype(np.float32), (0, 0), 1.0)
    return cv2.blendLinear(crop, painted, 1.0 - alpha, alpha), np.where(moved, kinds, label)


def recolour(crop: U8, rng: np.random.Generator) -> U8:
    """Change exposure, contrast, white balance and saturation; one crop in six becomes a dark one, some grey."""
    gamma = rng.uniform(1.5, 3.0) if rng.random() < 0.15 else np.exp(rng.uniform(-0.4, 0.4))
    levels = np.linspace(0, 1, 256, dtype=np.float64) ** gamma
    gains = rng.uniform(0.75, 1.25) * rng.uniform(0.88, 1.12, 3)
    curves = (levels[:, None] - 0.5) * rng.uniform(0.75, 1.2) + 0.5 + rng.uniform(-0.06, 0.06)
    table = np.clip(curves * gains * 255, 0, 255).astype(np.uint8)
    coloured = cv2.LUT(crop, table[None])
    grey = cv2.cvtColor(cv2.cvtColor(coloured, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = 0.0 if rng.random() < 0.04 else rng.uniform(0.6, 1.4)
    return cv2.addWeighted(coloured, saturation, grey, 1.0 - saturation, 0.0)


def degrade(crop: U8, rng: np.random.Generator) -> U8:
    """Blur, lose resolution, add noise and compress, each only sometimes."""
    if rng.random() < 0.2:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 2.5))
    if rng.random() < 0.25:
        size = int(rng.integers(56, 200))
        crop = cv2.resize(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), (CROP_PX, CROP_PX))
    if rng.random() < 0.3:
        noise = rng.standard_normal(crop.shape, dtype=np.float32) * rng.uniform(2, 14)
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])
        crop = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return crop
