"""What slider values make of a bundle's directions."""

import numpy as np
import pytest

from engine.bundle import Direction
from engine.directions import WHOLE_FROM, edit_offset, hair_weight

ONES = np.ones((2, 4), np.float32)
DIRECTIONS = {
    "smile": Direction("smile", "Smile", ONES, -1.0, 2.0, hair=False),
    "turn": Direction("turn", "Turn", 10.0 * ONES, -3.0, 1.0),
    "dye": Direction("dye", "Dye", ONES, -1.0, 1.0, face=False),
}


def test_the_offset_is_the_sum_of_moves_within_each_range():
    np.testing.assert_allclose(edit_offset(DIRECTIONS, {"smile": 0.5, "turn": -0.1}, (2, 4)), 1.0 - 3.0)
    assert not edit_offset(DIRECTIONS, {}, (2, 4)).any()


@pytest.mark.parametrize(
    ("values", "weight"),
    [
        ({}, 1.0),
        ({"smile": 1.0}, 0.0),
        ({"smile": 1.0, "turn": 0.0}, 0.0),
        ({"smile": -WHOLE_FROM / 4}, 0.75),
        ({"smile": 1.0, "turn": -WHOLE_FROM / 2}, 0.5),
        ({"turn": 0.3}, 1.0),
        ({"dye": 1.0}, 2.0),
        ({"dye": 1.0, "smile": WHOLE_FROM / 2}, 1.5),
        ({"dye": 1.0, "smile": -1.0}, 1.0),
    ],
)
def test_an_edit_takes_in_what_its_sliders_move(values, weight):
    assert hair_weight(DIRECTIONS, values) == pytest.approx(weight)
