"""Groups of people: every still is in one group of each kind, and skin is read from its colour."""

import cv2
import numpy as np
import pytest

from models.evaluation.groups import groups_of, skin_tone


def test_every_still_is_in_one_group_of_each_kind():
    scores = {"age": np.array([20.0, 30.0, 49.9, 50.0]), "gender": np.array([-1.0, 0.0, 2.0, -0.1])}
    groups = groups_of(scores, np.array([60.0, 10.0, 41.0, -20.0]))
    assert {name: np.flatnonzero(who).tolist() for name, who in groups.items()} == {
        "age below 30 years": [0],
        "age 30 to 50 years": [1, 2],
        "age from 50 years": [3],
        "apparent gender female": [0, 3],
        "apparent gender male": [1, 2],
        "skin tone below 10 degrees": [3],
        "skin tone 10 to 41 degrees": [1],
        "skin tone from 41 degrees": [0, 2],
    }


@pytest.mark.parametrize(
    ("lightness", "yellow", "expected_deg"), [(70.0, 20.0, 45.0), (50.0, 15.0, 0.0), (40, 10, -45)]
)
def test_the_typology_angle_of_one_colour(lightness: float, yellow: float, expected_deg: float):
    lab = np.full((1, 256, 256, 3), (lightness, 12.0, yellow), np.float32)
    crops = np.stack([np.rint(cv2.cvtColor(image, cv2.COLOR_LAB2RGB) * 255).astype(np.uint8) for image in lab])
    points = np.full((1, 468, 3), 100.0, np.float32)
    assert skin_tone(crops, points) == pytest.approx([expected_deg], abs=2.0)


def test_hair_over_some_places_does_not_count():
    crop = np.full((1, 256, 256, 3), (215, 175, 150), np.uint8)
    points = np.full((1, 468, 3), 200.0, np.float32)
    free = skin_tone(crop, points)
    points[0, [69, 299, 104, 333]] = 30.0
    crop[0, :100] = 15
    assert skin_tone(crop, points) == pytest.approx(free)
