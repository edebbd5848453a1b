"""Coordinates, similarity transforms, the FFHQ crop and the one warp that everything goes through.

Conventions, said once for the whole program:

- Points are (x, y), x to the right and y down. **Pixel centres lie at integers**: the top-left pixel's centre is (0, 0)
  and the area of an image of width W reaches from x = -0.5 to x = W - 0.5.
- Transforms are named `dst_from_src` and are float64 [2, 3]: `dst = A @ (x, y, 1)`. `crop_from_frame` takes a point of
  the frame to the crop.
- Sizes are (width, height); rectangles (x0, y0, x1, y1) in whole pixels, x1 and y1 exclusive.
- The crop is FFHQ's: `CROP_SIZE` square, from the eye and mouth points as in the data set's own recipe (Karras et al.,
  "A Style-Based Generator Architecture for GANs", 2019, appendix A).
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
"""A `dst_from_src` transform, float64 [2, 3]."""

Points = NDArray[np.float64]
"""Points (x, y), float64 [N, 2]."""

Rectangle = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in whole pixels, x1 and y1 exclusive; empty when x1 <= x0 or y1 <= y0."""

CROP_SIZE = 256
"""Width and height of the aligned face crop, in pixels."""


def invert_affine(dst_from_src: Affine) -> Affine:
    """`src_from_dst` of an invertible `dst_from_src`, float64 [2, 3]."""
    # On six numbers, Python's own are ten times as fast as NumPy's, and a frame needs some forty transforms.
    (a, b, x), (c, d, y) = dst_from_src.tolist()
    area = a * d - b * c
    a, b, c, d = d / area, -b / area, -c / area, a / area
    return np.array([[a, b, -(a * x + b * y)], [c, d, -(c * x + d * y)]])


def compose(c_from_b: Affine, b_from_a: Affine) -> Affine:
    """`c_from_a`: first `b_from_a`, then `c_from_b`; float64 [2, 3]."""
    (a, b, x), (c, d, y) = c_from_b.tolist()
    (e, f, u), (g, h, v) = b_from_a.tolist()
    return np.array(
        [
            [a * e + b * g, a * f + b * h, a * u + b * v + x],
            [c * e + d * g, c * f + d * h, c * u + d * v + y],
        ]
    )


def translation(dx: float, dy: float) -> Affine:
    """The transform that adds (dx, dy), float64 [2, 3]."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])


def transform_points(dst_from_src: Affine, points: NDArray[Any]) -> Points:
    """Points [N, 2] of the source in coordinates of the destination, float64 [N, 2]."""
    return np.asarray(points @ dst_from_src[:, :2].T + dst_from_src[:, 2], dtype=np.float64)


def square_from_frame(centre_px: NDArray[Any], half_axis_px: NDArray[Any], size: int) -> Affine:
    """The similarity that fills a `size` x `size` image with a square of the frame.

    centre_px: the square's centre. half_axis_px: the vector from the centre to the middle of the side that becomes the
    right side of the image; its length is half the square's side. Both (x, y) in frame pixels.
    """
    scale = 2.0 / size
    ax, ay = float(half_axis_px[0]) * scale, float(half_axis_px[1]) * scale
    # The image's area is [-0.5, size - 0.5], so its centre is at (size - 1) / 2.
    middle = (size - 1) / 2.0
    frame_from_square = np.array(
        [
            [ax, -ay, float(centre_px[0]) - (ax - ay) * middle],
            [ay, ax, float(centre_px[1]) - (ax + ay) * middle],
        ]
    )
    return invert_affine(frame_from_square)


def ffhq_crop_from_frame(
    eye_left_px: NDArray[Any], eye_right_px: NDArray[Any], mouth_left_px: NDArray[Any], mouth_right_px: NDArray[Any]
) -> Affine:
    """FFHQ's crop from the centres of the eyes and the corners of the mouth, as `crop_from_frame`.

    Left and right are the image's. All points (x, y) in frame pixels. The half side is the larger of 2.0 x the distance
    of the eyes and 1.8 x that from the eyes to the mouth; the centre lies a tenth of the latter below the eyes.
    """
    eyes = (eye_left_px + eye_right_px) / 2.0
    eye_to_eye = eye_right_px - eye_left_px
    eye_to_mouth = (mouth_left_px + mouth_right_px) / 2.0 - eyes
    # Both vectors vote for the direction of the crop's x axis: the eyes', and the mouth's turned by 90 degrees.
    axis = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    axis = axis / max(math.hypot(axis[0], axis[1]), 1e-9)
    half_side = max(2.0 * math.hypot(eye_to_eye[0], eye_to_eye[1]), 1.8 * math.hypot(eye_to_mouth[0], eye_to_mouth[1]))
    return square_from_frame(eyes + 0.1 * eye_to_mouth, axis * max(half_side, 1e-3), CROP_SIZE)


def pixels_per_pixel(dst_from_src: Affine) -> float:
    """How many source pixels one destination pixel spans along a line: above 1 the image is made smaller."""
    (a, b, _), (c, d, _) = dst_from_src.tolist()
    return 1.0 / math.sqrt(max(abs(a * d - b * c), 1e-12))


def crop_corners_px(crop_from_frame: Affine, size: int = CROP_SIZE) -> Points:
    """The four outer corners of the crop's area in the frame, clockwise from the top left; float64 [4, 2]."""
    low, high = -0.5, size - 0.5
    corners = np.array([[low, low], [high, low], [high, high], [low, high]])
    return transform_points(invert_affine(crop_from_frame), corners)


def face_rectangle_px(crop_from_frame: Affine, frame_size: tuple[int, int]) -> Rectangle:
    """The smallest rectangle of the frame that holds every pixel the crop touches, clipped to the frame.

    frame_size: (width, height). A crop that lies outside the frame gives an empty rectangle.
    """
    corners = crop_corners_px(crop_from_frame)
    width, height = frame_size
    low = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@dataclass(frozen=True)
class Reading:
    """What a warp reads: the image itself, or where it is made smaller, a part of it without fine detail.

    scale: image pixels to one of the result. block: the part is made of the means of `block` x `block` pixels, on a
    grid that is fixed to the image, not to the moving part: a face that drifts by a pixel must not flicker. Whole
    octaves of the scale go that way, and the rest by a Gaussian of `sigma`, in blocks; 0 where it would be next to
    none. blocks: the rectangle that the part takes of that grid. part_from_image: its pixels from the image's.
    """

    scale: float
    block: int
    sigma: float
    blocks: Rectangle
    part_from_image: Affine


def reading_of(dst_from_src: Affine, size: tuple[int, int], image_size: tuple[int, int]) -> Reading:
    """What `warp` reads of an image of `image_size` to make a result of `size`; both are (width, height)."""
    scale = pixels_per_pixel(dst_from_src)
    width, height = image_size
    if scale <= 1.0:
        return Reading(scale, 1, 0.0, (0, 0, width, height), translation(0.0, 0.0))
    block = 2 ** int(math.log2(scale))
    rest = scale / block
    low, high = np.array([-0.5, -0.5]), np.array(size) - 0.5
    ends = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    corners = transform_points(invert_affine(dst_from_src), ends)
    margin = 4.0 * scale
    limit = np.array([max(width // block, 1), max(height // block, 1)])
    start = np.clip(np.floor((corners.min(axis=0) - margin) / block), 0, limit - 1).astype(int)
    stop = np.clip(np.ceil((corners.max(axis=0) + margin) / block), start + 1, limit).astype(int)
    sigma = 0.5 * math.sqrt(max(rest * rest - 1.0, 0.0))
    # The centre of block n lies at image coordinate (n + 0.5) * block - 0.5.
    offset = (0.5 - 0.5 * block) / block
    part_from_image = np.array([[1.0 / block, 0.0, offset - start[0]], [0.0, 1.0 / block, offset - start[1]]])
    blocks = (int(start[0]), int(start[1]), int(stop[0]), int(stop[1]))
    return Reading(scale, block, sigma if sigma > 0.1 else 0.0, blocks, part_from_image)


def warp(
    image: NDArray[Any], dst_from_src: Affine, size: tuple[int, int], border: int = cv2.BORDER_REFLECT
) -> NDArray[Any]:
    """The image seen through a similarity: bilinear, low-passed first where it is made smaller.

    image: uint8 or float32 [H, W] or [H, W, C]. size: (width, height) of the result. border: OpenCV's border mode for
    what lies outside the image. Returns the image's dtype, [height, width(, C)].
    """
    reading = reading_of(dst_from_src, size, (image.shape[1], image.shape[0]))
    if reading.scale > 1.0:
        image = _low_passed(image, reading)
        dst_from_src = compose(dst_from_src, invert_affine(reading.part_from_image))
    src_from_dst = invert_affine(dst_from_src)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, src_from_dst, size, flags=flags, borderMode=border))


def _low_passed(image: NDArray[Any], reading: Reading) -> NDArray[Any]:
    """The part of the image that `reading` describes."""
    x0, y0, x1, y1 = reading.blocks
    block = reading.block
    part = image[y0 * block : y1 * block, x0 * block : x1 * block]
    if block > 1:
        part = cv2.resize(part, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    if reading.sigma > 0.0:
        part = cv2.GaussianBlur(part, (0, 0), reading.sigma, borderType=cv2.BORDER_REFLECT)
    return part


def blur_taps(sigma: float, dtype: type[np.uint8] | type[np.float32]) -> NDArray[np.float32]:
    """The weights of `cv2.GaussianBlur` for images of a type, from the middle outwards, float32 [1 + reach]; 0 is none.

    OpenCV rounds those for 8-bit images to 1/256, so they are read off its answer to a single bright pixel.
    """
    if sigma == 0.0:
        return np.ones(1, np.float32)
    row = np.zeros((1, 17), dtype)
    row[0, 8] = peak = 255 if dtype is np.uint8 else 1
    answer = cv2.GaussianBlur(row, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)[0, 9:].astype(np.float32)
    beside = answer[: np.count_nonzero(answer)] / np.float32(256 if peak == 255 else 1)
    return np.concatenate([[np.float32(1.0) - 2.0 * beside.sum()], beside]).astype(np.float32)


def square(reach: int) -> NDArray[np.uint8]:
    """A structuring element that reaches so many pixels to each side."""
    return np.ones((2 * reach + 1,) * 2, np.uint8)


def shrunk(grid: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Means of blocks, [n, m] or [n, m, C] -> [side, side] or [side, side, C]."""
    return np.asarray(cv2.resize(grid, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)


def align(image_u8: NDArray[np.uint8], crop_from_frame: Affine, size: int = CROP_SIZE) -> NDArray[np.uint8]:
    """The aligned face crop of a frame, uint8 BGR [size, size, 3]; beyond the frame's edge its mirror image.

    image_u8: uint8 BGR [H, W, 3]. crop_from_frame: into the `CROP_SIZE` crop, whatever `size` is.
    """
    if size != CROP_SIZE:
        crop_from_frame = compose(resized_from_crop(size), crop_from_frame)
    return np.asarray(warp(image_u8, crop_from_frame, (size, size)), dtype=np.uint8)


def resized_from_crop(size: int) -> Affine:
    """The transform from the `CROP_SIZE` crop to the same area at `size` pixels, float64 [2, 3]."""
    scale = size / CROP_SIZE
    offset = 0.5 * scale - 0.5
    return np.array([[scale, 0.0, offset], [0.0, scale, offset]])
