"""The way back into the frame."""

import time

import cv2
import numpy as np
import pytest

from engine.compositing import Patch, blend, image_from_u8, levels_from_image, paste
from engine.geometry import align, face_rectangle_px, invert_affine, square_from_frame, warp
from engine.masks import MaskShape, soft_mask, usual_mask
from tests.engine.fakes import crop_at, ellipse, picture

WHOLE = np.ones((256, 256), np.float32)


def test_bytes_survive_the_way_to_the_networks_and_back():
    crop = np.arange(256 * 256 * 3, dtype=np.uint32).reshape(256, 256, 3).astype(np.uint8)
    image = image_from_u8(crop)
    assert image.shape == (1, 3, 256, 256)
    assert image[0, 0, 0, 0] == pytest.approx(crop[0, 0, 2] / 127.5 - 1.0)
    np.testing.assert_array_equal(np.rint(levels_from_image(image[0])), crop)


def test_values_out_of_range_are_clipped():
    assert (levels_from_image(np.full((3, 4, 4), 3.0, np.float32)) == 255).all()
    assert (levels_from_image(np.full((3, 4, 4), -3.0, np.float32)) == 0).all()


@pytest.mark.parametrize("half_side_px", [25.0, 90.0, 300.0])
@pytest.mark.parametrize("centre", [(160.0, 120.0), (5.0, 230.0), (-400.0, -400.0)])
def test_outside_the_rectangle_nothing_changes(centre, half_side_px):
    frame = picture(5)
    before = frame.copy()
    crop_from_frame = square_from_frame(np.array(centre), np.array([half_side_px, 0.3 * half_side_px]), 256)
    mask = soft_mask(ellipse(), 256, MaskShape())
    out = blend(frame, [Patch(np.full((3, 256, 256), -1.0, np.float32), mask, crop_from_frame)])
    np.testing.assert_array_equal(frame, before)
    x0, y0, x1, y1 = face_rectangle_px(crop_from_frame, (frame.shape[1], frame.shape[0]))
    untouched = np.ones(frame.shape[:2], bool)
    untouched[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(out[untouched], frame[untouched])
    if centre[0] > 100:
        assert (out[120, 160] == 0).all()


def test_where_the_mask_is_0_the_frame_is_exact():
    frame = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    mask = WHOLE.copy()
    mask[:, 120:] = 0.0
    out = blend(frame, [Patch(np.zeros((3, 256, 256), np.float32), mask, crop_at(160, 120, 64))])
    # Crop column 128 is frame column 160; the mask ends eight crop pixels, four frame pixels, before it.
    np.testing.assert_array_equal(out[:, 158:], frame[:, 158:])
    assert (out[100:140, 110:150] == 128).all()


@pytest.mark.parametrize("half_side_px", [30.0, 64.0, 118.0, 160.0, 230.0])
def test_an_unchanged_crop_lands_where_it_came_from(half_side_px):
    frame = picture(6)
    crop_from_frame = crop_at(160.3, 119.6, half_side_px)
    image = image_from_u8(align(frame, crop_from_frame))[0]
    mask = soft_mask(ellipse(), 256, MaskShape())
    out = blend(frame, [Patch(image, mask, crop_from_frame)])
    # Half a pixel of shift in this picture would be more than two grey levels.
    assert np.abs(out.astype(int) - frame).max() <= 2


def test_an_unchanged_crop_keeps_the_detail_that_it_does_not_hold():
    """A face twice as large in the frame as in its crop, and a pattern that the crop cannot hold."""
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 256, (600, 600, 3), np.uint8)
    crop_from_frame = crop_at(300.3, 299.6, 256.0)
    crop = image_from_u8(align(frame, crop_from_frame))[0]
    edit = crop.copy()
    edit[:, 96:160, 96:160] = 1.0  # something new
    out = blend(frame, [Patch(edit, WHOLE, crop_from_frame, crop)])
    np.testing.assert_array_equal(out[100:150, 100:500], frame[100:150, 100:500])
    assert (out[280:320, 280:320] == 255).all()
    without = blend(frame, [Patch(edit, WHOLE, crop_from_frame)])
    assert np.abs(without[100:150, 100:500].astype(int) - frame[100:150, 100:500]).mean() > 20


def test_a_change_lands_on_the_frames_own_detail():
    frame = np.random.default_rng(2).integers(60, 200, (600, 600, 3), np.uint8)
    crop_from_frame = crop_at(300.0, 300.0, 256.0)
    crop = image_from_u8(align(frame, crop_from_frame))[0]
    out = blend(frame, [Patch(crop + 4 / 127.5, WHOLE, crop_from_frame, crop)])
    assert np.abs(out[100:500, 100:500].astype(int) - frame[100:500, 100:500] - 4).max() <= 2


def test_a_large_change_of_colours_alone_lands_on_it_too():
    frame = np.random.default_rng(2).integers(140, 250, (600, 600, 3), np.uint8)
    crop_from_frame = crop_at(300.0, 300.0, 256.0)
    crop = image_from_u8(align(frame, crop_from_frame))[0]
    darker = crop - 90 / 127.5
    out = blend(frame, [Patch(darker, WHOLE, crop_from_frame, crop, reshaped=0.0)])
    assert np.abs(out[100:500, 100:500].astype(int) - frame[100:500, 100:500] + 90).max() <= 2
    anew = blend(frame, [Patch(darker, WHOLE, crop_from_frame, crop)])
    assert np.abs(anew[100:500, 100:500].astype(int) - frame[100:500, 100:500] + 90).mean() > 10


def test_a_face_made_smaller_is_not_aliased():
    stripes = np.tile(np.array([1.0, -1.0], np.float32), 128)
    image = np.broadcast_to(stripes, (3, 256, 256))
    frame = np.full((240, 320, 3), 128, np.uint8)
    out = blend(frame, [Patch(np.ascontiguousarray(image), WHOLE, crop_at(160, 120, 25))])
    assert np.abs(out[105:135, 145:175].astype(int) - 128).max() < 30


def test_two_faces_are_blended_into_one_frame():
    white, black = (np.full((3, 256, 256), level, np.float32) for level in (1.0, -1.0))
    out = blend(picture(), [Patch(white, WHOLE, crop_at(60, 120, 30)), Patch(black, WHOLE, crop_at(250, 120, 30))])
    assert (out[120, 60] == 255).all()
    assert (out[120, 250] == 0).all()


@pytest.mark.parametrize("half_side_px", [20.0, 60.0, 200.0])
def test_the_whole_mask_reaches_the_frame(half_side_px):
    crop_from_frame = square_from_frame(np.array([150.0, 130.0]), half_side_px * np.array([0.9, -0.4]), 256)
    mask = soft_mask(ellipse(), 256, MaskShape())
    frame = np.zeros((240, 320, 3), np.uint8)
    out = blend(frame, [Patch(np.ones((3, 256, 256), np.float32), mask, crop_from_frame)])
    expected = 255.0 * warp(mask, invert_affine(crop_from_frame), (320, 240), cv2.BORDER_CONSTANT)
    assert np.abs(out[..., 1] - expected).max() < 3


def test_an_empty_mask_changes_nothing():
    frame = picture()
    out = blend(frame, [Patch(np.zeros((3, 256, 256), np.float32), np.zeros_like(WHOLE), crop_at(160, 120))])
    np.testing.assert_array_equal(out, frame)
    assert out is not frame


@pytest.mark.parametrize("half_side_px", [60.0, 120.0])
def test_the_cost_follows_the_face_not_the_frame(half_side_px):
    """The same face in pixels costs in 4K at most 1.3 x what it costs in 360p; the copy of the frame is not in it."""
    crop_from_frame = square_from_frame(np.array([320.4, 180.2]), half_side_px * np.array([1.0, 0.1]), 256)
    image = np.random.default_rng(0).uniform(-1.0, 1.0, (3, 256, 256)).astype(np.float32)
    patches = [Patch(image, usual_mask(256, MaskShape()), crop_from_frame)]
    frames = [np.full((height, width, 3), 128, np.uint8) for width, height in ((640, 360), (3840, 2160))]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # so that the processor time of this thread is all there is
    try:
        took_ns: list[list[int]] = [[], []]
        for _ in range(40):
            for frame, times in zip(frames, took_ns, strict=True):
                started = time.thread_time_ns()
                paste(frame, patches)
                times.append(time.thread_time_ns() - started)
    finally:
        cv2.setNumThreads(threads)
    small, large = (float(np.median(times)) for times in took_ns)
    assert large <= 1.3 * small, f"{large / 1e6:.2f} ms in 4K, {small / 1e6:.2f} ms in 360p"
    np.testing.assert_array_equal(frames[0], frames[1][:360, :640])
