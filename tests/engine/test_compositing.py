"""Masks and the way back into the frame."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.bundle import ParserSpec
from engine.compositing import (
    MaskShape,
    Patch,
    blend,
    face_mask,
    give_back,
    image_from_u8,
    levels_from_image,
    parse_faces,
    paste,
    soft_mask,
    usual_mask,
    worn,
)
from engine.geometry import align, face_rectangle_px, invert_affine, square_from_frame, warp
from tests.engine.fakes import crop_at, picture

WHOLE = np.ones((256, 256), np.float32)
EVERYWHERE = np.ones(256, np.float32)


def ellipse(size=128, rx=0.7, ry=0.8):
    """A margin that is positive inside an ellipse, [size, size]."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return (1.0 - (x / rx) ** 2 - (y / ry) ** 2).astype(np.float32)


def test_bytes_survive_the_way_to_the_networks_and_back():
    crop = np.arange(256 * 256 * 3, dtype=np.uint32).reshape(256, 256, 3).astype(np.uint8)
    image = image_from_u8(crop)
    assert image.shape == (1, 3, 256, 256)
    assert image[0, 0, 0, 0] == pytest.approx(crop[0, 0, 2] / 127.5 - 1.0)
    np.testing.assert_array_equal(np.rint(levels_from_image(image[0])), crop)


def test_values_out_of_range_are_clipped():
    assert (levels_from_image(np.full((3, 4, 4), 3.0, np.float32)) == 255).all()
    assert (levels_from_image(np.full((3, 4, 4), -3.0, np.float32)) == 0).all()


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
    shown = give_back(crop, inversion, inversion + 0.8, EVERYWHERE, reshaped=0.0)
    np.testing.assert_allclose(shown, crop + 0.8, atol=1e-5)
    assert np.abs(give_back(crop, inversion, inversion + 0.8, EVERYWHERE) - crop - 0.8).mean() > 0.3


def test_an_edit_of_the_lower_rows_leaves_the_upper_ones_as_they_are_in_the_frame():
    rng = np.random.default_rng(0)
    crop, inversion = rng.uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    edit = np.full_like(crop, 0.9)
    zone = np.zeros(256, np.float32)
    zone[128:] = 1.0
    shown = give_back(crop, inversion, edit, zone)
    np.testing.assert_array_equal(shown[:, :128], crop[:, :128])
    np.testing.assert_allclose(shown[:, 128:], give_back(crop, inversion, edit, EVERYWHERE)[:, 128:], atol=1e-6)
    assert np.abs(shown[:, 128:] - crop[:, 128:]).mean() > 0.5


@pytest.mark.parametrize(
    ("part", "place"), [("eyes", np.s_[:, 118:122, 96:100]), ("mouth", np.s_[:, 186:190, 126:130])]
)
def test_eyes_and_lips_that_no_slider_is_meant_for_are_the_frames(part, place):
    rng = np.random.default_rng(0)
    crop, inversion, edit = rng.uniform(-1, 1, (3, 3, 256, 256)).astype(np.float32)
    edits, kept, half, colours = (
        give_back(crop, inversion, edit, EVERYWHERE, **{part: weight}, reshaped=reshaped)
        for weight, reshaped in ((1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (0.0, 0.0))
    )
    np.testing.assert_allclose(kept[place], crop[place], atol=1e-6)
    np.testing.assert_allclose(half[place], (crop[place] + edits[place]) / 2, atol=1e-6)
    assert np.abs(colours[place] - crop[place]).mean() > 0.3  # make-up is seen on lips
    np.testing.assert_allclose(kept[:, :100], edits[:, :100], atol=1e-6)
    np.testing.assert_allclose(kept[:, 220:], edits[:, 220:], atol=1e-6)


def test_all_that_is_given_back_is_moved_and_fades_into_the_frame_where_it_ends():
    rng = np.random.default_rng(0)
    crop, inversion, edit = rng.uniform(-1, 1, (3, 3, 256, 256)).astype(np.float32)
    still, moved = (give_back(crop, inversion, edit, EVERYWHERE, shift) for shift in ((0, 0), (20, -3)))
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
    shown = give_back(crop, inversion, inversion, EVERYWHERE, off=off)
    np.testing.assert_allclose(shown[:, 84:156], inversion[:, 84:156], atol=1e-6)
    np.testing.assert_allclose(shown[:, 170:], crop[:, 170:], atol=1e-6)


def test_what_a_face_wears_is_found_with_its_rims_and_without_specks():
    parts = ParserSpec(128, ("background", "skin", "glasses"), ("skin", "glasses"))
    logits = np.zeros((3, 128, 128), np.float32)
    logits[1] = 4.0
    logits[2, 50:70, 30:100] = 9.0
    logits[2, 10:12, 10:12] = 9.0
    share = worn(logits, parts, {"glasses": 0.8})
    assert share.shape == (64, 64)
    assert share[30, 20:45] == pytest.approx(0.8)
    assert not share[:12].any()
    assert not share[:, 60:].any()
    assert share[24, 30] > 0.4  # one pixel of 64 above what the parser says
    assert not worn(logits, parts, {}).any()
    assert not worn(logits, parts, {"hat": 1.0}).any()


@pytest.mark.parametrize("shape", [MaskShape(), MaskShape(15, 30), MaskShape(8, 16), MaskShape(4, 5)])
def test_soft_edge_lies_inside_the_mask_and_off_the_border(shape):
    margin = ellipse()
    mask = soft_mask(margin, 256, shape)
    inside = cv2.resize(margin, (256, 256), interpolation=cv2.INTER_LINEAR) > 0
    assert not mask[~inside].any()
    assert mask[128, 128] == pytest.approx(1.0)
    assert mask.max() <= 1.0 + 1e-6
    assert np.abs(np.diff(mask, axis=1)).max() < 2.0 / shape.feather_px + 1e-6
    everywhere = soft_mask(np.ones((128, 128), np.float32), 256, shape)
    assert not everywhere[[0, -1]].any()
    assert not everywhere[:, [0, -1]].any()


def parsed(logits, parts):
    """What is made of a parser that answers with these logits [2 F, K, h, w], frames first."""

    class Parser:
        spec = None

        def __call__(self, crop):
            assert crop.shape == (len(logits), 3, 256, 256)
            return {"logits": logits}

    crops = np.zeros((len(logits) // 2, 3, 256, 256), np.float32)
    return parse_faces(Parser(), parts, crops, crops)


def masks_from(logits, parts, hair=1.0):
    return tuple(face_mask(parse, 256, MaskShape(), hair) for parse in parsed(logits, parts))


def test_a_neck_is_no_surroundings_and_no_face():
    parts = ParserSpec(128, ("background", "skin", "neck", "cloth", "hair"), ("skin", "hair"))
    logits = np.full((2, 5, 128, 128), -4.0, np.float32)
    for n, rows in enumerate((slice(0, 20), slice(40, 80), slice(80, 100), slice(100, 128), slice(20, 40))):
        logits[:, n, rows] = 2.0
    (parse,) = parsed(logits, parts)
    assert (parse.around[:20] == 6.0).all()
    assert (parse.around[20:100] == -6.0).all()
    assert (parse.around[100:] == 6.0).all()
    assert (parse.edit[80:100] == -6.0).all()
    assert (parse.hair[20:40] == 6.0).all()
    assert (parse.hair[40:] <= 0.0).all()


def test_masks_are_the_union_of_frame_and_edit():
    parts = ParserSpec(128, ("background", "skin", "hair"), ("skin", "hair"))
    logits = np.zeros((4, 3, 128, 128), np.float32)
    logits[:, 1:] = -1.0
    logits[0, 1, :, :40] = 1.0  # the first face's frame: skin on the left
    logits[2, 2, :, 88:] = 1.0  # its edit: hair on the right
    logits[3, 1, 40:88] = 1.0  # the second face's edit only

    first, second = masks_from(logits, parts)
    assert first[128, 40] == pytest.approx(1.0)
    assert first[128, 216] == pytest.approx(1.0)
    assert first[128, 128] == 0.0
    assert second[128, 128] == pytest.approx(1.0)
    assert second[20, 128] == 0.0


def test_hair_or_face_that_no_slider_moves_is_left_alone():
    parts = ParserSpec(128, ("background", "skin", "hair", "hat"), ("skin", "hair"))
    logits = np.full((2, 4, 128, 128), -9.0, np.float32)
    logits[:, 0] = 0.0
    logits[0, 2, :40] = 2.0  # the frame: hair above
    logits[0, 1, 40:100, 30:98] = 4.0  # and a face
    logits[1, 1, 20:110, 20:108] = 4.0  # the edit: a larger face, with a higher forehead and a wider jaw
    logits[1, 2, 40:100, :20] = 4.0  # and hair beside it

    def at(hair):
        (mask,) = masks_from(5.0 * logits, parts, hair)
        places = {"hair": (40, 128), "forehead": (60, 128), "face": (130, 128), "jaw": (190, 50), "added": (130, 20)}
        return {name: float(mask[place]) for name, place in places.items()}

    assert at(0.0) == {"hair": 0.0, "forehead": 0.0, "face": 1.0, "jaw": 1.0, "added": 0.0}
    assert at(1.0) == dict.fromkeys(at(0.0), 1.0)
    assert at(2.0) == {"hair": 1.0, "forehead": 1.0, "face": 0.0, "jaw": 1.0, "added": 1.0}
    covered = [masks_from(5.0 * logits, parts, hair)[0].mean() for hair in np.linspace(0.0, 2.0, 21)]
    assert (np.diff(covered)[:10] >= 0.0).all()
    assert (np.diff(covered)[10:] <= 0.0).all()


def test_without_hair_a_new_colour_of_hair_changes_nothing():
    parts = ParserSpec(128, ("background", "skin", "hair"), ("skin", "hair"))
    logits = np.zeros((2, 3, 128, 128), np.float32)
    logits[:, 1] = 9.0
    assert not masks_from(logits, parts, 2.0)[0].any()
    assert masks_from(logits, parts, 1.0)[0][128, 128] == 1.0


def test_a_parser_without_hair_has_nothing_to_leave_alone():
    parts = ParserSpec(128, ("background", "skin"), ("skin",))
    logits = np.random.default_rng(0).normal(size=(2, 2, 128, 128)).astype(np.float32)
    logits[0, 1, 20:110, 20:110] += 5.0
    np.testing.assert_array_equal(*(masks_from(logits, parts, hair)[0] for hair in (0.0, 1.0)))


def test_what_is_before_the_face_in_the_frame_is_taken_out_and_what_the_edit_lets_grow_stays():
    parts = ParserSpec(128, ("background", "skin", "hand"), ("skin",), ("hand",))
    logits = np.full((2, 3, 128, 128), -1.0, np.float32)
    logits[0, 0] = 0.0
    logits[0, 1, :, 24:88] = 1.0  # the frame: a face
    logits[0, 2, 40:88, 24:60] = 2.0  # and a hand before its left half
    logits[0, 2, 20:22, 70:72] = 2.0  # and a speck
    logits[1, 1] = 3.0  # the edit: a face everywhere

    (mask,) = masks_from(logits, parts)
    assert not mask[84:172, 52:116].any()
    assert mask[41, 141] == pytest.approx(1.0)  # where the speck is
    assert mask[30, 84] == mask[128, 150] == pytest.approx(1.0)
    assert mask[128, 230] == pytest.approx(1.0)  # background in the frame: where hair can grow
    (everywhere,) = masks_from(logits, replace(parts, occluder_classes=()))
    assert everywhere[128, 80] == pytest.approx(1.0)


def test_a_thing_goes_on_where_the_parser_is_less_sure_but_does_not_begin_there():
    parts = ParserSpec(128, ("background", "skin", "hand"), ("skin",), ("hand",))
    logits = np.full((2, 3, 128, 128), -9.0, np.float32)
    logits[:, 1] = 4.0
    logits[0, 2, 30:50, 20:40] = 5.0  # fingers
    logits[0, 2, 50:60, 20:40] = 3.5  # their palm
    logits[0, 2, 90:110, 80:100] = 3.5  # as unsure, and alone

    (mask,) = masks_from(logits, parts)
    assert not mask[66:108, 46:74].any()
    assert mask[200, 180] == pytest.approx(1.0)
    assert mask[80, 120] == mask[150, 60] == pytest.approx(1.0)


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


def test_a_parser_that_finds_nothing_does_not_uncover_the_face():
    parts = ParserSpec(128, ("background", "skin"), ("skin",))
    logits = np.tile(np.array([1.0, -1.0], np.float32)[None, :, None, None], (2, 1, 128, 128))
    (mask,) = masks_from(logits, parts)
    assert mask[100:190, 90:166].min() == pytest.approx(1.0)
    assert not mask[:, [0, -1]].any()


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
