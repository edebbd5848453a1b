"""Samples for the face parser: CelebAMask-HQ pairs, and the damage that webcams and hands do to them.

Crops are uint8 RGB [256, 256, 3]; class maps are uint8 [128, 128] of indices into models.parsing.CLASSES. Transforms
are named dst_from_src and act on points (x, y) with pixel centres at integers.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.parsing import class_table

CROP_PX = 256
LABEL_PX = 128
U8 = NDArray[np.uint8]

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


def augmented_sample(crops: U8, labels: U8, index: int, rng: np.random.Generator) -> tuple[U8, U8]:
    """Pair `index` moved, occluded, recoloured and degraded at random; other pairs lend it textures."""
    crop, label = _warp(crops[index], labels[index], random_affine(rng))
    if rng.random() < 0.35:
        crop, label = occlude(crop, label, crops[rng.integers(len(crops))], rng)
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


def occlude(crop: U8, label: U8, texture: U8, rng: np.random.Generator) -> tuple[U8, U8]:
    """Put something in front of the face and label it background, so that a hand or a cup is not edited.

    One of: fingers in the colour of the face's own skin, a blob cut from `texture`, a blob of one colour.
    """
    skin = cv2.resize(label, (CROP_PX, CROP_PX), interpolation=cv2.INTER_NEAREST) == 1
    kind = rng.integers(3)
    if kind == 0 and skin.any():
        shape = _fingers(rng)
        colour = crop[skin].mean(0) * rng.uniform(0.7, 1.2)
        paint = colour + rng.normal(0, 10, (8, 8, 1)) + rng.normal(0, 4, (8, 8, 3))
    else:
        shape = _blob(rng)
        paint = np.roll(texture, rng.integers(0, CROP_PX, 2), (0, 1)) if kind == 1 else rng.uniform(0, 255, (2, 2, 3))
    paint = cv2.resize(np.clip(paint, 0, 255).astype(np.uint8), (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC)
    alpha = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.5, 1.5)).astype(np.float32) / 255.0
    covered = cv2.blendLinear(crop, paint, 1.0 - alpha, alpha)
    hidden = cv2.resize(shape, (LABEL_PX, LABEL_PX), interpolation=cv2.INTER_AREA) >= 128
    return covered, np.where(hidden, np.uint8(0), label)


def _fingers(rng: np.random.Generator) -> U8:
    """Mask [256, 256] of two to five thick parallel strokes that come in from outside the crop's middle."""
    shape = np.zeros((CROP_PX, CROP_PX), np.uint8)
    tip, angle = rng.uniform(60, 196, 2), rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    width = int(rng.integers(14, 28))
    for finger in range(rng.integers(2, 6)):
        start = tip + across * finger * width * rng.uniform(0.9, 1.3) + along * rng.uniform(-15, 15)
        end = start + along * 300
        cv2.line(shape, _point(start), _point(end), 255, width, cv2.LINE_AA)
    return shape


def _blob(rng: np.random.Generator) -> U8:
    """Mask [256, 256] of one smooth or angular closed shape, 30 to 110 px wide."""
    shape = np.zeros((CROP_PX, CROP_PX), np.uint8)
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(30, 110) * rng.uniform(0.5, 1.0, corners)
    ring = rng.uniform(20, 236, 2) + radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    cv2.fillPoly(shape, [ring.astype(np.int32)], 255, cv2.LINE_AA)
    if rng.random() < 0.5:
        shape = np.where(cv2.GaussianBlur(shape, (0, 0), 10) > 127, np.uint8(255), np.uint8(0))
    return shape


def _point(xy: NDArray[np.float64]) -> tuple[int, int]:
    return int(xy[0]), int(xy[1])


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
