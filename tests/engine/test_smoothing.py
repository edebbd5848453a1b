"""The crop's One-Euro filter on synthetic measurements: steady at rest, prompt in motion, calm about clocks."""

import numpy as np
import pytest

from engine.geometry import Affine, crop_corners_px, square_from_frame, transform_points
from engine.smoothing import (
    MAX_ERROR_PX,
    NOMINAL_INTERVAL_S,
    AlignmentFilter,
    advance,
    dragged,
    motion_px,
    moved,
    start,
)

FRAME_NS = 33_333_333
SIZE = 256


def crop(x: float = 320.0, y: float = 180.0, degrees: float = 0.0, half_side: float = 100.0) -> Affine:
    angle = np.deg2rad(degrees)
    return square_from_frame(np.array([x, y]), half_side * np.array([np.cos(angle), np.sin(angle)]), SIZE)


def run(measured: list[Affine], interval_ns: int = FRAME_NS) -> list[AlignmentFilter]:
    states = [start(measured[0], 0)]
    for n, one in enumerate(measured[1:], start=1):
        states.append(advance(states[-1], one, n * interval_ns))
    return states


@pytest.mark.parametrize("target", [crop(330), crop(320, 160, 9), crop(300, 181, -30, 140), crop(half_side=70)])
def test_moved_is_the_inverse_of_motion(target: Affine):
    np.testing.assert_allclose(moved(crop(), motion_px(crop(), target)), target, atol=1e-9)


@pytest.mark.parametrize("target", [crop(320.4, 179.5), crop(degrees=0.4), crop(half_side=100.6)])
def test_motion_is_what_the_corners_do(target: Affine):
    corners = transform_points(crop(), crop_corners_px(target))
    still = transform_points(crop(), crop_corners_px(crop()))
    root_mean_square = np.sqrt(((corners - still) ** 2).sum(axis=1).mean())
    assert np.linalg.norm(motion_px(crop(), target)) == pytest.approx(root_mean_square, rel=0.01)


def test_dragged_stops_at_the_slack():
    near, far = crop(321), crop(340)
    np.testing.assert_array_equal(dragged(crop(), near, 4.0, SIZE), crop())
    assert np.linalg.norm(motion_px(dragged(crop(), far, 4.0, SIZE), far)) == pytest.approx(4.0, rel=0.01)


def test_noise_at_rest_is_removed():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.25, (150, 4))
    states = run([moved(crop(), one) for one in noise])
    motions = np.array([motion_px(crop(), state.crop_from_frame) for state in states])
    spread = np.linalg.norm(motions[8:] - motions[8:].mean(axis=0), axis=1)
    assert np.sqrt((spread**2).mean()) < 0.1  # from 0.5


@pytest.mark.parametrize("speed_px_s", [200.0, -200.0])
def test_motion_lags_less_than_a_frame(speed_px_s: float):
    states = run([crop(320 + speed_px_s * n / 30.0) for n in range(40)])
    behind = [float(np.linalg.norm(motion_px(state.crop_from_frame, state.measured))) for state in states]
    per_frame = abs(speed_px_s) / 30.0 * SIZE / 200.0
    assert max(behind) < per_frame
    assert max(behind[15:]) < 0.5 * per_frame


def test_slow_drift_and_sudden_starts_stay_within_the_bound():
    drift = [crop(320 + 0.1 * n) for n in range(300)]
    states = run(drift + [crop(350 + 15 * n) for n in range(10)])
    errors = [np.linalg.norm(motion_px(state.crop_from_frame, state.measured)) for state in states]
    assert max(errors) <= MAX_ERROR_PX * 1.05


@pytest.mark.parametrize("later_ns", [0, -5_000_000_000])
def test_equal_and_backward_timestamps_count_as_a_normal_interval(later_ns: int):
    nominal = advance(start(crop(), 0), crop(322), round(NOMINAL_INTERVAL_S * 1e9))
    odd = advance(start(crop(), 0), crop(322), later_ns)
    np.testing.assert_allclose(odd.crop_from_frame, nominal.crop_from_frame, rtol=1e-6)
    assert odd.captured_ns == later_ns


def test_frames_a_nanosecond_apart_are_no_motion():
    """VFR streams repeat timestamps almost exactly: noise over no time must not open the filter."""
    state = run([crop()] * 30)[-1]
    state = advance(state, crop(320.3), state.captured_ns + 1)
    assert np.linalg.norm(motion_px(crop(), state.crop_from_frame)) < 0.1


def test_a_long_gap_takes_the_new_place():
    state = run([crop()] * 30)[-1]
    state = advance(state, crop(400), state.captured_ns + 3_000_000_000)
    assert np.linalg.norm(motion_px(state.crop_from_frame, crop(400))) <= MAX_ERROR_PX * 1.05


def test_states_are_not_changed():
    state = start(crop(), 0)
    before = state.crop_from_frame.copy()
    advance(state, crop(400), FRAME_NS)
    np.testing.assert_array_equal(state.crop_from_frame, before)
    assert state.frames == 1
