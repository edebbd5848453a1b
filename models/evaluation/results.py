"""What an evaluation found out, before it is written down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.candidates import Candidate
from models.evaluation.fvd import ClipFeatures, fvd_scores
from models.evaluation.report import Block, means
from models.evaluation.scores import Curves
from models.pictures import Pictures

GROUP = ("bundle", "variant", "ablation")
"""What a mean over clips is taken for."""


@dataclass(frozen=True)
class Outcome:
    """One clip through one candidate. inversions, edits: at the frames that the page shows."""

    candidate: Candidate
    block: Block
    curves: Curves
    features: ClipFeatures
    inversions: Pictures
    edits: Pictures


@dataclass(frozen=True)
class ClipResult:
    """One clip through all candidates.

    shown: numbers, in the clip, of the frames that the page shows; source: those frames' crops. first_scored: number of
    the first frame that is scored. source_errors: warp errors of the source itself.
    """

    name: str
    shown: Sequence[int]
    source: Pictures
    first_scored: int
    source_errors: NDArray[np.float64]
    outcomes: Sequence[Outcome]


def all_blocks(results: Sequence[ClipResult]) -> list[Block]:
    """One block for each clip and candidate."""
    return [outcome.block for result in results for outcome in result.outcomes]


def mean_blocks(results: Sequence[ClipResult]) -> list[Block]:
    """Means over the clips, and FVD once more, over the windows of all clips as one sample.

    An FVD is a number of a set of videos; the mean of the clips' own says little, their N being so small. The pooled
    ones end in `_pooled`.
    """
    features: dict[tuple[Any, ...], list[ClipFeatures]] = {}
    for result in results:
        for outcome in result.outcomes:
            features.setdefault(tuple(outcome.block[key] for key in GROUP), []).append(outcome.features)
    return [
        {**block, **{f"{name}_pooled": value for name, value in fvd_scores(features[_group(block)]).items()}}
        for block in means(all_blocks(results), GROUP)
    ]


def _group(block: Block) -> tuple[Any, ...]:
    return tuple(block[key] for key in GROUP)


def curve_blocks(results: Sequence[ClipResult]) -> list[Block]:
    """Each clip's and candidate's numbers frame by frame; None for a pair of frames without a trusted pixel."""
    return [
        {
            "clip": result.name,
            **{key: outcome.block[key] for key in GROUP},
            "first_frame": result.first_scored,
            "mse_x100": _finite(outcome.curves.mse_x100),
            "warp_error": _finite(outcome.curves.warp_error),
            "source_warp_error": _finite(result.source_errors),
        }
        for result in results
        for outcome in result.outcomes
    ]


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
