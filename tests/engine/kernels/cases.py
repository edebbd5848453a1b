"""What the kernels are tried on, and the CPU's answers to it."""

from functools import cache

import cv2
import numpy as np

from engine.bundle import ParserSpec
from engine.compositing import Patch, blend, image_from_u8
from engine.directions import Reach
from engine.geometry import CROP_SIZE, Affine, align, square_from_frame
from engine.kernels.blend import blend_buffers, blend_faces, place_patches
from engine.kernels.mask import mask_buffers, soft_masks
from engine.kernels.warp import align_faces, crop_buffers, place_crops
from engine.masks import FaceParse, MaskShape, face_mask, parse_faces, soft_mask

PLACES = (
    ((320.0, 180.0), 0.0),
    ((317.3, 181.7), 33.0),
    ((0.0, 0.0), 90.0),  # a quarter of it in the frame
    ((630.4, 100.2), -120.0),  # over the right edge
    ((-900.0, 300.0), 10.0),  # wholly outside, unless it is large
)
"""Centres in a frame of 640 x 360 and turns in degrees."""

PARTS = ParserSpec(
    128, ("background", "skin", "hair", "glasses", "neck", "cloth", "hand"), ("skin", "hair", "glasses"), ("hand",)
)


def face_at(centre_px, half_side_px: float, degrees: float = 0.0) -> Affine:
    angle = np.deg2rad(degrees)
    axis = half_side_px * np.array([np.cos(angle), np.sin(angle)])
    return square_from_frame(np.array(centre_px, float), axis, CROP_SIZE)


@cache
def noise(height: int = 360, width: int = 640, channels: int = 3) -> np.ndarray:
    """The hardest frame: no pixel is like its neighbours, so that any shift shows."""
    frame = np.random.default_rng(height).integers(0, 256, (height, width, channels), np.uint8)
    frame.flags.writeable = False
    return frame


@cache
def edits(faces: int) -> np.ndarray:
    """What a generator could give, beyond its range too: float32 RGB [F, 3, S, S]."""
    return np.random.default_rng(faces).uniform(-1.2, 1.2, (faces, 3, CROP_SIZE, CROP_SIZE)).astype(np.float32)


@cache
def masks(faces: int) -> np.ndarray:
    """Float32 [F, S, S]: a face's mask, none at all, any values up to the border, in turns."""
    y, x = np.mgrid[-1 : 1 : CROP_SIZE * 1j, -1 : 1 : CROP_SIZE * 1j]
    ellipse = soft_mask((1.0 - (x / 0.7) ** 2 - (y / 0.8) ** 2).astype(np.float32), CROP_SIZE, MaskShape())
    whole = np.ones_like(ellipse)
    random = np.random.default_rng(7).uniform(0.0, 1.0, whole.shape).astype(np.float32)
    return np.stack([(ellipse, whole, random)[n % 3] for n in range(faces)])


def logits(faces: int, width: int, height: int) -> np.ndarray:
    """A parser's smooth answer, float32 [2 F, classes, h, w]; it finds nothing in the last face."""
    rng = np.random.default_rng(width + height)
    planes = 2 * faces * len(PARTS.classes)
    coarse = rng.normal(size=(9, 9, planes)).astype(np.float32)
    smooth = np.stack(
        [cv2.resize(coarse[..., n], (width, height), interpolation=cv2.INTER_CUBIC) for n in range(planes)]
    )
    answer = smooth.reshape(2 * faces, len(PARTS.classes), height, width)
    for name in PARTS.face_classes:
        answer[[faces - 1, 2 * faces - 1], PARTS.classes.index(name)] -= 99.0
    return answer


def levels(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two images on [-1, 1] in grey levels, but for the last digits of float32."""
    return round(float(np.abs(a.astype(np.float32) - b).max()) * 127.5, 3)


def aligned(bench, frame, size_px, faces, real=np.float32) -> np.ndarray:
    """The kernels' crops. frame: on the device. size_px: (width, height)."""
    kernels = bench.kernels
    buffers = crop_buffers(kernels, len(faces))
    out = kernels.empty((len(faces), 3, CROP_SIZE, CROP_SIZE), real)
    align_faces(kernels, frame, buffers, place_crops(kernels, faces, size_px, buffers), out)
    return bench.get(out)


def defined_crops(frame: np.ndarray, faces) -> np.ndarray:
    return np.concatenate([image_from_u8(align(np.ascontiguousarray(frame), face)) for face in faces])


def nearly_unchanged(frame: np.ndarray, faces) -> tuple[np.ndarray, np.ndarray]:
    """The frame's crops, and edits that look like them in places; float32 RGB [F, 3, S, S]."""
    crops = defined_crops(frame, faces)
    coarse = np.random.default_rng(3).uniform(-0.4, 0.4, (9, 9, 3)).astype(np.float32)
    change = cv2.resize(coarse, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)
    return crops, crops + change


def blended(bench, frame, size_px, faces, images, soft, kept=None) -> None:
    """The kernels' blend, into `frame`. frame, images, soft, kept: on the device."""
    buffers = blend_buffers(bench.kernels, len(faces))
    extent_px = place_patches(bench.kernels, faces, size_px, buffers)
    blend_faces(bench.kernels, frame, images, soft, buffers, extent_px, kept)


def defined_blend(frame: np.ndarray, faces, images: np.ndarray, soft: np.ndarray, kept=()) -> np.ndarray:
    patches = [Patch(*patch) for patch in zip(images, soft, faces, *kept, strict=True)]
    return blend(np.ascontiguousarray(frame), patches)


def hair_weights(faces: int) -> np.ndarray:
    """Hair alone, a part of it, none, in turns."""
    return np.resize(np.array([2.0, 0.4, 0.0], np.float32), faces)


def glasses_weights(faces: int) -> np.ndarray:
    """Of the edit, a part of it, of the frame, in turns."""
    return np.resize(np.array([1.0, 0.3, 0.0], np.float32), faces)


def outline_weights(faces: int) -> np.ndarray:
    """A part of it the edit's, the frame's, the edit's, in turns."""
    return np.resize(np.array([0.3, 0.0, 1.0], np.float32), faces)


def reach_of(faces: int) -> Reach:
    """Faces with these weights; all else is nothing."""
    nothing = np.zeros(faces, np.float32)
    places = np.zeros((faces, CROP_SIZE), np.float32), np.zeros((faces, 2), np.int32)
    parts = {"hair": hair_weights, "glasses": glasses_weights, "outline": outline_weights}
    return Reach(*[nothing] * 7, *places)._replace(**{part: of(faces) for part, of in parts.items()})


def mask_weights(reach: Reach) -> tuple[np.ndarray, ...]:
    """Of it, what masks are made by, in the order of `face_mask`."""
    return reach.hair, reach.outline


def united(bench, answer: np.ndarray, shape: MaskShape, reach: Reach | None = None) -> np.ndarray:
    """The kernels' masks."""
    twice, _, height, width = answer.shape
    buffers = mask_buffers(bench.kernels, twice // 2, PARTS, (width, height), shape)
    out = bench.kernels.empty((twice // 2, CROP_SIZE, CROP_SIZE), np.float32)
    weights = () if reach is None else map(bench.put, mask_weights(reach))
    soft_masks(bench.kernels, bench.put(answer), buffers, out, *weights)
    return bench.get(out)


def parses(answer: np.ndarray) -> tuple[FaceParse, ...]:
    """What is made of a parser's answer."""

    class Parser:
        spec = None

        def __call__(self, crop):
            return {"logits": answer.astype(np.float32)}

    crops = np.zeros((len(answer) // 2, 3, CROP_SIZE, CROP_SIZE), np.float32)
    return parse_faces(Parser(), PARTS, crops, crops)


def defined_masks(answer: np.ndarray, shape: MaskShape, reach: Reach | None = None) -> np.ndarray:
    whole = np.ones(len(answer) // 2)
    weights = [whole] * 2 if reach is None else mask_weights(reach)
    faces = zip(parses(answer), *weights, strict=True)
    return np.stack([face_mask(parse, CROP_SIZE, shape, *parts) for parse, *parts in faces])
