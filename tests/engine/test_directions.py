"""What slider values make of a bundle's directions."""

import numpy as np
import pytest

from engine.direction_file import Direction
from engine.directions import (
    OFF_FROM,
    WHOLE_FROM,
    ZONE_FADE,
    edit_offset,
    edit_reach,
    edit_shift,
    hair_weight,
    meant_for,
    taken_off,
    zone_shares,
)

ONES = np.ones((2, 4), np.float32)
DIRECTIONS = {
    "smile": Direction("smile", "Smile", ONES, -1.0, 2.0, hair=False, outline=False, eyes=False, mouth=False),
    "turn": Direction("turn", "Turn", 10.0 * ONES, -3.0, 1.0),
    "dye": Direction("dye", "Dye", ONES, -1.0, 1.0, face=False, reshapes=False),
    "grow": Direction("grow", "Grow", ONES, -1.0, 1.0, hair_above=False),
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
        ({"grow": 1.0}, 0.0),
        ({"grow": -1.0}, 1.0),
        ({"grow": 1.0, "turn": WHOLE_FROM / 2}, 0.5),
    ],
)
def test_an_edit_takes_in_what_its_sliders_move(values, weight):
    assert hair_weight(DIRECTIONS, values) == pytest.approx(weight)


@pytest.mark.parametrize(
    ("values", "weight"),
    [({}, 0.0), ({"smile": 1.0}, 0.0), ({"smile": 1.0, "turn": -WHOLE_FROM / 4}, 0.25), ({"turn": 0.3}, 1.0)],
)
def test_outline_eyes_and_mouth_change_as_far_as_sliders_are_set_that_change_them(values, weight):
    assert meant_for("outline", DIRECTIONS, values) == pytest.approx(weight)
    assert meant_for("eyes", DIRECTIONS, values) == meant_for("mouth", DIRECTIONS, values) == pytest.approx(weight)


@pytest.mark.parametrize(
    ("values", "weight"),
    [({}, 0.0), ({"dye": 1.0}, 0.0), ({"dye": 1.0, "smile": WHOLE_FROM / 4}, 0.25), ({"turn": -0.3}, 1.0)],
)
def test_an_edit_paints_anew_as_far_as_sliders_are_set_that_change_shapes(values, weight):
    assert meant_for("reshapes", DIRECTIONS, values) == pytest.approx(weight)


ZONED = {
    "beard": Direction("beard", "Beard", ONES, -1.0, 1.0, zone=(0.5, 1.0)),
    "glasses": Direction("glasses", "Glasses", ONES, -1.0, 1.0, zone=(0.25, 0.5)),
    "age": Direction("age", "Age", ONES, -1.0, 1.0),
}


def test_an_edit_stays_in_the_zone_of_its_slider():
    shares = zone_shares(ZONED, {"beard": 0.01, "age": 0.0}, 200)
    assert (shares[100:] == 1.0).all()
    assert not shares[: 100 - round(200 * ZONE_FADE)].any()
    assert (np.diff(shares) >= 0.0).all()
    assert np.diff(shares).max() < 0.15
    band = zone_shares(ZONED, {"glasses": -1.0}, 200)
    assert (band[50:100] == 1.0).all()
    assert not band[100 + round(200 * ZONE_FADE) :].any()


def test_zones_add_up_as_their_sliders_go_up():
    both = zone_shares(ZONED, {"beard": 1.0, "glasses": 0.5}, 200)
    assert (both[50:] == 1.0).all()
    assert not both[:30].any()
    for part in (0.25, 0.5, 1.0):
        shares = zone_shares(ZONED, {"beard": 1.0, "age": part * WHOLE_FROM}, 200)
        np.testing.assert_allclose(shares[:80], part)
        np.testing.assert_allclose(shares[100:], 1.0)
    assert (zone_shares(ZONED, {"age": 0.02}, 200) == 1.0).all()
    assert (zone_shares(ZONED, {}, 200) == 1.0).all()


TURNING = {
    "turn": Direction("turn", "Turn", ONES, -2.0, 1.5, shift=(0.06, 0.0)),
    "nod": Direction("nod", "Nod", ONES, -1.0, 1.0, shift=(0.0, -0.02)),
    "age": Direction("age", "Age", ONES, -1.0, 1.0),
}


@pytest.mark.parametrize(
    ("values", "shift"),
    [
        ({}, (0, 0)),
        ({"age": 1.0}, (0, 0)),
        ({"turn": 1.0}, (23, 0)),
        ({"turn": -1.0}, (-31, 0)),
        ({"turn": 0.5, "nod": -0.5, "age": 1.0}, (12, 3)),
    ],
)
def test_an_edit_is_moved_as_far_as_its_sliders_turn_the_head(values, shift):
    moved = edit_shift(TURNING, values, 256)
    assert tuple(moved) == shift
    assert moved.dtype == np.int32


def test_the_reach_is_that_of_each_face():
    everyone = TURNING | ZONED | {name: DIRECTIONS[name] for name in ("smile", "dye")}
    faces = [{"turn": 1.0}, {"smile": 1.0}, {"dye": 1.0}]
    reach = edit_reach(everyone, faces, 256)
    assert reach.outline.tolist() == [1.0, 0.0, 1.0]
    assert reach.eyes.tolist() == reach.mouth.tolist() == [1.0, 0.0, 1.0]
    assert reach.reshaped.tolist() == [1.0, 1.0, 0.0]
    assert reach.hair.tolist() == [hair_weight(everyone, values) for values in faces]
    np.testing.assert_array_equal(reach.zones, [zone_shares(everyone, values, 256) for values in faces])
    assert reach.shifts.tolist() == [[23, 0], [0, 0], [0, 0]]
    assert reach.of([2, 0]).reshaped.tolist() == [0.0, 1.0]
    assert reach.of([2]).off is None


def test_a_slider_below_0_takes_off_what_it_is_made_for():
    glasses = {"glasses": Direction("glasses", "Glasses", ONES, -1.0, 1.0, takes_off="glasses")} | TURNING
    assert taken_off(glasses, {"glasses": 1.0, "turn": -1.0}) == {}
    assert taken_off(glasses, {"glasses": -OFF_FROM / 2}) == {"glasses": pytest.approx(0.5)}
    assert taken_off(glasses, {"glasses": -1.0, "age": -0.5}) == {"glasses": 1.0}


def test_what_is_taken_off_is_not_seen_before_the_eyes_either():
    glasses = {"glasses": Direction("glasses", "Glasses", ONES, -1.0, 1.0, eyes=False, takes_off="glasses")}
    values = [{"glasses": 1.0}, {"glasses": -OFF_FROM / 2}, {"glasses": -1.0}]
    np.testing.assert_allclose(edit_reach(glasses, values, 256).eyes, [0.0, 0.5, 1.0])
