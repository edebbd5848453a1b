"""Paired differences with a bootstrap interval, against SciPy and on clips that can be counted through."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from models.evaluation.paired import LEAST_CLIPS, compare_variants, paired_difference


def test_against_scipys_percentile_bootstrap() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(5, 2, 12), rng.normal(6, 2, 12)
    found = paired_difference(a, b)
    theirs = bootstrap(((a - b),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1))
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.05)
    assert (found.clips, found.better) == (12, int(np.sum(a < b)))


def test_two_clips_can_be_counted_through() -> None:
    """Means of two draws from {-1, -3} are -1, -2 and -3 with probabilities 1/4, 1/2 and 1/4."""
    found = paired_difference([1.0, 2.0], [2.0, 5.0])
    assert (found.mean, found.low, found.high) == (-2.0, -3.0, -1.0)
    assert paired_difference([1.0, 2.0], [2.0, 5.0], level=0.4).low == -2.0


def test_the_same_clips_give_the_same_interval() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    assert paired_difference(a, b) == paired_difference(a, b)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-1.0, -2.0, -1.5, -1.0, -3.0], "a beats b"),
        ([1.0, 2.0, 1.5, 1.0, 3.0], "b beats a"),
        ([-1.0, 2.0, -1.5, 1.0, 0.5], "undecided"),
        ([-1.0, -2.0, -1.5, -1.0], "too few clips"),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    assert LEAST_CLIPS == 5
    assert paired_difference(differences, np.zeros(len(differences))).verdict == verdict


def runs(bundle: str, variant: str, values: dict[str, float]) -> list[dict[str, object]]:
    return [
        {"clip": clip, "bundle": bundle, "variant": variant}
        | {"mse_x100": value, "warp_error": 10 * value, "warp_error_shown": 20 * value}
        for clip, value in values.items()
    ]


def test_variants_are_compared_on_the_clips_that_both_have() -> None:
    blocks = compare_variants(
        [
            *runs("x", "full", {"a": 1.0, "b": 2.0, "c": 3.0}),
            *runs("x", "per_frame", {"a": 2.0, "b": 2.5}),
            *runs("x", "no_nm", {"c": 9.0}),
            *runs("y", "full", {"a": 1.0, "b": 1.0}),
        ]
    )
    assert [(block["bundle"], block["a"], block["b"], block["metric"]) for block in blocks] == [
        ("x", "full", "per_frame", "warp_error"),
        ("x", "full", "per_frame", "warp_error_shown"),
        ("x", "full", "per_frame", "mse_x100"),
    ]
    assert blocks[-1]["mean_a"] == 1.5
    assert blocks[-1]["mean_b"] == 2.25
    assert blocks[-1]["mean_difference"] == pytest.approx(-0.75)
    assert (blocks[-1]["low"], blocks[-1]["high"]) == pytest.approx((-1.0, -0.5))
    assert (blocks[-1]["clips"], blocks[-1]["clips_a_better"], blocks[-1]["verdict"]) == (2, 2, "too few clips")
