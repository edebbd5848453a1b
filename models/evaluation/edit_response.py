"""Whether a slider does on a lighter generator what it does on the 1024 px network that its direction was found for."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.scorers import Crops
from models.training.directions import Slider

Maker = Callable[[NDArray[np.float32]], Crops]
"""Codes [N, L, 512] -> their pictures."""


class Scorers(Protocol):
    """What is needed of `models.scorers.FaceScorers`."""

    def score(self, crops: Crops) -> Mapping[str, NDArray[np.float32]]:
        """Every score of each crop, [B] a name."""
        ...


def edit_responses(
    makers: Mapping[str, Maker], sliders: Mapping[str, Slider], codes: NDArray[np.float32], scorers: Scorers
) -> dict[str, dict[str, float]]:
    """By slider, then by maker: how far +1 moves the slider's own score, a mean over codes, in the score's unit.

    codes: [N, L, 512], all rows alike. A direction of fewer rows goes on as in its last one.
    """
    before = {name: scorers.score(make(codes)) for name, make in makers.items()}
    moved: dict[str, dict[str, float]] = {}
    for slider_name, slider in sliders.items():
        offset = slider.offset(1.0)
        rows = np.minimum(np.arange(codes.shape[1]), len(offset) - 1)
        edited = codes + offset[rows].astype(np.float32)
        own = slider.recipe.score
        moved[slider_name] = {
            name: float(np.mean(scorers.score(make(edited))[own] - before[name][own])) for name, make in makers.items()
        }
    return moved
