"""Hair takes colours that hair can have."""

import numpy as np
import pytest

from engine.hair import LUMA, pigmented
from engine.restoring import give_back
from tests.engine.reaches import reach_of_one

CROWN, NOSE = np.s_[:, 4:30, 100:150], np.s_[:, 145:160, 115:140]


def plain(*rgb):
    """A crop of one colour, levels from 0 to 255 in, [-1, 1] out."""
    levels = np.full((3, 256, 256), np.float32(1 / 127.5)) * np.float32(rgb)[:, None, None]
    return levels - np.float32(1.0)


def levels_of(image):
    """The colour of a crop of one colour, R, G, B from 0 to 255."""
    return 127.5 * (image[:, 0, 0] + 1.0)


@pytest.mark.parametrize(
    ("frame", "edit", "shown"),
    [
        ((20, 20, 20), (110, 150, 150), (138, 138, 138)),  # teal turns grey
        ((25, 30, 40), (130, 150, 190), (149, 149, 149)),  # a blue shine is no blue hair
        ((90, 60, 40), (60, 20, 20), (55, 22, 20)),  # brown that is darkened turns no redder
        ((60, 45, 35), (200, 165, 115), (200, 165, 115)),  # fair hair is yellow
        ((150, 120, 90), (150, 120, 90), (150, 120, 90)),
    ],
)
def test_hair_grows_more_colourful_only_as_far_as_it_grows_lighter(frame, edit, shown):
    held = pigmented(plain(*frame), plain(*edit), 1.0)
    np.testing.assert_allclose(levels_of(held), shown, atol=1.5)
    assert np.dot(LUMA, levels_of(held)) == pytest.approx(np.dot(LUMA, edit), abs=0.01)
    half = pigmented(plain(*frame), plain(*edit), 0.5)
    np.testing.assert_allclose(half, (held + plain(*edit)) / 2.0, atol=1e-5)


def test_only_where_colours_of_hair_alone_change():
    """Of an old face hair is held, and no skin; light and make-up, which change no shapes either, are of any colour."""
    crop, edit = plain(20, 20, 20), plain(30, 50, 50)
    held = pigmented(crop, edit, 1.0)
    old, hair, face, light = (
        give_back(crop, crop, edit, reach_of_one(**parts))
        for parts in (
            {"outline": 0.0},
            {"outline": 0.0, "reshaped": 0.0, "hair": 2.0},
            {"outline": 0.0, "hair": 0.0},
            {"outline": 1.0, "reshaped": 0.0},
        )
    )
    np.testing.assert_allclose(old[CROWN], held[CROWN], atol=1e-5)
    np.testing.assert_allclose(old[NOSE], edit[NOSE], atol=1e-5)
    np.testing.assert_allclose(hair, held, atol=1e-5)
    for other in (face, light):
        np.testing.assert_allclose(other, edit, atol=1e-5)
