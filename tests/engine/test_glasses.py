"""Behind one's own glasses the edit's change is seen from afar, and rims stay where they are."""

import numpy as np
import pytest

from engine.glasses import kept_on, seen_from_afar

SIZE = 256
NONE, WORN = np.full((128, 128), -9.0, np.float32), np.full((128, 128), -9.0, np.float32)
WORN[50:60, 30:100] = 9.0
BEHIND = (slice(None), slice(100, 120), slice(60, 200))
RIM = (slice(None), slice(108, 110), slice(60, 200))


def skin():
    rng = np.random.default_rng(0)
    return rng.uniform(-0.1, 0.1, (3, SIZE, SIZE)).astype(np.float32)


def test_who_wears_none_is_edited_whole():
    crop, edit = skin(), skin() + 0.5
    assert kept_on(edit, crop, edit, NONE, 0.0) is edit
    assert kept_on(edit, crop, edit, WORN, 1.0) is edit


@pytest.mark.parametrize("glasses", [0.0, 0.5])
def test_a_rim_stays_though_the_edit_has_none_and_the_skin_around_it_changes(glasses):
    crop = skin()
    crop[RIM] = -0.9
    edit = skin() + np.array([0.2, 0.1, -0.1], np.float32)[:, None, None]
    shown = kept_on(edit, crop, edit, WORN, glasses)
    around = (slice(None), slice(112, 120), slice(60, 200))
    moved = (shown - crop)[around].mean(axis=(1, 2))
    np.testing.assert_allclose(moved, [0.2, 0.1, -0.1], atol=0.01)
    left = shown[RIM].mean()
    assert left == pytest.approx(-0.9 + 0.07 if glasses == 0.0 else (-0.83 + 0.07) / 2, abs=0.05)
    np.testing.assert_array_equal(shown[:, :80], edit[:, :80])


def test_detail_that_the_edit_draws_there_is_not_shown():
    crop = skin()
    edit = crop + np.where(np.arange(SIZE) % 2, 0.3, -0.3).astype(np.float32)
    shown = kept_on(edit, crop, edit, WORN, 0.0)
    assert np.abs(shown - crop)[BEHIND].mean() < 0.1 * np.abs(edit - crop)[BEHIND].mean()


def test_an_even_change_is_seen_as_it_is():
    change = np.full((3, SIZE, SIZE), 0.4, np.float32)
    np.testing.assert_allclose(seen_from_afar(change), 0.4, atol=1e-3)


def test_where_all_of_a_block_stands_out_nothing_changes():
    change = np.zeros((3, SIZE, SIZE), np.float32)
    change[:, 128:132, 128:132] = 1.0
    assert np.abs(seen_from_afar(change)).max() < 1e-3
