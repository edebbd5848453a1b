"""Masks of a face in the frame and in its edit."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.bundle import ParserSpec
from engine.masks import MaskShape, face_mask, parse_faces, soft_mask, worn
from tests.engine.fakes import ellipse


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


def masks_from(logits, parts, hair=1.0, outline=1.0):
    return tuple(face_mask(parse, 256, MaskShape(), hair, outline) for parse in parsed(logits, parts))


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


def test_ears_and_jaw_that_no_slider_is_meant_for_are_left_alone_and_hair_goes_with_its_own():
    parts = ParserSpec(128, ("background", "skin", "hair"), ("skin", "hair"))
    logits = np.full((2, 3, 128, 128), -9.0, np.float32)
    logits[:, 1, 8:120, 8:120] = 9.0
    logits[0, 2, 8:30, 8:120] = 30.0  # the frame has hair above
    logits[1, 2, 8:120, 8:30] = 30.0  # the edit on one side
    crown, ear, nose, beside = (30, 128), (140, 230), (150, 128), (140, 30)

    def at(hair, outline):
        (mask,) = masks_from(logits, parts, hair, outline=outline)
        return [pytest.approx(float(mask[place]), abs=0.01) for place in (crown, ear, nose, beside)]

    assert at(1.0, 1.0) == [1.0, 1.0, 1.0, 1.0]
    assert at(1.0, 0.5) == [1.0, 0.5, 1.0, 0.5]
    assert at(1.0, 0.0) == [1.0, 0.0, 1.0, 0.0]
    assert at(0.0, 0.0) == [0.0, 0.0, 1.0, 0.0]


def test_a_parser_without_hair_has_nothing_to_leave_alone():
    parts = ParserSpec(128, ("background", "skin"), ("skin",))
    logits = np.random.default_rng(0).normal(size=(2, 2, 128, 128)).astype(np.float32)
    logits[0, 1, 20:110, 20:110] += 5.0
    np.testing.assert_array_equal(*(masks_from(logits, parts, part)[0] for part in (0.0, 1.0)))


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


def test_a_parser_that_finds_nothing_does_not_uncover_the_face():
    parts = ParserSpec(128, ("background", "skin"), ("skin",))
    logits = np.tile(np.array([1.0, -1.0], np.float32)[None, :, None, None], (2, 1, 128, 128))
    (mask,) = masks_from(logits, parts)
    assert mask[100:190, 90:166].min() == pytest.approx(1.0)
    assert not mask[:, [0, -1]].any()
