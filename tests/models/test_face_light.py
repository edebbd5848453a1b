"""Light on a drawn face whose halves and eyes have known brightness."""

import numpy as np
import pytest

from models.face_light import eye_light, side_light, skin_tone

EYES = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 27, 23)
EYES += (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 257, 253)
LEFT, RIGHT = (50, 205, 117, 187, 69, 104, 214), (280, 425, 346, 411, 299, 333, 434)


def drawn(left: int, right: int, eyes: int) -> tuple[np.ndarray, np.ndarray]:
    """A crop [1, 256, 256, 3] of these grey levels, and points: skin below, eyes in a band above."""
    crop = np.full((1, 256, 256, 3), left, dtype=np.uint8)
    crop[:, :, 128:] = right
    crop[:, 40:80] = eyes
    points = np.zeros((1, 468, 3), dtype=np.float32)
    points[:, LEFT, :2], points[:, RIGHT, :2] = [64.0, 160.0], [192.0, 160.0]
    points[:, EYES, :2] = [128.0, 60.0]
    return crop, points


@pytest.mark.parametrize(("left", "right", "stops"), [(40, 88, 1.0), (88, 40, -1.0), (100, 100, 0.0)])
def test_the_brighter_side_is_told_in_stops(left: int, right: int, stops: float) -> None:
    assert side_light(*drawn(left, right, 90))[0] == pytest.approx(stops, abs=1e-3)


def test_hair_over_a_few_places_does_not_count() -> None:
    crop, points = drawn(80, 80, 90)
    crop[:, :40] = 0
    points[:, [69, 104, 214], :2] = [64.0, 20.0]
    assert side_light(crop, points)[0] == pytest.approx(0.0, abs=1e-3)


def test_dark_glasses_are_darker_than_the_cheeks() -> None:
    assert eye_light(*drawn(248, 248, 24))[0] == pytest.approx(-3.0, abs=1e-3)
    assert eye_light(*drawn(120, 120, 120))[0] == pytest.approx(0.0, abs=1e-3)


def test_a_point_outside_the_crop_is_read_at_its_edge() -> None:
    crop, points = drawn(40, 88, 90)
    points[:, RIGHT, 0] = 400.0
    assert side_light(crop, points)[0] == pytest.approx(1.0, abs=1e-3)


def test_the_tone_of_the_skin_is_its_light_and_two_ratios() -> None:
    crop, points = drawn(0, 0, 30)
    crop[:, 80:] = (120, 56, 24)
    tone = {name: values.tolist() for name, values in skin_tone(crop, points).items()}
    assert tone == {"skin_bright": [6.0], "skin_red": [1.0], "skin_blue": [-1.0]}
    points[:, [69, 104, 214], :2] = [128.0, 60.0]
    assert {name: values.tolist() for name, values in skin_tone(crop, points).items()} == tone
