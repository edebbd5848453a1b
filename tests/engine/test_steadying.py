"""What is drawn, held steady along the face's motion: where the crops agree, and nowhere else."""

import cv2
import numpy as np
import pytest

from engine.geometry import CROP_SIZE, square_from_frame, translation
from engine.steadying import CARRIED, GREY_SIDE, MOTION_SIDE, grey_crop, motion_between, steadied, still
from tests.engine.fakes import picture

INNER = slice(40, -40)
"""Pixels of a crop to which nothing comes in from beyond its border."""


def textured(seed=0):
    """A crop with detail of many sizes, uint8 BGR [S, S, 3]."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.normal(size=(n, n, 3)), (CROP_SIZE, CROP_SIZE), interpolation=3) for n in (6, 14, 30)]
    return np.clip(128 + 35 * sum(layers), 0, 255).astype(np.uint8)


def shifted(crop, dx, dy):
    """The crop whose content has moved by (dx, dy) px."""
    return cv2.warpAffine(crop, translation(dx, dy), (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_REFLECT)


def grey(crop):
    return grey_crop(crop, translation(0.0, 0.0))


def image(crop):
    return (crop.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1.0).copy(order="C")


def test_a_face_as_motion_sees_it_is_its_crop_made_small_and_grey():
    frame = picture(3, 500, 400)
    seen = grey_crop(frame, square_from_frame(np.array([250.0, 200.0]), np.array([90.0, 12.0]), CROP_SIZE))
    assert (seen.shape, seen.dtype) == ((GREY_SIDE, GREY_SIDE), np.uint8)
    assert abs(int(seen[GREY_SIDE // 2, GREY_SIDE // 2]) - int(cv2.cvtColor(frame, 6)[200, 250])) < 6


def test_without_a_frame_before_nothing_is_carried():
    motion = motion_between(None, grey(textured()))
    np.testing.assert_array_equal(motion, still())
    drawn = image(textured(1))
    (alone,) = steadied([image(textured(2))], [drawn], [motion])
    np.testing.assert_array_equal(alone, drawn)


def test_a_face_at_rest_keeps_its_share_of_the_frame_before():
    crop = grey(textured())
    motion = motion_between(crop, crop)
    assert (motion.shape, motion.dtype) == ((3, MOTION_SIDE, MOTION_SIDE), np.float32)
    np.testing.assert_allclose(motion[:2], 0.0, atol=1e-3)
    np.testing.assert_allclose(motion[2], CARRIED, atol=1e-6)
    before, now = image(textured(1)), image(textured(2))
    expected = CARRIED * before + (1 - CARRIED) * now
    np.testing.assert_allclose(steadied([before], [now], [motion])[0], expected, atol=1e-3)


def test_what_was_before_alone_goes_along_whole():
    """However sure the motion is; beside it, what is drawn anew is mixed as ever."""
    before, now = image(textured(1)), image(textured(2))
    motion = np.zeros((3, MOTION_SIDE, MOTION_SIDE), np.float32)
    motion[0], motion[2] = 4.0, 0.25
    alone, mixed = steadied([before, before], [None, now], [motion])
    np.testing.assert_allclose(alone[..., :-4], before[..., 4:], atol=1e-4)
    np.testing.assert_allclose(mixed, now + 0.25 * (alone - now), atol=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(3.0, 0.0), (-5.5, 2.25), (9.0, -7.0)])
def test_motion_is_followed(dx, dy):
    """What is carried over lies where the face is now: pictures that moved with it come out as they are."""
    crop = textured()
    motion = motion_between(grey(crop), grey(shifted(crop, dx, dy)))
    inner = slice(8, -8)
    np.testing.assert_allclose(np.median(motion[:2, inner, inner], axis=(1, 2)), (-dx, -dy), atol=0.4)
    assert np.median(motion[2, inner, inner]) > 0.8 * CARRIED
    drawn = cv2.GaussianBlur(textured(5), (0, 0), 4)
    before, now = image(drawn), image(shifted(drawn, dx, dy))
    (held,) = steadied([before], [now], [motion])
    followed = np.abs(held - now)[..., INNER, INNER].mean()
    assert followed < 0.25 * np.abs((before - now) / 2)[..., INNER, INNER].mean()


def test_the_trembling_of_a_face_at_rest_blurs_nothing():
    """A tenth of a pixel of the crop counts as none; a motion of five pixels is not made smaller."""
    crop = textured()
    resting = motion_between(grey(crop), grey(shifted(crop, 0.1, -0.1)))
    moving = motion_between(grey(crop), grey(shifted(crop, 5.0, 0.0)))
    assert np.median(np.abs(resting[:2])) == 0.0
    assert abs(np.median(moving[0, 8:-8, 8:-8]) + 5.0) < 0.4


def test_what_comes_in_between_stands_alone():
    """A hand that was not there before: its pixels are this frame's, the rest are carried over."""
    crop = textured()
    covered = crop.copy()
    covered[90:180, 90:180] = (235, 245, 250)
    motion = motion_between(grey(crop), grey(covered))
    before, now = image(textured(1)), image(textured(2))
    (held,) = steadied([before], [now], [motion])
    apart = np.abs(held - now)
    assert apart[..., 110:160, 110:160].mean() < 0.1 * apart[..., :60, :60].mean()


def test_what_boils_is_calmed_and_what_moves_stays_sharp():
    """A drawing that moves with the face, drawn anew with some noise in every frame."""
    rng = np.random.default_rng(0)
    face, drawing = textured(), cv2.GaussianBlur(textured(7), (0, 0), 2)
    before = held = None
    boils, calmed, lost = [], [], []
    for n in range(16):
        dx, dy = 6.0 * np.sin(n / 3), 4.0 * np.cos(n / 4)
        now, clean = grey(shifted(face, dx, dy)), image(shifted(drawing, dx, dy))
        noise = cv2.resize(rng.normal(0, 0.1, (32, 32, 3)).astype(np.float32), (CROP_SIZE, CROP_SIZE))
        drawn = clean + noise.transpose(2, 0, 1)[None]
        held = drawn if before is None else steadied([held], [drawn], [motion_between(before, now)])[0]
        before = now
        boils.append(np.abs(drawn - clean)[..., INNER, INNER].mean())
        calmed.append(np.abs(held - clean)[..., INNER, INNER].mean())
        detail = [cv2.Laplacian(a[0, 1, INNER, INNER], cv2.CV_32F).std() for a in (held, clean)]
        lost.append(1.0 - detail[0] / detail[1])
    assert np.mean(calmed[5:]) < 0.75 * np.mean(boils[5:])
    assert np.mean(lost[5:]) < 0.3


def test_every_face_and_picture_has_its_own():
    motions = [still(), still()]
    motions[1][2] = 1.0
    motions[1][0] = 8.0
    before = [np.stack([image(textured(n))[0], image(textured(n + 1))[0]]) for n in (0, 2)]
    now = [np.stack([image(textured(n))[0], image(textured(n + 1))[0]]) for n in (4, 6)]
    held = steadied(before, now, motions)
    for old, new, made in zip(before, now, held, strict=True):
        np.testing.assert_array_equal(made[0], new[0])
        np.testing.assert_allclose(made[1, :, :, :-8], old[1, :, :, 8:], atol=1e-6)
        np.testing.assert_allclose(made[1, :, :, -8:], np.repeat(old[1, :, :, -1:], 8, axis=2), atol=1e-6)
