"""From fitted directions to the bundle's file, with a drawn world in place of the generator."""

from dataclasses import dataclass

import numpy as np
import pytest

from engine.assets import is_cached
from models.training.direction_fit import ScoreTable, fit_code_model
from models.training.direction_measure import Bench, Effect, Faces
from models.training.directions import (
    COMMON_HELD,
    RECIPES,
    Recipe,
    Slider,
    find_sliders,
    generator_id,
    measure_sliders,
    responds,
    write_directions,
)

ROWS, WIDTH, NAMES = 4, 6, ("age", "smile")
WEIGHTS = np.random.default_rng(5).normal(size=(ROWS, WIDTH, 2)) / 4.0


@dataclass(frozen=True)
class DrawnBench(Bench):
    """Scores are saturating functions of the code itself; nothing is rendered."""

    def faces(self, ws: np.ndarray) -> Faces:
        scores = np.einsum("nld,ldk->nk", ws, WEIGHTS)
        scores[:, 1] += 0.3 * scores[:, 0]
        named = {name: np.asarray(6.0 * np.tanh(scores[:, k] / 6.0), np.float32) for k, name in enumerate(NAMES)}
        return Faces(ws, np.zeros((len(ws), 1, 1, 3), np.uint8), {**named, "face": np.ones(len(ws), np.float32)})

    def _mean_distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return 0.1


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Slider], DrawnBench]:
    codes = np.random.default_rng(6).normal(size=(3000, WIDTH)).astype(np.float32)
    blank = DrawnBench(None, None, None, None)  # type: ignore[arg-type]
    scores = dict(blank.faces(np.repeat(codes[:, None], ROWS, axis=1)).scores)
    del scores["face"]
    table = ScoreTable.of(scores)
    bench = DrawnBench(None, None, None, table)  # type: ignore[arg-type]
    recipes = {name: HeldRecipe(name.title(), name, (0, ROWS)) for name in NAMES}
    probe = bench.faces(np.repeat(codes[:32, None], ROWS, axis=1))
    return find_sliders(recipes, fit_code_model(codes, table), bench, probe, {}), bench


@dataclass(frozen=True)
class HeldRecipe(Recipe):
    """A recipe that holds the other score of the drawn world."""

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(name for name in NAMES if name != self.score)


def test_a_unit_is_a_deviation_and_the_other_score_stands_still(found: tuple[dict[str, Slider], DrawnBench]) -> None:
    sliders, bench = found
    unseen = np.random.default_rng(7).normal(size=(64, 1, WIDTH)).astype(np.float32).repeat(ROWS, axis=1)
    base = bench.faces(unseen)
    for column, name in enumerate(NAMES):
        effect = bench.effect(base, sliders[name].direction)
        assert effect.change[column] == pytest.approx(1.0, abs=0.3)
        assert abs(effect.change[1 - column]) < 0.2
        assert sliders[name].lo < 0 < sliders[name].hi


def test_sliders_respond_both_ways(found: tuple[dict[str, Slider], DrawnBench]) -> None:
    sliders, bench = found
    base = bench.faces(np.zeros((4, ROWS, WIDTH), np.float32))
    for name, (down, up) in measure_sliders(sliders, bench, base).items():
        own = NAMES.index(name)
        assert down.change[own] < -1.0
        assert up.change[own] > 1.0
        assert responds(sliders[name], (down, up), bench.table)


def test_a_slider_that_hardly_moves_its_score_is_not_shipped(found: tuple[dict[str, Slider], DrawnBench]) -> None:
    sliders, bench = found
    weak = tuple(Effect(np.array([change, 3.0]), np.zeros(2), {}, 1.0, 0.1) for change in (-0.9, 0.9))
    assert not responds(sliders["age"], weak, bench.table)


def test_the_file_holds_what_the_bundle_reads(tmp_path) -> None:
    if not is_cached("synthesis_bin"):
        pytest.skip("the generator is not in the cache")
    slider = Slider(RECIPES["smile"], np.ones((12, 512)), -2.0, 3.0)
    write_directions(tmp_path / "directions.npz", {"smile": slider})
    with np.load(tmp_path / "directions.npz", allow_pickle=False) as stored:
        assert stored["smile.direction"].shape == (12, 512)
        assert stored["smile.direction"].dtype == np.float32
        assert stored["smile.range"].tolist() == [-2.0, 3.0]
        assert str(stored["smile.label"]) == "Smile"
        assert str(stored["generator_id"]) == generator_id()
    assert [path.name for path in tmp_path.iterdir()] == ["directions.npz"]


def test_offsets_follow_the_slider() -> None:
    slider = Slider(RECIPES["smile"], np.ones((2, 3)), -2.0, 3.0)
    assert slider.offset(0.5) == pytest.approx(np.full((2, 3), 1.5))
    assert slider.offset(-0.5) == pytest.approx(np.full((2, 3), -1.0))
    assert not slider.offset(0.0).any()


def test_every_recipe_moves_what_it_does_not_hold() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.score not in recipe.held, name
        assert set(recipe.held) <= set(COMMON_HELD)
        assert set(recipe.free) <= set(COMMON_HELD), f"{name} frees something that nobody holds"
        assert 0 <= recipe.rows[0] < recipe.rows[1] <= 12
