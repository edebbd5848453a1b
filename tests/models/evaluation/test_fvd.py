"""FVD's formula against SciPy's matrix root and against figures known for it; windows; pooling over clips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from models.evaluation.fvd import (
    MIN_WINDOWS,
    SHORTEST_CLIP,
    ClipFeatures,
    WindowReader,
    frechet_distance,
    fvd_scores,
    window_starts,
)
from models.i3d import FRAMES, SIZE_PX
from tests.engine.fakes import picture


def gaussian(count: int, dimensions: int, seed: int) -> NDArray[np.float64]:
    """A sample of a Gaussian with a mean and a full covariance of its own."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions)) / dimensions**0.5
    return rng.normal(size=(count, dimensions)) @ mixing + rng.normal(size=dimensions)


def by_the_book(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The definition, term by term, with SciPy's root of the product of the covariances."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(sqrtm(first @ second))
    return float(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + np.trace(first + second - 2 * root))


@pytest.mark.parametrize(("n", "m", "dimensions"), [(60, 60, 8), (50, 90, 12), (40, 41, 30)])
def test_against_scipy(n: int, m: int, dimensions: int) -> None:
    a, b = gaussian(n, dimensions, 1), gaussian(m, dimensions, 2)
    assert frechet_distance(a, b) == pytest.approx(by_the_book(a, b), rel=1e-6)


def test_against_scipy_with_fewer_windows_than_dimensions() -> None:
    """The covariances are singular. A little noise on every axis, the same for both, lets SciPy's root exist."""
    a, b = gaussian(12, 40, 3), gaussian(9, 40, 4)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    between = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    values = []
    for noise in (1e-4, 1e-6):
        ridge = noise * np.eye(40)
        root = np.real(sqrtm((first + ridge) @ (second + ridge)))
        values.append(between + np.trace(first + second + 2 * ridge - 2 * root))
    assert values[0] < values[1] < frechet_distance(a, b)
    assert frechet_distance(a, b) == pytest.approx(values[1], rel=1e-2)


def test_gaussians_with_a_closed_form() -> None:
    """Independent axes: |mu1 - mu2|^2 + sum (s1 - s2)^2. Two points at +-s/sqrt(2) have standard deviation s."""
    signs = np.array([[x, y] for x in (-1, 1) for y in (-1, 1)]) * np.sqrt(3) / 2
    a, b = signs * [2.0, 5.0], signs * [3.0, 1.0] + [10.0, 0.0]
    assert frechet_distance(a, b) == pytest.approx(100 + 1 + 16, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 3) == pytest.approx(18, rel=1e-12)


@pytest.mark.parametrize(("count", "expected", "tolerance"), [(23, 680, 15), (2048, 39, 2)])
def test_the_bias_of_small_samples(count: int, expected: float, tolerance: float) -> None:
    """Two samples of the same 400-d Gaussian, whose distance is known to fall from 680 to 39."""
    a, b = np.random.default_rng(5).normal(size=(2, count, 400))
    assert frechet_distance(a, b) == pytest.approx(expected, abs=tolerance)


def test_windows_are_spread_over_the_clip() -> None:
    assert window_starts(39, 16) == [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23]
    assert window_starts(99, 6) == [0, 17, 33, 50, 66, 83]
    assert window_starts(FRAMES, 16) == [0]
    assert window_starts(FRAMES - 1, 16) == []
    assert len(window_starts(SHORTEST_CLIP, 16)) == MIN_WINDOWS


def test_reader_cuts_windows_and_gives_the_network_its_range() -> None:
    seen = []

    def logits(window: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(window)
        return np.array([[window.min(), window[0, 0, 0].mean()]], np.float32)

    clip = np.stack([np.full((256, 256, 3), 10 * n, np.uint8) for n in range(20)])
    clip[..., 2] = 255
    features = WindowReader(logits, limit=3).read(clip)
    assert [window.shape for window in seen] == [(1, 3, FRAMES, SIZE_PX, SIZE_PX)] * 3
    assert seen[0].dtype == np.float32
    # Windows begin at frames 0, 2 and 4, whose red is at 0, 20 and 40 of 255.
    expected = np.array([0, 20, 40]) / 127.5 - 1
    np.testing.assert_allclose(features, np.stack([expected, expected], axis=1), atol=1e-6)
    np.testing.assert_allclose(seen[0][0, 2], 1.0)
    assert WindowReader(logits, limit=3).read(clip[:15]).shape[0] == 0


def features(count: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, 20))


def test_scores_of_one_clip() -> None:
    clip = ClipFeatures(features(8, 1), features(8, 2), features(8, 3) + 1)
    assert fvd_scores([clip]) == {
        "fvd": frechet_distance(clip.source, clip.inversion),
        "fvd_edit": frechet_distance(clip.source, clip.edit),
        "fvd_floor": frechet_distance(clip.source[:4], clip.source[4:]),
        "windows": 8,
    }


def test_clips_are_pooled_and_short_ones_left_out() -> None:
    clips = [ClipFeatures(*(features(count, 10 * count + n) for n in range(3))) for count in (5, 6, 3)]
    pooled = fvd_scores(clips)
    source = np.concatenate([clips[0].source, clips[1].source])
    assert pooled["windows"] == 11
    assert pooled["fvd"] == frechet_distance(source, np.concatenate([clips[0].inversion, clips[1].inversion]))
    earlier = np.concatenate([clips[0].source[:2], clips[1].source[:3]])
    later = np.concatenate([clips[0].source[2:], clips[1].source[3:]])
    assert pooled["fvd_floor"] == frechet_distance(earlier, later)
    assert fvd_scores(clips[2:]) == {}


def test_one_window_has_no_covariance() -> None:
    with pytest.raises(AssertionError, match="covariance"):
        frechet_distance(features(1, 0), features(5, 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_more_damage_is_a_larger_distance(pinned: Callable[[str], Path]) -> None:
    pinned("i3d")
    rng = np.random.default_rng(0)
    clip = np.stack([np.roll(picture(3, 256, 256), 5 * n, axis=1) for n in range(24)])
    reader = WindowReader.load(limit=6)
    exact, coarse = reader.read(clip), WindowReader.load(limit=6, fast=True).read(clip)
    assert exact.shape == (6, 400)
    distances = [
        frechet_distance(exact, reader.read(np.clip(clip + rng.normal(0, sigma, clip.shape), 0, 255).astype(np.uint8)))
        for sigma in (1, 10, 40)
    ]
    assert 0 < distances[0] < distances[1] < distances[2]
    # bfloat16 is no more than the least of these.
    assert frechet_distance(exact, coarse) < distances[1] / 4
