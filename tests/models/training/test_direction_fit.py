"""The algebra of directions, on codes whose scores are known linear functions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.training.direction_fit import (
    DRIFT,
    CodeModel,
    ScoreTable,
    conditioned_direction,
    corrected_directions,
    fit_code_model,
    in_rows,
    matrix_power,
    row_gains,
)

WIDTH = 12
NAMES = ("age", "smile", "glasses")
STILL = np.zeros((3, 1))
"""Directions that leave everybody who they are."""


EMBEDDING = np.random.default_rng(9).normal(size=(WIDTH, 5))
"""What the embedding of a face is of its code, linearly."""


def world(count: int = 4000, noise: float = 0.3) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Correlated codes [N, 12] and three scores that are noisy linear functions of them, two of them entangled."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(WIDTH, WIDTH)) * np.linspace(2.0, 0.8, WIDTH)
    ws = rng.normal(size=(count, WIDTH)) @ mixing.T + 5.0
    normals = rng.normal(size=(WIDTH, 3))
    normals[:, 2] = 0.8 * normals[:, 0] + 0.4 * normals[:, 2]
    clean = ws @ normals
    scores = clean + noise * clean.std(axis=0) * rng.normal(size=clean.shape)
    return ws.astype(np.float32), {name: scores[:, k].astype(np.float32) for k, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def model() -> CodeModel:
    ws, scores = world()
    return fit_code_model(ws, ScoreTable.of(scores), ws @ EMBEDDING, ridge=1e-4)


def true_response(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change of each noiseless score along a direction, in deviations of the noisy scores."""
    ws, scores = world(noise=0.0)
    table = ScoreTable.of(world()[1])
    basis = np.linalg.lstsq(ws - ws.mean(axis=0), np.stack([scores[name] for name in NAMES], axis=1), rcond=None)[0]
    return (direction @ basis) / table.deviation


# Bare normals amplify the noise of the regression where codes hardly vary; the covariance tames it.
@pytest.mark.parametrize(("power", "leak"), [(0.0, 0.25), (0.5, 0.1), (1.0, 0.1)])
def test_a_conditioned_direction_moves_its_own_score_alone(model: CodeModel, power: float, leak: float) -> None:
    response = true_response(conditioned_direction(model, "age", ("smile", "glasses"), power))
    assert response[0] == pytest.approx(1.0, abs=0.15)
    assert np.abs(response[1:]).max() < leak


def test_without_conditioning_the_entangled_score_comes_along(model: CodeModel) -> None:
    response = true_response(conditioned_direction(model, "age", (), 0.5))
    assert response[0] == pytest.approx(1.0, abs=0.1)
    assert response[2] > 0.4


def test_more_of_the_covariance_keeps_closer_to_how_codes_vary(model: CodeModel) -> None:
    inverse = np.linalg.inv(model.covariance)
    unlikeliness = [
        d @ inverse @ d for d in (conditioned_direction(model, "age", ("glasses",), p, 0.0) for p in (0.0, 0.5, 1.0))
    ]
    assert unlikeliness[0] > unlikeliness[1] > unlikeliness[2]


def test_the_more_likeness_counts_the_less_the_embedding_moves(model: CodeModel) -> None:
    codes = world()[0] - world()[0].mean(axis=0)
    assert np.linalg.norm(codes @ (model.people - EMBEDDING)) < 0.05 * np.linalg.norm(codes @ EMBEDDING)
    found = [conditioned_direction(model, "age", ("smile",), 0.5, weight) for weight in (0.0, 0.3, 3.0)]
    moved = [np.linalg.norm(direction @ EMBEDDING) for direction in found]
    assert moved[0] > moved[1] > moved[2]
    for direction in found:
        assert direction @ model.normals[:, :2] == pytest.approx([1.0, 0.0], abs=1e-6)


def test_explained_is_what_the_noise_leaves(model: CodeModel) -> None:
    assert model.explained == pytest.approx(1 / (1 + 0.3**2), abs=0.04)
    rng = np.random.default_rng(1)
    ws, _ = world()
    table = ScoreTable.of({"luck": rng.normal(size=len(ws)).astype(np.float32)})
    luck = fit_code_model(ws, table, np.empty((len(ws), 0), np.float32))
    assert luck.explained[0] < 0.02


def test_an_outlier_is_brought_back() -> None:
    values = np.zeros(1000, dtype=np.float32)
    values[0] = 1000.0
    assert np.abs(ScoreTable.of({"age": values}).values).max() == 3.0


def test_changes_are_counted_in_the_samples_deviations() -> None:
    table = ScoreTable.of({"age": np.array([20.0, 40.0], dtype=np.float32)})
    assert table.in_deviations({"age": np.array([30.0], dtype=np.float32)})[0, 0] == pytest.approx(3.0)


def test_measured_leaks_are_taken_out_and_the_effect_stays() -> None:
    rng = np.random.default_rng(2)
    directions = rng.normal(size=(3, 4, 8))
    # Each direction moves score 0, 1, 2 as the rows say; each should move only its own.
    response = np.array([[1.0, 0.4, 0.0], [0.3, 1.0, -0.3], [0.0, 0.5, 1.0]])
    corrected = corrected_directions(
        directions, response, STILL[: len(directions)], own=[0, 1, 2], held=[[1, 2], [0, 2], [0, 1]]
    )
    # Responses are linear in the directions, so the mixture of directions is the mixture of responses.
    mixture = np.linalg.lstsq(directions.reshape(3, -1).T, corrected.reshape(3, -1).T, rcond=None)[0].T
    after = mixture @ response
    off_diagonal = ~np.eye(3, dtype=bool)
    assert np.abs(after[off_diagonal]).max() < 0.4 * np.abs(response[off_diagonal]).max()
    assert np.diag(after).min() > 0.8


def test_a_direction_that_is_not_wanted_still_takes_leaks_out() -> None:
    directions = np.eye(2)[:, None, :]
    response = np.array([[1.0, 0.6], [0.0, 1.0]])
    corrected = corrected_directions(directions, response, STILL[: len(directions)], own=[0], held=[[1]])
    assert corrected.shape == (1, 1, 2)
    assert corrected[0, 0] == pytest.approx([1.0, -0.6 / 1.05])


def test_what_leads_away_from_the_person_is_taken_out_too() -> None:
    """Another direction that changes the person the other way, and no score, is added."""
    directions, response = np.eye(2)[:, None, :], np.array([[1.0], [0.0]])
    drift = np.array([[0.5, 0.2], [-0.5, 0.0]])
    corrected = corrected_directions(directions, response, drift, own=[0], held=[[]])
    amount = corrected[0, 0, 1]
    assert corrected[0, 0, 0] == 1.0
    assert amount == pytest.approx(DRIFT * 0.25 / (DRIFT * 0.25 + 0.05))
    # Not at the price of its own effect.
    response[1] = 1.0
    assert corrected_directions(directions, response, drift, own=[0], held=[[]])[0, 0, 1] < 0.6 * amount


def test_a_free_score_is_not_corrected() -> None:
    directions = np.eye(2)[:, None, :]
    response = np.array([[1.0, 0.9], [0.0, 1.0]])
    corrected = corrected_directions(directions, response, STILL[: len(directions)], own=[0, 1], held=[[], [0]])
    assert corrected[0] == pytest.approx(directions[0], abs=1e-9)


def test_matrix_power_inverts_and_splits() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(6, 6))
    covariance = root @ root.T + np.eye(6)
    assert matrix_power(covariance, 1.0) == pytest.approx(covariance)
    assert matrix_power(covariance, 0.5) @ matrix_power(covariance, 0.5) == pytest.approx(covariance)
    assert matrix_power(covariance, 0.0) == pytest.approx(np.eye(6), abs=1e-9)


def test_rows_outside_the_slice_do_not_move() -> None:
    spread = in_rows(np.arange(4.0), (2, 5), 7)
    assert spread.shape == (7, 4)
    assert np.flatnonzero(np.abs(spread).sum(axis=1)).tolist() == [2, 3, 4]
    assert spread[3].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_rows_share_a_direction_so_that_what_is_not_wanted_cancels() -> None:
    """Of three rows that do as much, one drags along, one drags the other way, one not at all."""
    each = np.array([[1.0, 0.0], [-0.2, 0.0], [0.0, 0.0]])
    own = np.array([1.0, 1.0, 1.0])
    whole = each.sum(axis=0)
    gains = row_gains(whole, whole - each, 0.0, own, damping=1e-3)
    assert gains @ each == pytest.approx([0.0, 0.0], abs=0.02)
    assert gains @ own == pytest.approx(3.0, rel=0.02)
    further = row_gains(whole, whole - each, 0.3, own, damping=1e-3)
    assert further @ own == pytest.approx(3.3, rel=0.02)


def test_no_row_turns_round() -> None:
    each = np.array([[1.0], [2.0]])
    gains = row_gains(each.sum(axis=0), each.sum(axis=0) - each, 0.0, np.array([1.0, 0.0]))
    assert (gains >= 0.0).all()
