"""Whether one variant beats another on the same clips: paired differences with a bootstrap interval over the clips.

Clips differ far more from each other than variants do, so that means of their own say little; the differences within
each clip do. Percentile bootstrap: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.evaluation.report import Block

RESAMPLES = 10_000
LEVEL = 0.95
LEAST_CLIPS = 5
"""Fewer give no verdict: five clips that all agree happen by chance once in 16 times, three once in four."""
_SEED = 0

COMPARISONS = (
    ("full", "per_frame", "warp_error"),
    ("full", "per_frame", "warp_error_shown"),
    ("full", "unsteadied", "warp_error_shown"),
    ("full", "per_frame", "mse_x100"),
    ("full", "no_nm", "mse_x100"),
)
"""(a, b, metric): what is said of a - b. Smaller is better in all of them."""


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over the clips and its interval [low, high]; better: on how many clips a is below b."""

    mean: float
    low: float
    high: float
    clips: int
    better: int

    @property
    def verdict(self) -> str:
        """What the interval says, smaller being better; nothing for few clips, where it is too narrow."""
        if self.clips < LEAST_CLIPS:
            return "too few clips"
        return "a beats b" if self.high < 0 else "b beats a" if self.low > 0 else "undecided"


def paired_difference(a: ArrayLike, b: ArrayLike, resamples: int = RESAMPLES, level: float = LEVEL) -> Difference:
    """The difference of two metrics' values on the same clips, [N] each, N >= 2.

    Whole clips are drawn with replacement, `resamples` times from a fixed seed; the interval is that of the middle
    `level` of the means.
    """
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    count = len(differences)
    assert count >= 2, "one clip has no spread"
    drawn = np.random.default_rng(_SEED).integers(count, size=(resamples, count))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(differences[drawn].mean(axis=1), (tail, 1.0 - tail))
    return Difference(float(differences.mean()), float(low), float(high), count, int(np.sum(differences < 0)))


def compare_variants(runs: Sequence[Block]) -> list[Block]:
    """`COMPARISONS` within each bundle that has both variants on two clips or more, one block each.

    runs: blocks of one training each bundle, its parts switched off at run time.
    """
    values: dict[tuple[str, str], dict[str, Block]] = {}
    for run in runs:
        values.setdefault((run["bundle"], run["variant"]), {})[run["clip"]] = run
    blocks = []
    for bundle in dict.fromkeys(run["bundle"] for run in runs):
        for a, b, metric in COMPARISONS:
            ours, theirs = values.get((bundle, a), {}), values.get((bundle, b), {})
            shared = [clip for clip in ours if clip in theirs]
            if len(shared) >= 2:
                of_a, of_b = ([side[clip][metric] for clip in shared] for side in (ours, theirs))
                blocks.append({"bundle": bundle, "a": a, "b": b, "metric": metric, **_comparison(of_a, of_b)})
    return blocks


def _comparison(of_a: Sequence[float], of_b: Sequence[float]) -> Block:
    found = paired_difference(of_a, of_b)
    return {
        "mean_a": float(np.mean(of_a)),
        "mean_b": float(np.mean(of_b)),
        "mean_difference": found.mean,
        "low": found.low,
        "high": found.high,
        "clips": found.clips,
        "clips_a_better": found.better,
        "verdict": found.verdict,
    }
