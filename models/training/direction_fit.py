"""Directions in W from scored samples: the linear algebra, without a generator.

A score is read from the code by ridge regression, s ~ w . n (the normal n of InterfaceGAN, Shen et al., CVPR 2020). A
direction d that changes one score by a standard deviation and the held ones not at all solves n_own . d = 1,
n_held . d = 0. Many do; of these the one that is shortest in the metric Sigma^-p is taken, Sigma being the covariance
of the codes: p = 0 is InterfaceGAN's projection of the bare normals, p = 1 follows how codes really vary, which stays
among plausible faces. What a step changes of who the face is counts as length too: the code also tells the embedding
of a face recognition network, and of two directions the one that moves it less is the shorter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIKENESS, DRIFT = 0.3, 4.0
"""Weights of the embedding's change: in the metric, both matrices being of norm 1, and against leaks, in standard
deviations, where directions are recombined. Over sixteen sliders, at the effect that each had before at 1, dlib's
embedding moved by 0.45 with neither, 0.42 with the first, 0.41 with both (smile 0.39, 0.34 and 0.31), at the same
leaks. At 1.0 steps grow long, and at 12.0 leaks."""

_EQUAL = 10.0
"""Weight of what is wanted where rows are weighed: it stays what it was."""

_MOST_GAIN = 2.0

_CLIP = 3.0
"""Scores further than this many standard deviations out are brought back: one odd face must not turn a normal."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of N samples in standard deviations. names: K scores. values: [N, K]. mean, deviation: [K], raw units."""

    names: tuple[str, ...]
    values: Array
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, scores: Mapping[str, NDArray[np.float32]]) -> "ScoreTable":
        """Standardise raw scores, [N] a name."""
        raw = np.stack([np.asarray(column, dtype=np.float64) for column in scores.values()], axis=1)
        mean, deviation = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-9)
        return cls(tuple(scores), np.clip((raw - mean) / deviation, -_CLIP, _CLIP), mean, deviation)

    def in_deviations(self, change: Mapping[str, NDArray[np.float32]]) -> Array:
        """Changes of raw scores, [N] a name, in this table's standard deviations, [N, K]."""
        return np.stack([np.asarray(change[name], dtype=np.float64) for name in self.names], axis=1) / self.deviation


@dataclass(frozen=True)
class CodeModel:
    """How codes vary and what they say of the scores.

    covariance: [D, D] of the codes. normals: [D, K], the change of each score, in its standard deviations, for a step
    in W. explained: [K] R^2 on samples that were held out. names: the K scores. people: [D, E], the change of the
    embedding.
    """

    names: tuple[str, ...]
    covariance: Array
    normals: Array
    explained: Array
    people: Array


def fit_code_model(
    ws: NDArray[np.float32], scores: ScoreTable, people: NDArray[np.float32], ridge: float = 0.08, held_out: int = 5
) -> CodeModel:
    """Ridge regression of every score, and of the embeddings, on the codes.

    ws: [N, D]. people: [N, E]. ridge: as a share of the mean variance of a code's numbers. held_out: every how many-th
    sample is kept for `explained`.
    """
    test = np.arange(len(ws)) % held_out == 0
    centred = ws.astype(np.float64) - ws[~test].mean(axis=0)
    fitted, values = centred[~test], scores.values[~test] - scores.values[~test].mean(axis=0)
    embedded = people[~test] - people[~test].mean(axis=0, dtype=np.float64)
    covariance = fitted.T @ fitted / len(fitted)
    damped = covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    told = np.linalg.solve(damped, fitted.T @ np.concatenate((values, embedded), axis=1) / len(fitted))
    normals, moves = told[:, : len(scores.names)], told[:, len(scores.names) :]
    left = scores.values[test] - scores.values[~test].mean(axis=0) - centred[test] @ normals
    explained = 1.0 - left.var(axis=0) / np.maximum(scores.values[test].var(axis=0), 1e-9)
    return CodeModel(scores.names, covariance, normals, explained, moves)


def conditioned_direction(
    model: CodeModel, own: str, held: Sequence[str], power: float, likeness: float = LIKENESS
) -> NDArray[np.float64]:
    """The direction [D] whose linear response is one standard deviation on `own` and none on the `held` scores.

    power: p of the metric Sigma^-p, from 0 to 1. likeness: weight of the embedding's change in it.
    """
    columns = [model.names.index(name) for name in (own, *held)]
    normals = model.normals[:, columns]
    metric, same = (_of_norm_one(m) for m in (matrix_power(model.covariance, -power), model.people @ model.people.T))
    spread = np.linalg.solve(metric + likeness * same, normals)
    wanted = np.zeros(len(columns))
    wanted[0] = 1.0
    return spread @ np.linalg.solve(normals.T @ spread, wanted)


def _of_norm_one(matrix: Array) -> Array:
    return matrix / max(float(np.linalg.norm(matrix)), 1e-12)


def matrix_power(covariance: Array, power: float) -> Array:
    """A covariance to a real power; directions in which codes hardly vary count as a ten-thousandth of the largest."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, values[-1] * 1e-4) ** power) @ vectors.T


def corrected_directions(
    directions: Array,
    response: Array,
    drift: Array,
    own: Sequence[int],
    held: Sequence[Sequence[int]],
    penalty: float = 0.05,
) -> Array:
    """Directions recombined so that what was MEASURED leaks least and leaves the person most alike.

    directions: [A, ...], one an attribute. response: [A, K], the measured change of each score along each direction;
    drift: [A, M], of the embeddings, whose squares add up to the mean squared distance. own: the score of each
    attribute that is wanted: of the first C. held: the scores that each of these should leave alone. penalty: on the
    amounts, because the responses are measured on few faces. The result [C, ...] adds to each direction as little of
    all the others as cancels its leaks, keeps its own response and does not lead away from the person.
    """
    flat = directions.reshape(len(directions), -1)
    result = np.empty_like(flat[: len(own)])
    for a in range(len(own)):
        others = [b for b in range(len(flat)) if b != a]
        kept = [own[a], *held[a]]
        goal = -response[a, kept]
        goal[0] = 0.0
        goal = np.concatenate((goal, -(DRIFT**0.5) * drift[a]))
        system = np.concatenate((response[np.ix_(others, kept)].T, DRIFT**0.5 * drift[others].T))
        amounts = np.linalg.solve(system.T @ system + penalty * np.eye(len(others)), system.T @ goal)
        result[a] = flat[a] + amounts @ flat[others]
    return result.reshape(len(own), *directions.shape[1:])


def row_gains(unwanted: Array, without: Array, missing: float, own: Array, damping: float = 0.3) -> Array:
    """How far each row of a direction should go along, [R], so that it does least of what is not wanted of it.

    unwanted: [M], what was MEASURED of the whole direction. without: [R, M], the same without each row. missing: how
    much it should do more of what is wanted. own: [R], how much of that each row does. damping: on the gains' distance
    from 1, because effects add up only nearly. No row turns round.
    """
    each = (unwanted - without).T
    system, goal = np.vstack((each, _EQUAL * own)), np.append(-unwanted, _EQUAL * missing)
    change = np.linalg.solve(system.T @ system + damping * np.eye(len(own)), system.T @ goal)
    return np.clip(1.0 + change, 0.0, _MOST_GAIN)


def in_rows(direction: NDArray[np.float64], rows: tuple[int, int], count: int) -> NDArray[np.float64]:
    """A direction of W [D] put into the W+ rows first <= row < last of `count`: [count, D], zero in the other rows."""
    spread = np.zeros((count, len(direction)))
    spread[rows[0] : rows[1]] = direction
    return spread
