"""The conventions of `engine.geometry`: composition, FFHQ's recipe, half-pixel exactness, anti-aliasing."""

import cv2
import numpy as np
import pytest

from engine.geometry import (
    CROP_SIZE,
    align,
    blur_taps,
    compose,
    crop_corners_px,
    face_rectangle_px,
    ffhq_crop_from_frame,
    invert_affine,
    pixels_per_pixel,
    reading_of,
    square_from_frame,
    transform_points,
    translation,
    warp,
)


def similarity(centre: tuple[float, float], half_side: float, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return square_from_frame(np.array(centre), half_side * np.array([np.cos(angle), np.sin(angle)]), CROP_SIZE)


def smooth_image(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 0.25 + 40, y * 0.3 + 20, (x + y) * 0.1 + 60], axis=-1).astype(np.float32)


def test_inverse_and_composition_agree_with_points():
    a, b = similarity((100, 80), 70, 12), similarity((31, 4), 200, -50)
    points = np.random.default_rng(0).normal(size=(20, 2)) * 100
    expected = transform_points(b, transform_points(a, points))
    np.testing.assert_allclose(transform_points(compose(b, a), points), expected, atol=1e-9)
    np.testing.assert_allclose(transform_points(invert_affine(a), transform_points(a, points)), points, atol=1e-9)


def test_square_is_filled_edge_to_edge():
    corners = crop_corners_px(similarity((127.5, 127.5), 128.0, 0.0))
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [255.5, -0.5], [255.5, 255.5], [-0.5, 255.5]], atol=1e-9)


def test_ffhq_recipe_on_hand_computed_face():
    # Eyes 60 apart, mouth 100 below them: half side = max(120, 180) = 180, centre 10 below the eyes.
    points = [np.array(p, dtype=float) for p in [(170, 200), (230, 200), (180, 300), (220, 300)]]
    corners = crop_corners_px(ffhq_crop_from_frame(*points))
    np.testing.assert_allclose(corners, [[20, 30], [380, 30], [380, 390], [20, 390]], atol=1e-9)


@pytest.mark.parametrize("degrees", [-150.0, -30.0, 45.0, 90.0])
def test_ffhq_recipe_turns_with_the_face(degrees: float):
    points = np.array([(170, 200), (230, 205), (180, 300), (225, 296)], dtype=float)
    turn = similarity((77, 99), 128, degrees)
    turned = transform_points(turn, points)
    expected = compose(ffhq_crop_from_frame(*points), invert_affine(turn))
    np.testing.assert_allclose(ffhq_crop_from_frame(*turned), expected, atol=1e-6)


def test_warp_by_identity_and_whole_pixels_is_exact():
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp(image, translation(0, 0), (50, 40)), image)
    np.testing.assert_array_equal(warp(image, translation(-3, -5), (20, 20)), image[5:25, 3:23])


@pytest.mark.parametrize("half_side", [60.0, 128.0, 190.0, 400.0, 1100.0])
def test_align_reproduces_a_plane_without_offset(half_side: float):
    """A linear ramp survives any interpolation; half a pixel of offset anywhere would show as 0.1 x scale levels."""
    side = int(half_side * 4)
    y, x = np.mgrid[0:side, 0:side]
    ramp = (200.0 * x / side + 30.0 * y / side).astype(np.float32)
    crop_from_frame = similarity((side / 2 + 0.3, side / 2 - 0.6), half_side, 20.0)
    crop = warp(ramp, crop_from_frame, (CROP_SIZE, CROP_SIZE))
    v, u = np.mgrid[0:CROP_SIZE, 0:CROP_SIZE]
    frame = transform_points(invert_affine(crop_from_frame), np.stack([u.ravel(), v.ravel()], axis=1))
    expected = (frame @ [200.0 / side, 30.0 / side]).reshape(CROP_SIZE, CROP_SIZE)
    inner = (slice(4, -4), slice(4, -4))
    # A tenth of a source pixel, plus float32 rounding.
    assert (
        np.abs(crop - expected)[inner].max() < 0.1 * 200.0 / side * max(1.0, pixels_per_pixel(crop_from_frame)) + 0.01
    )


def test_shrinking_does_not_alias():
    """One-pixel stripes must become grey, not moire, when the face is much larger than the crop."""
    stripes = np.zeros((1600, 1600, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    for half_side in (280.0, 500.0, 700.0):
        crop = align(stripes, similarity((800, 800), half_side, 3.0)).astype(float)
        assert abs(crop.mean() - 127.5) < 2.0
        assert crop.std() < 12.0, half_side


def test_shrunk_crop_does_not_flicker_when_the_face_drifts():
    """Crops of one scene taken a fraction of a pixel apart, and moved back, are the same picture."""
    rng = np.random.default_rng(2)
    scene = cv2.GaussianBlur(rng.uniform(0, 255, (1200, 1200)).astype(np.float32), (0, 0), 6.0)
    first = warp(scene, similarity((600, 600), 400, 0), (CROP_SIZE, CROP_SIZE))
    step = 400 * 2 / CROP_SIZE
    for n in range(1, 4):
        moved = warp(scene, similarity((600 + n * step, 600), 400, 0), (CROP_SIZE, CROP_SIZE))
        assert np.abs(moved[8:-8, 8 : -8 - n] - first[8:-8, 8 + n : -8]).mean() < 0.25


def test_a_scale_just_below_an_octave_is_read():
    """The logarithm of the largest number below 256 is 8."""
    scale = np.nextafter(256.0, 0.0)
    reading = reading_of(np.array([[1.0 / scale, 0.0, 0.0], [0.0, 1.0 / scale, 0.0]]), (4, 4), (1024, 1024))
    assert reading.sigma == 0.0
    assert reading.block in (128, 256)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("sigma", [0.12, 0.4, 0.7, 0.866])
def test_blur_taps_are_opencvs(dtype, sigma):
    image = np.random.default_rng(3).integers(0, 256, (40, 50)).astype(dtype)
    taps = blur_taps(sigma, dtype)
    assert len(taps) <= (4 if dtype is np.uint8 else 5)
    both_sides = np.concatenate([taps[:0:-1], taps]).astype(np.float64)
    ours = cv2.sepFilter2D(image.astype(np.float64), -1, both_sides, both_sides, borderType=cv2.BORDER_REFLECT)
    theirs = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    assert np.abs(ours - theirs).max() <= (0.5 if dtype is np.uint8 else 1e-3) + 1e-6


def test_no_blur_is_one_tap():
    np.testing.assert_array_equal(blur_taps(0.0, np.uint8), [1.0])


def test_align_size_covers_the_same_area():
    image = smooth_image(640, 480)
    crop_from_frame = similarity((300, 240), 100, 10)
    full = warp(image, crop_from_frame, (256, 256))
    half = align(np.rint(image).astype(np.uint8), crop_from_frame, size=128)
    expected = full.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - expected).max() < 1.5


def test_beyond_the_edge_is_the_mirror_image():
    image = smooth_image(200, 200)
    crop_from_frame = similarity((0 - 0.5, 100), 50, 0)
    crop = warp(image, crop_from_frame, (256, 256))
    np.testing.assert_allclose(crop, crop[:, ::-1], atol=0.05)


def test_rectangle_holds_the_crop_and_nothing_outside_the_frame():
    assert face_rectangle_px(similarity((100, 90), 50, 0), (640, 360)) == (50, 40, 151, 141)
    assert face_rectangle_px(similarity((0, 0), 50, 30), (640, 360))[:2] == (0, 0)
    x0, y0, x1, y1 = face_rectangle_px(similarity((-500, -500), 50, 0), (640, 360))
    assert x1 <= x0
    assert y1 <= y0
    x0, y0, x1, y1 = face_rectangle_px(similarity((630, 350), 50, 0), (640, 360))
    assert (x1, y1) == (640, 360)
    assert (x0, y0) == (580, 300)
