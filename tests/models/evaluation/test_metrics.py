"""The paper's metrics on inputs whose answer is known beforehand."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from models.evaluation.metrics import (
    mouth_followed,
    mse_x100,
    tg_id,
    tl_id,
    trusted_masks,
    unreliable,
    warp_error,
    warp_errors,
)

HEIGHT, WIDTH = 24, 32


def shift(dx: float, dy: float, frames: int = 1) -> Tensor:
    """A constant flow, [frames, 2, HEIGHT, WIDTH]."""
    return torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).repeat(frames, 1, HEIGHT, WIDTH)


def moving_video(frames: int) -> Tensor:
    """Noise that moves by (2, 1) pixels a frame: video[t + 1] at p + (2, 1) is video[t] at p."""
    torch.manual_seed(0)
    picture = torch.rand(3, HEIGHT + frames, WIDTH + 2 * frames) * 2 - 1
    offsets = [(2 * (frames - t), frames - t) for t in range(frames)]
    return torch.stack([picture[:, y : y + HEIGHT, x : x + WIDTH] for x, y in offsets])


def inside(frames: int) -> Tensor:
    """A mask of what stays in the picture when it moves by (2, 1), [frames, HEIGHT, WIDTH]."""
    mask = torch.zeros(frames, HEIGHT, WIDTH)
    mask[:, : HEIGHT - 1, : WIDTH - 2] = 1
    return mask


def test_mse_x100_of_black_and_white() -> None:
    black, white = np.full((2, 3, 4, 4), -1, np.float32), np.full((2, 3, 4, 4), 1, np.float32)
    assert mse_x100(black, white) == 400.0
    assert mse_x100(black, black) == 0.0
    assert mse_x100(black, black + np.float32(0.1)) == pytest.approx(1.0, rel=1e-5)


def test_warp_error_is_zero_for_a_video_that_only_moves() -> None:
    video, forward = moving_video(4), shift(2, 1, frames=3)
    masks = trusted_masks(inside(4), forward, shift(-2, -1, frames=3))
    assert masks.sum() == 3 * (HEIGHT - 1) * (WIDTH - 2)
    assert warp_error(video, forward, masks) == pytest.approx(0.0, abs=1e-6)
    # The same video under the opposite flow, or none, is nowhere near.
    assert warp_error(video, shift(-2, -1, frames=3), masks) > 1000
    assert warp_error(video, shift(0, 0, frames=3), masks) > 1000


def test_warp_error_is_in_squared_levels_of_255() -> None:
    video, forward = moving_video(3), shift(2, 1, frames=2)
    # One frame is 3 levels of 255 brighter: both pairs are off by 3, squared.
    video[1] += 3 / 127.5
    errors = warp_errors(video, forward, inside(2))
    torch.testing.assert_close(errors, torch.tensor([9.0, 9.0], dtype=torch.float64), rtol=1e-4, atol=0)
    # One channel of three: a third of it.
    video[1] -= 3 / 127.5
    video[1, 0] += 3 / 127.5
    assert warp_error(video, forward, inside(2)) == pytest.approx(3.0, rel=1e-4)


def test_warp_error_against_scipy_on_a_bending_flow() -> None:
    """The definition once more, pixel by pixel, with SciPy's interpolation in the place of the warp."""
    rng = np.random.default_rng(4)
    video = rng.uniform(-1, 1, (3, 3, HEIGHT, WIDTH)).astype(np.float32)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    flow = np.stack([1.5 + np.sin(y / 5), -0.7 + 0.8 * np.cos(x / 7)]).astype(np.float32)
    masks = rng.uniform(0, 1, (2, HEIGHT, WIDTH)).astype(np.float32)
    expected = []
    for t in range(2):
        at = [y + flow[1], x + flow[0]]
        moved = [map_coordinates(channel.astype(np.float64), at, order=1, mode="nearest") for channel in video[t + 1]]
        squared = np.square((np.array(moved) - video[t]) * 127.5).mean(axis=0)
        expected.append(np.sum(masks[t] * squared) / np.sum(masks[t]))
    found = warp_errors(
        torch.from_numpy(video), torch.from_numpy(flow)[None].repeat(2, 1, 1, 1), torch.from_numpy(masks)
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_warp_error_weighs_by_the_mask_and_skips_empty_pairs() -> None:
    video, forward = moving_video(3), shift(2, 1, frames=2)
    video[1, :, :, 16:] += 10 / 127.5
    left, right = inside(2), inside(2)
    left[..., 12:], right[..., :16] = 0, 0
    assert warp_error(video, forward, left) == pytest.approx(0.0, abs=1e-6)
    right[1] = 0
    assert warp_errors(video, forward, right)[0] == pytest.approx(100.0, rel=1e-4)
    assert warp_error(video, forward, right) == pytest.approx(100.0, rel=1e-4)
    assert math.isnan(warp_error(video, forward, torch.zeros(2, HEIGHT, WIDTH)))


def test_flows_that_disagree_are_occluded() -> None:
    assert not unreliable(shift(3, 0), shift(-3, 0)).any()
    # |b_w + f|^2 = 0.49 is within 0.01 (2.3^2 + 3^2) + 0.5 = 0.643; 0.81 is beyond 0.634.
    assert not unreliable(shift(3, 0), shift(-2.3, 0)).any()
    assert unreliable(shift(3, 0), shift(-2.1, 0)).all()


def test_backward_flow_is_read_where_the_forward_flow_leads() -> None:
    forward, backward = shift(4, 0), shift(-4, 0)
    backward[..., 20:24] = 0
    expected = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    expected[..., 16:20] = True
    assert torch.equal(unreliable(forward, backward), expected)


def test_a_step_in_the_flow_is_a_motion_boundary() -> None:
    forward = shift(2, 0)
    forward[..., 10:] = 2.5
    forward[:, 1] = 0
    found = unreliable(forward, -forward)
    # 0.5^2 = 0.25 is beyond 0.01 x 4 + 0.002 in the one column before the step.
    assert found[0, :, 9].all()
    assert not found[0, :, 11:].any()
    assert not found[0, :, :7].any()
    gentle = shift(2, 0)
    gentle[:, 0] += 0.2 * (torch.arange(WIDTH) >= 10)
    # 0.2^2 = 0.04 is within 0.01 x 4 + 0.002.
    assert not unreliable(gentle, -gentle)[0, :, 9].any()


def unit_rows(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane, one a row."""
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees], np.float32)


def test_identity_metrics_by_hand_on_three_frames() -> None:
    source, edited = unit_rows(0, 60, 120), unit_rows(0, 0, 60)
    # Neighbours: source cos 60 = 0.5 twice; edited cos 0 = 1 and cos 60 = 0.5.
    assert tl_id(source, edited) == pytest.approx((1 / 0.5 + 0.5 / 0.5) / 2, rel=1e-6)
    # All pairs, each twice: the third one is cos 60 over cos 120.
    assert tg_id(source, edited) == pytest.approx((2 + 1 + 0.5 / -0.5) / 3, rel=1e-6)


def test_identity_metrics_of_a_video_with_itself_are_one() -> None:
    source = unit_rows(0, 20, 45, 70)
    assert tl_id(source, source) == pytest.approx(1.0)
    assert tg_id(source, source) == pytest.approx(1.0)


def test_a_mouth_that_opens_half_as_far_follows_by_half_wherever_it_rests() -> None:
    source = np.array([0.0, 0.1, 0.2, 0.1], np.float32)
    assert mouth_followed(source, 0.5 * source + 0.3) == pytest.approx(0.5)
    assert mouth_followed(source, np.full_like(source, 0.2)) == pytest.approx(0.0, abs=1e-6)


def test_nothing_is_said_of_a_mouth_that_rests() -> None:
    assert mouth_followed(np.full(4, 0.2, np.float32), np.array([0.0, 0.1, 0.2, 0.3], np.float32)) is None
