"""The gaze of drawn eyes: where the irises are is known."""

import cv2
import numpy as np
import pytest

from engine.assets import is_cached
from engine.geometry import transform_points
from models.eye_gaze import GazeScorer, along_eye, eye_chip_from_crop

CORNERS = ((33, 133), (362, 263))
CENTRES = (np.array([88.0, 110.0]), np.array([168.0, 110.0]))
HALF_PX = 16.0


def face_looking(shift_px: float) -> tuple[np.ndarray, np.ndarray]:
    """A crop [1, 256, 256, 3] with two eyes whose irises are `shift_px` right of the middle, and its points."""
    crop = np.full((256, 256, 3), (205, 165, 140), dtype=np.uint8)
    points = np.zeros((1, 468, 3), dtype=np.float32)
    across = np.array([HALF_PX, 0.0])
    for (left, right), centre in zip(CORNERS, CENTRES, strict=True):
        at = (int(centre[0]), int(centre[1]))
        iris = (int(centre[0] + shift_px), int(centre[1]))
        cv2.ellipse(crop, at, (int(HALF_PX), 7), 0, 0, 360, (245, 240, 238), -1, cv2.LINE_AA)
        inside = np.zeros((256, 256), np.uint8)
        cv2.ellipse(inside, at, (int(HALF_PX), 7), 0, 0, 360, 255, -1)
        disc = np.zeros((256, 256), np.uint8)
        cv2.circle(disc, iris, 7, 255, -1)
        crop[(inside > 0) & (disc > 0)] = (70, 45, 30)
        cv2.circle(crop, iris, 3, (5, 5, 5), -1, cv2.LINE_AA)
        cv2.ellipse(crop, at, (int(HALF_PX), 7), 0, 180, 360, (60, 40, 35), 2, cv2.LINE_AA)
        points[0, left, :2], points[0, right, :2] = centre - across, centre + across
    return crop[None], points


def test_the_irises_place_between_the_corners_is_the_gaze() -> None:
    if not is_cached("iris"):
        pytest.skip("the iris network is not in the cache")
    scorer = GazeScorer.open(threads=1)
    gaze = [float(scorer.score(*face_looking(shift))[0]) for shift in (-6.0, 0.0, 6.0)]
    assert gaze[0] < gaze[1] - 0.2
    assert gaze[2] > gaze[1] + 0.2
    assert gaze[1] == pytest.approx(0.0, abs=0.1)
    assert gaze[2] == pytest.approx(6.0 / HALF_PX, abs=0.15)


def test_along_a_tilted_eye() -> None:
    corners = np.array([[10.0, 20.0], [16.0, 28.0]])
    assert along_eye(corners, corners.mean(axis=0)) == pytest.approx(0.0)
    assert along_eye(corners, corners[1]) == pytest.approx(1.0)
    assert along_eye(corners, corners[0] + [-8.0, 6.0]) == pytest.approx(-1.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_eye_lies_level_in_the_networks_input(mirrored: bool) -> None:
    corners = np.array([[100.0, 110.0], [124.0, 120.0]])
    ends = transform_points(eye_chip_from_crop(corners, mirrored), corners)
    half = 64 / 2.3 / 2
    left, right = ([31.5 + half, 31.5], [31.5 - half, 31.5]) if mirrored else ([31.5 - half, 31.5], [31.5 + half, 31.5])
    assert ends == pytest.approx(np.array([left, right]))
