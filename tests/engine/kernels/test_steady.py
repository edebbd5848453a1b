"""Pictures held steady by the kernel as `steadying.steadied` does."""

import cv2
import numpy as np
import pytest

from engine.geometry import CROP_SIZE
from engine.kernels.steady import steady_faces
from engine.steadying import MOTION_SIDE, steadied
from tests.engine.kernels.host_kernels import planted


def smooth(rng, count, side, scale):
    planes = [cv2.resize(rng.normal(0, scale, (7, 7)).astype(np.float32), (side, side)) for _ in range(3 * count)]
    return np.stack(planes).reshape(count, 3, side, side)


def faces(count):
    """Two frames' pictures, and motions of some pixels, some of them out of the crop; shares from none to all."""
    rng = np.random.default_rng(count)
    motions = smooth(rng, count, MOTION_SIDE, 25.0)
    motions[:, 2] = np.clip(motions[:, 2] / 50.0 + 0.5, 0.0, 1.0)
    return smooth(rng, count, CROP_SIZE, 0.5), smooth(rng, count, CROP_SIZE, 0.5), motions


def carried(bench, before, now, motions, real=np.float32):
    kernels = bench.kernels
    out = kernels.empty(before.shape, real)
    drawn = None if now is None else bench.put(now.astype(real))
    steady_faces(kernels, bench.put(before.astype(real)), drawn, bench.put(motions), out)
    return bench.get(out)


@pytest.mark.parametrize("count", [1, 4])
def test_the_mixture_is_the_definitions(bench, count):
    before, now, motions = faces(count)
    (expected,) = steadied([before], [now], list(motions))
    np.testing.assert_allclose(carried(bench, before, now, motions), expected, atol=2e-5)


def test_what_was_before_alone_is_carried_along(bench):
    before, _, motions = faces(3)
    (expected,) = steadied([before], [None], list(motions))
    np.testing.assert_allclose(carried(bench, before, None, motions), expected, atol=2e-5)


def noise():
    """Two faces of noise that have moved by quarters of a pixel, each another way."""
    rng = np.random.default_rng(0)
    before, now = rng.uniform(-1, 1, (2, 2, 3, CROP_SIZE, CROP_SIZE)).astype(np.float32)
    motions = np.zeros((2, 3, MOTION_SIDE, MOTION_SIDE), np.float32)
    motions[0] += np.array([2.25, -3.5, 0.5], np.float32)[:, None, None]
    motions[1] += np.array([-7.75, 1.25, 0.9], np.float32)[:, None, None]
    return before, now, motions


def test_noise_is_the_definitions_nearly_to_the_bit(bench):
    before, now, motions = noise()
    (expected,) = steadied([before], [now], list(motions))
    np.testing.assert_allclose(carried(bench, before, now, motions), expected, atol=1e-5)


def test_half_precision_networks(device, open_bench):
    before, now, motions = faces(2)
    (expected,) = steadied([before], [now], list(motions))
    got = carried(open_bench(device, np.float16), before, now, motions, np.float16)
    np.testing.assert_allclose(got.astype(np.float32), expected, atol=8e-3)


def test_images_of_another_type_are_refused(bench):
    with pytest.raises(AssertionError, match="float16 where float32"):
        carried(bench, *faces(1), np.float16)


MISTAKES = {
    "half a pixel off": ("float u = x + enlarged", "float u = x + 0.5f + enlarged"),
    "motion the other way": ("float v = y + enlarged", "float v = y - enlarged"),
    "the new picture carried": ("= before + ((long long)face * 3", "= now + ((long long)face * 3"),
    "the far pixel": ("left + across.rest * (right - left)", "right + across.rest * (left - right)"),
    "the shares of x": ("enlarged(motion + 2 * side * side, side", "enlarged(motion, side"),
    "the first face for all": ("motions + (long long)face * 3 * side * side", "motions"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_shows(name, open_bench):
    right, wrong = MISTAKES[name]
    bench = type(open_bench("cpu"))(planted("steady", right, wrong))
    before, now, motions = noise()
    assert np.abs(carried(bench, before, now, motions) - steadied([before], [now], list(motions))[0]).max() > 0.1
