"""What goes out in place of a frame that may show the user's face."""

import numpy as np
import pytest

from engine.frames import CameraFrame
from engine.policies import LostFace, blurred, stand_in
from engine.state import HOLD_NS, HeldFrame
from tests.engine.fakes import picture

FRAME = CameraFrame(9, HOLD_NS, picture(1))


def held(captured_ns, *size):
    image = picture(2, *size)
    return HeldFrame(captured_ns, lambda: image)


@pytest.mark.parametrize("policy", LostFace)
def test_only_passthrough_shows_the_frame(policy):
    image = stand_in(policy, FRAME, held(0))
    assert (image is FRAME.image) == (policy is LostFace.PASSTHROUGH)
    assert image.shape == FRAME.image.shape


def test_hold_stands_still_for_a_second_and_then_blurs():
    last, later = held(0), CameraFrame(10, HOLD_NS + 1, FRAME.image)
    assert stand_in(LostFace.HOLD, FRAME, last) is last.image()
    np.testing.assert_array_equal(stand_in(LostFace.HOLD, later, last), blurred(FRAME.image))
    assert stand_in(LostFace.FREEZE, later, last) is last.image()


@pytest.mark.parametrize("last", [None, held(0, 64, 64)])
@pytest.mark.parametrize("policy", [LostFace.HOLD, LostFace.FREEZE])
def test_with_nothing_to_hold_the_frame_is_blurred(policy, last):
    np.testing.assert_array_equal(stand_in(policy, FRAME, last), blurred(FRAME.image))


def test_a_clock_that_runs_backwards_does_not_hold():
    np.testing.assert_array_equal(stand_in(LostFace.HOLD, FRAME, held(2 * HOLD_NS)), blurred(FRAME.image))


def test_blank_is_one_grey():
    assert np.ptp(stand_in(LostFace.BLANK, FRAME, None)) == 0


@pytest.mark.parametrize("size", [(64, 64), (640, 360), (1, 50), (2400, 1350)])
def test_blur_leaves_light_and_takes_features(size):
    width, height = size
    board = ((np.indices((height, width)).sum(axis=0) // max(height // 24, 1)) % 2 * 200).astype(np.uint8)
    image = blurred(np.repeat(board[..., None], 3, axis=2))
    assert image.shape == (height, width, 3)
    if height >= 64:
        assert abs(float(image.mean()) - float(board.mean())) < 12
        assert image.std() < 0.35 * board.std()
