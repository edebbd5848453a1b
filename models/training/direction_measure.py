"""What a direction does to faces that it was not fitted on: render, score, compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.identity import FaceIdentity
from models.perceptual import StLpips
from models.pictures import pictures_from
from models.scorers import Crops, FaceScorers
from models.training.direction_fit import ScoreTable

Render = Callable[..., NDArray[np.float32]]
"""A generator without noise map: ws float32 [2, L, 512] -> images float32 RGB [2, 3, 256, 256] in [-1, 1]."""

RENDER_BATCH = 2
_DISTANCE_PX = 128
_DISTANCE_FACES = 8
"""The distance costs as much as all scores together, and its mean is steady over few faces."""


@dataclass(frozen=True)
class Faces:
    """Codes with what was rendered from them. ws: [N, L, 512]. crops: uint8 [N, 256, 256, 3]. scores: [N] a name.
    people: embeddings [N, E]."""

    ws: NDArray[np.float32]
    crops: Crops
    scores: Mapping[str, NDArray[np.float32]]
    people: NDArray[np.float32]


@dataclass(frozen=True)
class Effect:
    """The mean effect of one move on N faces.

    change: [K], mean change of each score, in standard deviations of the samples. spread: [K], its deviation over the
    faces. kept: [K], how far the moved faces still differ in it as the unmoved ones do (the slope of least squares): of
    a mouth, whether it still speaks. raw: mean change by score in the score's own unit. presence: mean certainty that
    there is still a face. distance: mean ST-LPIPS to the unmoved face, over the first eight. people: [N, E], how the
    embeddings change.
    """

    change: NDArray[np.float64]
    spread: NDArray[np.float64]
    kept: NDArray[np.float64]
    raw: Mapping[str, float]
    presence: float
    distance: float
    people: NDArray[np.float32]


@dataclass(frozen=True)
class Bench:
    """Renders, scores and compares. table: the samples' scores, whose deviations are the units of every change."""

    render: Render
    scorers: FaceScorers
    distance: StLpips
    identity: FaceIdentity
    table: ScoreTable

    def faces(self, ws: NDArray[np.float32]) -> Faces:
        """Render and score codes [N, L, 512]."""
        return self._scored(ws, self._rendered(ws))

    def effect(self, base: Faces, offset: NDArray[np.floating], seen: NDArray[np.float32] | None = None) -> Effect:
        """What adding `offset` [L, 512] to every code of `base` changes.

        seen: how much of it is shown at each place, [0, 1] [256, 256], `Recipe.seen`; None for all.
        """
        ws = base.ws + offset.astype(np.float32)
        crops = self._rendered(ws)
        moved = self._scored(ws, crops if seen is None else laid_over(base.crops, crops, seen))
        change = {name: moved.scores[name] - base.scores[name] for name in base.scores}
        deviations, differing = self.table.in_deviations(change), self.table.in_deviations(base.scores)
        differing -= differing.mean(axis=0)
        return Effect(
            change=deviations.mean(axis=0),
            spread=deviations.std(axis=0),
            kept=1.0 + (differing * deviations).sum(axis=0) / np.maximum(np.square(differing).sum(axis=0), 1e-9),
            raw={name: float(values.mean()) for name, values in change.items()},
            presence=float(moved.scores["face"].mean()),
            distance=self._mean_distance(base.crops[:_DISTANCE_FACES], moved.crops[:_DISTANCE_FACES]),
            people=moved.people - base.people,
        )

    def _rendered(self, ws: NDArray[np.float32]) -> Crops:
        return render_crops(self.render, ws)

    def _scored(self, ws: NDArray[np.float32], crops: Crops) -> Faces:
        return Faces(ws, crops, self.scorers.score(crops), self.identity.embed(crops))

    @torch.inference_mode()
    def _mean_distance(self, a: Crops, b: Crops) -> float:
        size, step = _DISTANCE_PX, 256 // _DISTANCE_PX
        pairs = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1.0 for crops in (a, b))
        small = [torch.nn.functional.avg_pool2d(images, step) for images in pairs]
        assert small[0].shape[-1] == size
        return float(self.distance(*small).mean())


def render_crops(render: Render, ws: NDArray[np.float32]) -> Crops:
    """Crops of codes [N, L, 512], rendered two at a time; an odd last one is rendered twice."""
    crops = []
    for start in range(0, len(ws), RENDER_BATCH):
        pair = ws[start : start + RENDER_BATCH]
        padded = pair[np.minimum(np.arange(RENDER_BATCH), len(pair) - 1)]
        crops.append(pictures_from(render(np.ascontiguousarray(padded)))[: len(pair)])
    return np.concatenate(crops)


def laid_over(base: Crops, moved: Crops, seen: NDArray[np.float32]) -> Crops:
    """Crops [N, S, S, 3] of what was moved over those of what it was, as far as it is seen, [0, 1] [S, S]."""
    return np.rint(base + seen[..., None] * (moved.astype(np.float32) - base)).astype(np.uint8)


@dataclass(frozen=True)
class RangeLimits:
    """How far a slider may go.

    presence: least certainty that there is a face. distance: furthest mean ST-LPIPS from the unmoved face. leak:
    largest mean change of a held score, in standard deviations. leak_share: the same as a share of the own change,
    where that allows more. gain: least share of the first step's effect, for its length, that a further one must still
    add. threshold: the effect appears at a threshold, so that small steps may do nothing.
    """

    presence: float = 0.98
    distance: float = 0.3
    leak: float = 0.5
    leak_share: float = 0.25
    gain: float = 0.15
    threshold: bool = False


def usable_step(
    steps: Sequence[float], effects: Sequence[Effect], own: int, held: Sequence[int], limits: RangeLimits
) -> float:
    """The furthest of the rising `steps` (one sign) up to which every effect is acceptable; 0 when not even the first.

    Acceptable is: a face is there, it is still near its own picture, no held score leaks, and the own score goes on
    changing in the step's sense.
    """
    usable, reached, before, first = 0.0, 0.0, 0.0, None
    for step, effect in zip(steps, effects, strict=True):
        moved = float(effect.change[own]) * np.sign(step)
        leak = float(np.abs(effect.change[list(held)]).max(initial=0.0))
        if effect.presence < limits.presence or effect.distance > limits.distance:
            break
        if leak > max(limits.leak, limits.leak_share * moved):
            break
        rate = (moved - reached) / abs(step - before)
        stalls = moved <= 0 or (first is not None and rate < limits.gain * first)
        if stalls and not limits.threshold:
            break
        if not stalls:
            usable = step
        reached, before, first = moved, step, rate if first is None else first
    return usable


def leakage(
    effects: Mapping[str, tuple[Effect, Effect]], own: Mapping[str, int], held: Mapping[str, Sequence[int]]
) -> dict[str, tuple[str, float]]:
    """For each slider the one that it drags furthest of those whose scores it holds: its name, and how far.

    effects: of each slider at -1 and +1. own: the score that each moves. held: the scores that each leaves alone. How
    far is the larger mean change of the two ends, as a share of the dragged slider's own range from -1 to +1.
    """
    spans = {name: float(up.change[own[name]] - down.change[own[name]]) for name, (down, up) in effects.items()}
    leaks = {}
    for name, ends in effects.items():
        shares = {
            other: max(abs(float(end.change[own[other]])) for end in ends) / max(spans[other], 1e-9)
            for other in effects
            if other != name and own[other] in held[name]
        }
        leaks[name] = max(shares.items(), key=lambda row: row[1], default=("", 0.0))
    return leaks
