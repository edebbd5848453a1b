"""Causal smoothing of the face crop: one One-Euro filter on the motion of the crop's corners.

The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) is a low-pass whose cutoff grows with speed: a still face must
stand still, a moving one must not lag. Here it filters the crop's similarity as a whole. The four numbers of its motion
(shift in x and y, change of log scale, turn) are all expressed as what they do to the crop's corners, in crop pixels,
so that one speed and one cutoff hold for all four and the crop follows as a rigid whole. Three things differ from the
published filter: there is a resting speed, the cutoff grows with the square of what is above it, and how far the
smoothed crop may stray from the measured one is bounded.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.geometry import CROP_SIZE, Affine, compose, invert_affine, square_from_frame, transform_points

MIN_CUTOFF_HZ = 0.05
"""Cutoff for a face at rest: the mesh's own slow wandering on a still picture is at 0.1 to 1 Hz and must not pass."""

REST_SPEED_PX = 8.0
"""Corner speed, in crop pixels a second, up to which a face counts as resting: the speed that noise alone shows."""

CUTOFF_PER_SPEED2 = 0.03
"""Hz added for the square of what the speed is above the resting speed: fast motion must pass with less than a frame of
lag. The published filter's cutoff grows in proportion, and lets more of the noise of slow motion pass for the same lag.
"""

SPEED_CUTOFF_HZ = 1.5
"""Cutoff of the speed estimate itself."""

MAX_ERROR_PX = 2.5
"""Distance from the measured crop, in crop pixels, that smoothing may leave. It bounds what the low cutoff costs when a
head drifts too slowly to count as moving, or starts too suddenly for the speed estimate."""

SETTLING_FRAMES = 8
"""The first frames are averaged: one measurement must not hold for the seconds that the resting cutoff remembers."""

NOMINAL_INTERVAL_S = 1.0 / 30.0
"""Stands in for the time between two frames whose timestamps are equal or run backwards."""

MIN_INTERVAL_S = 1.0 / 240.0
"""Frames closer than this are treated as this far apart: noise divided by almost nothing is not a speed."""


@dataclass(frozen=True)
class AlignmentFilter:
    """What smoothing leaves to the next frame.

    crop_from_frame: smoothed, float64 [2, 3]. measured: the last unsmoothed one. velocity: float64 [4], smoothed motion
    of the measured crop in crop pixels a second, as from `motion_px`. captured_ns: of the last frame. frames: how many
    frames the filter has seen.
    """

    crop_from_frame: Affine
    measured: Affine
    velocity: NDArray[np.float64]
    captured_ns: int
    frames: int


def start(measured: Affine, captured_ns: int) -> AlignmentFilter:
    """The filter on a track's first frame, where the smoothed crop is the measured one."""
    return AlignmentFilter(measured, measured, np.zeros(4), captured_ns, frames=1)


def advance(state: AlignmentFilter, measured: Affine, captured_ns: int) -> AlignmentFilter:
    """The filter after one more frame.

    measured: the frame's unsmoothed `crop_from_frame`. captured_ns: its time; gaps of any length are allowed, equal or
    backward timestamps count as `NOMINAL_INTERVAL_S`.
    """
    interval_s = (captured_ns - state.captured_ns) * 1e-9
    interval_s = max(interval_s, MIN_INTERVAL_S) if interval_s > 0.0 else NOMINAL_INTERVAL_S
    velocity = motion_px(state.measured, measured) / interval_s
    velocity = state.velocity + _gain(SPEED_CUTOFF_HZ, interval_s) * (velocity - state.velocity)
    excess = max(float(np.linalg.norm(velocity)) - REST_SPEED_PX, 0.0)
    gain = _gain(MIN_CUTOFF_HZ + CUTOFF_PER_SPEED2 * excess**2, interval_s)
    frames = state.frames + 1
    if frames <= SETTLING_FRAMES:
        gain = max(gain, 1.0 / frames)
    step = gain * motion_px(state.crop_from_frame, measured)
    smoothed = dragged(moved(state.crop_from_frame, step), measured, MAX_ERROR_PX, CROP_SIZE)
    return AlignmentFilter(smoothed, measured, velocity, captured_ns, frames)


def motion_px(before: Affine, after: Affine, size: int = CROP_SIZE) -> NDArray[np.float64]:
    """How a square moved between two `square_from_frame` transforms, in its own pixels; float64 [4].

    size: pixels along the square's side. Returns (shift x, shift y, growth, turn) along the axes of the square before;
    growth is the change of log scale and turn that of the angle, both times the distance of the corners from the
    centre, so that the norm is (to first order) the root mean square motion of the four corners.
    """
    centre = np.full((1, 2), (size - 1) / 2.0)
    before_from_after = compose(before, invert_affine(after))
    shift = (transform_points(before_from_after, centre) - centre)[0]
    cosine, sine = before_from_after[:, 0]
    radius = size / math.sqrt(2.0)
    growth = 0.5 * math.log(cosine * cosine + sine * sine)
    return np.array([shift[0], shift[1], radius * growth, radius * math.atan2(sine, cosine)])


def moved(before: Affine, motion: NDArray[np.float64], size: int = CROP_SIZE) -> Affine:
    """The `square_from_frame` transform that lies `motion` (as from `motion_px`) away from `before`, float64 [2, 3]."""
    radius = size / math.sqrt(2.0)
    angle, scale = motion[3] / radius, math.exp(motion[2] / radius)
    half_axis = 0.5 * size * scale * np.array([math.cos(angle), math.sin(angle)])
    centre = (size - 1) / 2.0 + motion[:2]
    return compose(square_from_frame(centre, half_axis, size), before)


def dragged(before: Affine, target: Affine, slack_px: float, size: int) -> Affine:
    """The square moved towards `target` just far enough to be within `slack_px` of it; unmoved when it already is."""
    motion = motion_px(before, target, size)
    distance = float(np.linalg.norm(motion))
    return before if distance <= slack_px else moved(before, motion * (1.0 - slack_px / distance), size)


def _gain(cutoff_hz: float, interval_s: float) -> float:
    """Share of the innovation that a first-order low-pass takes over in one step, in (0, 1)."""
    return 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff_hz * interval_s))
