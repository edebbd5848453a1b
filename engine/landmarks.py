"""The 468-point face mesh, its window in the frame, and the FFHQ crop that follows from its points.

The network is a face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs",
2019): RGB [1, 192, 192, 3] in [0, 1] -> 468 points (x, y, z) in window pixels and a presence logit. Ours ships with the
program; the published one that it was trained from is read as well. Point indices are those of its canonical face
model; left and right are the image's.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.detection import Detection, compile_network
from engine.frames import ImageU8
from engine.geometry import (
    CROP_SIZE,
    Affine,
    compose,
    ffhq_crop_from_frame,
    invert_affine,
    pixels_per_pixel,
    square_from_frame,
    transform_points,
    warp,
)

if TYPE_CHECKING:
    import openvino as ov

WINDOW_SIZE = 192
"""Width and height of the network's input, in pixels."""

WINDOW_MARGIN = 1.5
"""Side of the window / longer side of the face's upright box: what the network was trained on."""

LOOK_SIZE = 24
LOOK_SHARE = 0.8
"""Pixels along the side of `Landmarks.look`, and the share of the crop's side that it shows: face and hair."""

EYE_LEFT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_RIGHT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
"""The contours of the eyes; their means stand for the means of the six eye points in FFHQ's recipe."""

MOUTH_LEFT = (61, 43)
MOUTH_RIGHT = (291, 273)
"""Corner of the lips and the skin just below it: nearest to where FFHQ's landmarks see the corner."""

EYE_CORNER_LEFT, EYE_CORNER_RIGHT = 33, 263

# Calibrated on 900 FFHQ images, whose true crop is the image itself: medians of the ratio of half sides and of the
# centre's offset. What is left is zero on average; one image's corners scatter by 6 of 256 pixels, since FFHQ's own
# landmarks are another detector's. `tests/engine/test_tracking.py` measures it.
FFHQ_SCALE = 0.9813
"""True half side / the recipe's from mesh points."""
FFHQ_SHIFT = (0.0057, 0.0027)
"""True centre - the recipe's, in half sides along the crop's axes."""


@dataclass(frozen=True)
class Landmarks:
    """The mesh of one face.

    points_px: float32 [468, 3], x and y in frame pixels, z in the same unit, smaller is nearer to the camera.
    presence: [0, 1], whether a face was in the window. crop_from_frame: float64 [2, 3], the face's crop, not smoothed.
    look: float32 [24, 24], the inner part of that crop in grey with mean 0 and norm 1, to compare with the next frame.
    """

    points_px: NDArray[np.float32]
    presence: float
    crop_from_frame: Affine
    look: NDArray[np.float32]


class FaceMesh:
    """The landmark network; holds no state between calls."""

    def __init__(self, network: "ov.CompiledModel") -> None:
        self._request = network.create_infer_request()
        sizes = [int(np.prod(output.shape)) for output in network.outputs]
        self._points_at, self._presence_at = sizes.index(468 * 3), sizes.index(1)

    @classmethod
    def open(cls, path: Path, threads: int = 1) -> "FaceMesh":
        """Read and compile a face mesh's file.

        One thread takes 1.4 ms; two take 1.2, and then wait for more work so busily that it costs 3.3 ms of processor.
        """
        return cls(compile_network(path, threads))

    def find(self, image_u8: ImageU8, window_from_frame: Affine) -> Landmarks:
        """The mesh of the face in a window of the frame, from `window_of_detection` or `window_of_landmarks`."""
        window = warp(image_u8, window_from_frame, (WINDOW_SIZE, WINDOW_SIZE), cv2.BORDER_REPLICATE)
        rgb = cv2.cvtColor(window, cv2.COLOR_BGR2RGB).astype(np.float32)
        self._request.infer([rgb[None] * np.float32(1.0 / 255.0)])
        points = self._request.get_output_tensor(self._points_at).data.reshape(468, 3).astype(np.float64)
        logit = float(self._request.get_output_tensor(self._presence_at).data.ravel()[0])
        # The network's coordinates have the window's area from 0 to its size; ours have it from -0.5.
        xy = transform_points(invert_affine(window_from_frame), points[:, :2] - 0.5)
        z = points[:, 2] * pixels_per_pixel(window_from_frame)
        presence = 1.0 / (1.0 + math.exp(-max(min(logit, 80.0), -80.0)))
        points_px = np.column_stack([xy, z]).astype(np.float32)
        crop_from_frame = crop_from_landmarks(points_px)
        look = _look(window, compose(crop_from_frame, invert_affine(window_from_frame)))
        return Landmarks(points_px, presence, crop_from_frame, look)


def _look(window: NDArray[np.uint8], crop_from_window: Affine) -> NDArray[np.float32]:
    middle = (CROP_SIZE - 1) / 2.0
    look_from_crop = square_from_frame(
        np.array([middle, middle]), np.array([LOOK_SHARE * CROP_SIZE / 2.0, 0.0]), LOOK_SIZE
    )
    small = warp(window, compose(look_from_crop, crop_from_window), (LOOK_SIZE, LOOK_SIZE), cv2.BORDER_REPLICATE)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    grey -= grey.mean()
    return np.asarray(grey / max(float(np.linalg.norm(grey)), 1.0), dtype=np.float32)


def window_of_detection(detection: Detection) -> Affine:
    """`window_from_frame` around a detected face, turned so that the eyes are level; float64 [2, 3]."""
    x0, y0, x1, y1 = detection.box_px
    eye_left, eye_right = detection.keypoints_px[:2]
    axis = _direction(eye_right - eye_left)
    half_side = 0.5 * WINDOW_MARGIN * max(x1 - x0, y1 - y0, 1.0)
    return square_from_frame(np.array([(x0 + x1) / 2.0, (y0 + y1) / 2.0]), axis * half_side, WINDOW_SIZE)


def window_of_landmarks(points_px: NDArray[np.float32]) -> Affine:
    """`window_from_frame` around the face of the frame before, turned so that the eyes are level; float64 [2, 3]."""
    xy = points_px[:, :2].astype(np.float64)
    axis = _direction(xy[EYE_CORNER_RIGHT] - xy[EYE_CORNER_LEFT])
    frame_from_upright = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
    upright = xy @ frame_from_upright
    low, high = upright.min(axis=0), upright.max(axis=0)
    half_side = 0.5 * WINDOW_MARGIN * max(float((high - low).max()), 1.0)
    return square_from_frame(frame_from_upright @ ((low + high) / 2.0), axis * half_side, WINDOW_SIZE)


def crop_from_landmarks(points_px: NDArray[np.float32]) -> Affine:
    """The unsmoothed `crop_from_frame` of a face from its mesh, float64 [2, 3]."""
    xy = points_px[:, :2].astype(np.float64)
    means = [xy[list(indices)].mean(axis=0) for indices in (EYE_LEFT, EYE_RIGHT, MOUTH_LEFT, MOUTH_RIGHT)]
    recipe_from_frame = ffhq_crop_from_frame(*means)
    middle, half_side = (CROP_SIZE - 1) / 2.0, CROP_SIZE / 2.0
    centre = np.array([middle + FFHQ_SHIFT[0] * half_side, middle + FFHQ_SHIFT[1] * half_side])
    crop_from_recipe = square_from_frame(centre, np.array([FFHQ_SCALE * half_side, 0.0]), CROP_SIZE)
    return compose(crop_from_recipe, recipe_from_frame)


def box_of_landmarks(points_px: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """The upright box (x0, y0, x1, y1) of the mesh, in frame pixels; may reach outside the frame."""
    low, high = points_px[:, :2].min(axis=0), points_px[:, :2].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _direction(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = math.hypot(vector[0], vector[1])
    return vector / length if length > 1e-9 else np.array([1.0, 0.0])
