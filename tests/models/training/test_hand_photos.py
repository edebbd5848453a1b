"""Hands cut out of pictures before a pale wall, and laid before faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.training import occluders
from models.training.hand_photos import HandPhoto, cut_out, load_hands

SKIN = (120, 160, 215)
"""BGR."""


def picture(wall=(215, 220, 220), wrist=True, side=100):
    """A fist on a forearm that leaves through the lower edge, with the noise of a camera; and where they are."""
    inside = np.zeros((side, side), np.uint8)
    cv2.circle(inside, (50, 45), 22, 255, -1)
    cv2.rectangle(inside, (42, 45), (58, side - 1 if wrist else 70), 255, -1)
    image = np.where(inside[..., None] > 0, np.uint8(SKIN), np.uint8(wall)).astype(float)
    noise = np.random.default_rng(0).normal(0, 4, (side, side, 3))
    return np.clip(image + noise, 0, 255).astype(np.uint8), inside


@pytest.fixture
def hand() -> HandPhoto:
    found = cut_out(picture()[0])
    assert found is not None
    return found


def test_a_hand_is_cut_out_along_its_outline(hand):
    image, inside = picture()
    assert (hand.inside > 127)[inside > 0].mean() > 0.97
    assert (hand.inside > 127)[inside == 0].mean() < 0.02
    np.testing.assert_array_equal(hand.paint, image[..., ::-1])
    middle, width = hand.wrist
    assert middle == pytest.approx(50, abs=1.5)
    assert width == pytest.approx(17, abs=3)


@pytest.mark.parametrize(
    "image",
    [
        picture(wrist=False)[0],
        np.full((100, 100, 3), 220, np.uint8),
        np.full((100, 100, 3), SKIN, np.uint8),
    ],
    ids=["comes in from nowhere", "no hand", "nothing else"],
)
def test_pictures_that_show_no_whole_hand_are_left_out(image):
    assert cut_out(image) is None


def test_a_folder_of_pictures(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="pale wall"):
        load_hands(tmp_path)
    (tmp_path / "5").mkdir()
    for name in ("5/a.JPG", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), picture()[0])
    cv2.imwrite(str(tmp_path / "c.jpg"), np.full((100, 100, 3), 220, np.uint8))
    (tmp_path / "d.jpg").write_text("no picture")
    assert len(load_hands(tmp_path)) == 2


def test_a_photographed_hand_takes_the_faces_colour_and_goes_on_as_an_arm(hand, monkeypatch):
    monkeypatch.setattr(occluders, "_PHOTOGRAPHED", 1.0)
    colour = np.array([90.0, 60.0, 40.0])
    paints = occluders.Paints(
        skin=lambda rng: np.full((256, 256, 3), colour, np.uint8),
        thing=lambda rng: np.full((256, 256, 3), (10, 220, 10), np.uint8),
        hands=[hand],
    )
    dark, areas = [], []
    for seed in range(40):
        occluder = occluders.draw_occluder(np.random.default_rng(seed), {"hand": occluders.TRAINED["hand"]}, paints)
        shown = occluder.paint[occluder.alpha > 0.9].astype(float)
        bare = shown[shown[:, 0] > shown[:, 1]]
        dark.append(np.abs(bare.mean(axis=0) - colour).max() < 35)
        areas.append(float((occluder.alpha > 0.5).mean()))
        on_border = np.concatenate([occluder.alpha[-1], occluder.alpha[0], occluder.alpha[:, 0], occluder.alpha[:, -1]])
        assert on_border.max() > 0.3  # the arm leaves the crop
    assert 0.6 < np.mean(dark) < 1.0  # a few keep their own colour
    assert 0.02 < np.median(areas) < 0.4
