"""What an edit lays bare shows what lies around the face."""

from dataclasses import replace

import numpy as np
import pytest

from engine.masks import FaceParse, MaskShape, face_mask, usual_mask
from engine.surroundings import BEYOND_FADE_PX, FADE_PX, GROWTH, cut_out, fade, surroundings

WALL, FACE, PAINTED = 0.5, -0.5, 1.0
"""What the frame shows around the face, the face, and the background that the generator paints."""


def disc(radius, size=128, centre=(0.5, 0.5)):
    """A margin that falls by one logit a pixel of the parser's and is 0 on a circle, [size, size]."""
    y, x = np.mgrid[0.5 / size : 1 : size * 1j, 0.5 / size : 1 : size * 1j]
    return (size * (radius - np.hypot(x - centre[0], y - centre[1]))).astype(np.float32)


def drawn(margin, inside, outside):
    """An image [3, 256, 256] of two greys."""
    grey = np.where(margin > 0, np.float32(inside), np.float32(outside)).repeat(2, axis=0).repeat(2, axis=1)
    return np.stack([grey] * 3)


def parse(frame, edit, bare=None, hair=None):
    """Of margins of a face in the frame and in the edit, all of it skin or less; nothing is before it."""
    bare, hair = (np.maximum(frame, edit) if bare is None else bare), (NOWHERE if hair is None else hair)
    return FaceParse(frame, edit, None, -edit, frame, bare, hair, NOWHERE)


NOWHERE = np.full((128, 128), -9.0, np.float32)
LARGE, SMALL = disc(0.35), disc(0.2)


def test_where_the_edit_has_less_of_a_face_the_wall_is_shown_and_not_what_the_generator_painted():
    crop, edit = drawn(LARGE, FACE, WALL), drawn(SMALL, FACE, PAINTED)
    shown, mask = cut_out(crop, edit, parse(LARGE, SMALL), MaskShape())
    ring = (disc(0.32, 256) > 0) & (disc(0.23, 256) < 0)
    np.testing.assert_allclose(shown[:, ring], WALL, atol=0.05)
    assert mask[ring].min() == pytest.approx(1.0)
    inner = disc(0.15, 256) > 0
    np.testing.assert_array_equal(shown[:, inner], edit[:, inner])


def test_a_wall_of_two_colours_is_continued_on_both_sides():
    crop, edit = drawn(LARGE, FACE, WALL), drawn(SMALL, FACE, PAINTED)
    crop[:, :, :128] = np.where(crop[:, :, :128] == WALL, np.float32(0.0), crop[:, :, :128])
    shown, _ = cut_out(crop, edit, parse(LARGE, SMALL), MaskShape())
    np.testing.assert_allclose(shown[:, 128, 45:65], 0.0, atol=0.15)
    np.testing.assert_allclose(shown[:, 128, 190:210], WALL, atol=0.15)


def test_what_the_edit_does_not_change_stays_the_frames():
    """Hair that the parser sees in the frame and not in the edit, which shows it all the same."""
    crop = drawn(LARGE, FACE, WALL)
    shown, _ = cut_out(crop, crop + np.float32(0.01), parse(LARGE, SMALL), MaskShape())
    np.testing.assert_allclose(shown, crop, atol=0.02)


def test_an_edit_that_grows_is_left_alone():
    crop, edit = drawn(SMALL, FACE, WALL), drawn(LARGE, PAINTED, WALL)
    shown, mask = cut_out(crop, edit, parse(SMALL, LARGE), MaskShape())
    np.testing.assert_array_equal(shown, edit)
    assert mask[disc(0.32, 256) > 0].min() == pytest.approx(1.0)


def test_a_speck_of_background_in_the_edited_face_is_none():
    crop, edit = drawn(LARGE, FACE, WALL), drawn(LARGE, PAINTED, WALL)
    specked = LARGE.copy()
    specked[64, 64] = -5.0
    shown, _ = cut_out(crop, edit, parse(LARGE, specked), MaskShape())
    np.testing.assert_array_equal(shown[:, 100:156, 100:156], edit[:, 100:156, 100:156])


def test_a_crop_that_is_nothing_but_face_has_no_surroundings():
    whole = np.full((128, 128), 9.0, np.float32)
    crop, edit = drawn(whole, FACE, WALL), drawn(SMALL, FACE, PAINTED)
    shown, _ = cut_out(crop, edit, parse(whole, SMALL), MaskShape())
    np.testing.assert_array_equal(shown, edit)


def test_a_face_that_the_parser_misses_is_not_filled():
    crop, edit = drawn(LARGE, FACE, WALL), drawn(LARGE, PAINTED, WALL)
    shown, mask = cut_out(crop, edit, parse(NOWHERE, NOWHERE), MaskShape())
    np.testing.assert_array_equal(shown, edit)
    np.testing.assert_allclose(mask, usual_mask(256, MaskShape()) * fade([NOWHERE], 256))


def test_the_mask_takes_in_a_fringe_and_fades_at_the_crops_border():
    shape = MaskShape()
    _, mask = cut_out(*[drawn(LARGE, FACE, WALL)] * 2, parse(LARGE, LARGE), shape)
    across = mask[128] - face_mask(parse(LARGE, LARGE), 256, shape)[128]
    assert across.min() == 0.0
    assert (across > 0.5).sum() == 2 * 2 * GROWTH  # crop pixels on the left and on the right

    beyond = disc(0.35, centre=(0.5, 0.1))
    _, mask = cut_out(*[drawn(beyond, FACE, WALL)] * 2, parse(beyond, beyond), shape)
    rise = mask[: BEYOND_FADE_PX + 1, 128]
    assert rise[0] == 0.0
    assert rise[-1] == pytest.approx(1.0)
    assert (np.diff(rise) >= 0.0).all()
    assert np.diff(rise).max() < 1.6 / BEYOND_FADE_PX


def test_a_mask_fades_further_in_where_the_face_goes_on_beyond_the_crop():
    above = NOWHERE.copy()
    above[0, 40:90] = 5.0
    plain, longer = fade([NOWHERE, NOWHERE], 256), fade([above, NOWHERE], 256)
    np.testing.assert_array_equal(fade([NOWHERE, above], 256), longer)  # hair that the edit lets grow
    for turned in (np.rot90(plain, quarters) for quarters in range(4)):
        np.testing.assert_array_equal(turned, plain)
    assert plain[FADE_PX, 128] == 1.0 > plain[FADE_PX - 1, 128] > plain[0, 128] == 0.0
    assert longer[BEYOND_FADE_PX, 128] == 1.0 > longer[BEYOND_FADE_PX - 1, 128] > longer[FADE_PX, 128] > 0.0
    np.testing.assert_array_equal(longer[:, 230], plain[:, 230])
    np.testing.assert_array_equal(longer[100:], plain[100:])
    for quarters in range(4):
        turned = fade([np.ascontiguousarray(np.rot90(above, quarters)), NOWHERE], 256)
        np.testing.assert_allclose(np.rot90(turned, -quarters), longer, atol=1e-6)


def test_hair_is_left_to_the_frame_where_no_slider_moves_it():
    crop, edit = drawn(LARGE, FACE, WALL), drawn(LARGE, PAINTED, WALL)
    seen = parse(LARGE, LARGE, bare=SMALL)
    masks = {hair: cut_out(crop, edit, seen, MaskShape(), hair)[1] for hair in (0.0, 0.5, 1.0)}
    ring = (disc(0.33, 256) > 0) & (disc(0.26, 256) < 0)
    assert not masks[0.0][ring].any()
    assert masks[1.0][ring].min() == pytest.approx(1.0)
    assert masks[0.0].sum() < masks[0.5].sum() < masks[1.0].sum()


def test_long_hair_stays_where_the_edit_shows_none_and_short_hair_goes():
    crop, edit = drawn(LARGE, FACE, WALL), drawn(SMALL, FACE, PAINTED)
    ring, inner = (disc(0.32, 256) > 0) & (disc(0.24, 256) < 0), disc(0.15, 256) > 0
    short = np.minimum(LARGE, -SMALL)  # the ring, from the crown to below the chin
    long = short.copy()
    long[96:, 20:40] = 9.0
    shares = []
    for fall in (NOWHERE[-1], long[-1] - 9.5, long[-1]):
        hair = long.copy()
        hair[-4:] = np.minimum(fall, hair[-4:])
        shown, mask = cut_out(crop, edit, parse(LARGE, SMALL, hair=hair), MaskShape())
        shares.append(mask[ring].mean())
        assert mask[inner].min() > 0.98
        np.testing.assert_array_equal(shown[:, inner], edit[:, inner])
    assert shares[0] > 0.99
    assert 0.3 < shares[1] < 0.95
    assert shares[2] < 0.05


def test_what_is_before_the_face_stays_out_of_the_mask():
    hand = np.where(disc(0.1) > 0, disc(0.1), np.float32(-np.inf))
    covered = replace(parse(LARGE, LARGE), things=hand)
    _, mask = cut_out(*[drawn(LARGE, FACE, WALL)] * 2, covered, MaskShape())
    assert not mask[disc(0.09, 256) > 0].any()


def test_surroundings_of_a_plane_are_that_plane_and_known_pixels_stay():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1.0, 1.0, (64, 64, 3)).astype(np.float32)
    known = (disc(0.3, 64) < 0).astype(np.float32)
    filled, whole = surroundings(image, known)
    assert whole == 1.0
    np.testing.assert_allclose(filled[known == 1.0], image[known == 1.0], atol=1e-6)
    np.testing.assert_allclose(surroundings(np.full_like(image, 0.3), known)[0], 0.3, atol=1e-6)
    assert surroundings(image, np.zeros_like(known))[1] == 0.0
