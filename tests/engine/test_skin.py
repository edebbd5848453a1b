"""Skin keeps its colours under edits that are not meant for them."""

import numpy as np
import pytest

from engine.restoring import give_back
from engine.skin import TONE_RESOLUTION, face_places, skin_places, tone_change
from tests.engine.reaches import reach_of_one


def shaded(amount=0.1, side=64):
    """A change of one colour everywhere."""
    return np.broadcast_to(np.float32([[[amount]], [[0.0]], [[-amount]]]), (3, side, side)).copy()


def test_a_face_that_turns_another_colour_is_found_and_what_is_around_it_is_not():
    tone = tone_change(shaded())
    assert tone.shape == (3, TONE_RESOLUTION, TONE_RESOLUTION)
    assert tone.dtype == np.float32
    np.testing.assert_allclose(tone[:, 9, 8], [0.1, 0.0, -0.1], atol=0.01)
    assert not tone[:, :2].any()
    assert not tone[:, :, 0].any()


def test_wrinkles_are_no_colour():
    change = np.zeros((3, 64, 64), np.float32)
    change[:, ::2], change[:, 1::2] = 0.1, -0.1
    assert np.abs(tone_change(change)).max() < 0.01


@pytest.mark.parametrize("change", [0.9, -0.9])
def test_what_changes_much_is_no_skin(change):
    """A beard, or hair over a cheek, keeps its colour, and skin beside it is judged without it."""
    with_beard = shaded()
    with_beard[:, 48:] = change
    np.testing.assert_allclose(tone_change(with_beard)[:, 9, 8], [0.1, 0.0, -0.1], atol=0.01)
    assert np.abs(tone_change(with_beard)[:, 14:]).max() < 0.1


def test_eyes_and_mouth_are_no_skin():
    skin = skin_places(64)
    assert skin[30, 24] == skin[30, 39] == skin[47, 32] == 0.0
    assert skin[36, 32] == skin[38, 22] == 1.0
    assert (skin <= face_places(64)).all()


def test_an_edit_of_shapes_leaves_skin_the_colour_it_was():
    rng = np.random.default_rng(0)
    crop = rng.uniform(-0.5, 0.5, (3, 256, 256)).astype(np.float32)
    inversion = crop + 0.05
    edit = inversion + np.repeat(np.repeat(shaded(), 4, axis=1), 4, axis=2)
    kept, changed, half = (give_back(crop, inversion, edit, reach_of_one(tones=tones)) for tones in (0.0, 1.0, 0.5))
    cheek = np.s_[:, 144:160, 80:96]
    np.testing.assert_allclose(kept[cheek].mean(axis=(1, 2)), crop[cheek].mean(axis=(1, 2)), atol=0.02)
    assert (changed - kept)[cheek].mean(axis=(1, 2)) == pytest.approx([0.1, 0.0, -0.1], abs=0.01)
    np.testing.assert_allclose(half, (kept + changed) / 2.0, atol=2e-3)
    np.testing.assert_array_equal(kept[:, :20], changed[:, :20])
