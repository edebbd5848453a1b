"""What the inversion lost, given back, and what is seen of an edit."""

import numpy as np
import pytest

from engine.restoring import give_back
from tests.engine.reaches import reach_of_one

EVERYWHERE = reach_of_one()


def test_an_edit_that_changes_nothing_gives_the_frame_back():
    rng = np.random.default_rng(0)
    crop, inversion = rng.uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    np.testing.assert_allclose(give_back(crop, inversion, inversion, EVERYWHERE), crop, atol=1e-6)


def test_a_small_change_lands_on_the_frame_and_a_new_thing_replaces_it():
    crop = np.full((3, 256, 256), 0.5, np.float32)
    inversion = np.zeros_like(crop)
    edit = inversion.copy()
    edit[:, :, :64] += 0.02  # a shade
    edit[:, 128:, 192:] = 0.9  # teeth
    shown = give_back(crop, inversion, edit, EVERYWHERE)
    np.testing.assert_allclose(shown[:, :, :40], 0.52, atol=0.02)
    np.testing.assert_allclose(shown[:, 180:, 230:], 0.9, atol=1e-3)
    np.testing.assert_allclose(shown[:, :80, 100:], 0.5, atol=1e-3)


def test_a_large_change_of_colours_alone_lands_on_the_frame_too():
    rng = np.random.default_rng(0)
    crop, inversion = rng.uniform(-0.9, 0.1, (2, 3, 256, 256)).astype(np.float32)
    shown = give_back(crop, inversion, inversion + 0.8, reach_of_one(reshaped=0.0))
    np.testing.assert_allclose(shown, crop + 0.8, atol=1e-5)
    assert np.abs(give_back(crop, inversion, inversion + 0.8, EVERYWHERE) - crop - 0.8).mean() > 0.3


def test_an_edit_of_the_lower_rows_leaves_the_upper_ones_as_they_are_in_the_frame():
    rng = np.random.default_rng(0)
    crop, inversion = rng.uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    edit = np.full_like(crop, 0.9)
    zone = np.zeros(256, np.float32)
    zone[128:] = 1.0
    shown = give_back(crop, inversion, edit, reach_of_one(zones=zone))
    np.testing.assert_array_equal(shown[:, :128], crop[:, :128])
    np.testing.assert_allclose(shown[:, 128:], give_back(crop, inversion, edit, EVERYWHERE)[:, 128:], atol=1e-6)
    assert np.abs(shown[:, 128:] - crop[:, 128:]).mean() > 0.5


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("eyes", np.s_[:, 118:122, 96:100]),
        ("mouth", np.s_[:, 186:190, 126:130]),
    ],
)
def test_eyes_and_lips_that_no_slider_is_meant_for_are_the_frames(part, place):
    rng = np.random.default_rng(0)
    crop, inversion, edit = rng.uniform(-1, 1, (3, 3, 256, 256)).astype(np.float32)
    edits, kept, half, colours = (
        give_back(crop, inversion, edit, reach_of_one(**{part: weight}, reshaped=reshaped))
        for weight, reshaped in ((1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (0.0, 0.0))
    )
    np.testing.assert_allclose(kept[place], crop[place], atol=1e-6)
    np.testing.assert_allclose(half[place], (crop[place] + edits[place]) / 2, atol=1e-6)
    assert np.abs(colours[place] - crop[place]).mean() > 0.3  # make-up is seen on lips
    nose = np.s_[:, 145:160, 115:140]
    np.testing.assert_allclose(kept[nose], edits[nose], atol=1e-6)


def test_at_an_outline_that_no_slider_is_meant_for_colours_alone_change():
    rng = np.random.default_rng(0)
    crop, inversion = rng.uniform(-0.9, 0.1, (2, 3, 256, 256)).astype(np.float32)
    edits, hair = (give_back(crop, inversion, inversion + 0.8, reach_of_one(hair=0.0, outline=by)) for by in (1.0, 0.0))
    crown, nose = np.s_[:, 4:30, 100:150], np.s_[:, 145:160, 115:140]
    np.testing.assert_allclose(hair[crown], crop[crown] + 0.8, atol=1e-5)
    assert np.abs(edits[crown] - crop[crown] - 0.8).mean() > 0.3
    np.testing.assert_allclose(hair[nose], edits[nose], atol=1e-6)


def test_all_that_is_given_back_is_moved_and_fades_into_the_frame_where_it_ends():
    rng = np.random.default_rng(0)
    crop, inversion, edit = rng.uniform(-1, 1, (3, 3, 256, 256)).astype(np.float32)
    still, moved = (give_back(crop, inversion, edit, reach_of_one(shifts=np.array(by))) for by in ((0, 0), (20, -3)))
    assert moved.flags.c_contiguous  # OpenCV writes into it
    np.testing.assert_allclose(moved[:, :-6, 40:], still[:, 3:-3, 20:-20], atol=1e-6)
    np.testing.assert_allclose(moved[:, :, :20], crop[:, :, :20], atol=1e-6)
    np.testing.assert_allclose(moved[:, -3:], crop[:, -3:], atol=1e-6)
    between = (still[:, 103, 10] + crop[:, 100, 30]) / 2  # half a pixel more of what was moved
    np.testing.assert_allclose(moved[:, 100, 30], between, atol=0.06)


def test_nothing_shines_through_where_something_is_taken_off():
    rng = np.random.default_rng(0)
    crop, inversion = rng.uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    off = np.zeros((64, 64), np.float32)
    off[20:40] = 1.0
    shown = give_back(crop, inversion, inversion, reach_of_one(off=off))
    np.testing.assert_allclose(shown[:, 84:156], inversion[:, 84:156], atol=1e-6)
    np.testing.assert_allclose(shown[:, 170:], crop[:, 170:], atol=1e-6)
