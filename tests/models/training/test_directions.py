"""From fitted directions to the bundle's file, with a drawn world in place of the generator."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BundleError, UsageError
from models.training import directions
from models.training.direction_fit import ScoreTable
from models.training.direction_measure import Bench, Effect, Faces
from models.training.direction_recipes import COMMON_HELD, RECIPES, Recipe
from models.training.directions import (
    Samples,
    Slider,
    Trial,
    add_arguments,
    find_sliders,
    fitted_direction,
    joined,
    measure_sliders,
    parted,
    read_sliders,
    responds,
    run,
    write_report,
    write_sliders,
)

ROWS, WIDTH, NAMES = 4, 6, ("age", "smile")
WEIGHTS = np.random.default_rng(5).normal(size=(ROWS, WIDTH, 2)) / 4.0


def people_of(codes: np.ndarray) -> np.ndarray:
    """Embeddings [N, 3] of codes [N, D]."""
    return np.tanh(codes[:, :3]).astype(np.float32)


class Embedder:
    """Stands for the recognition network; in the drawn world a face's picture is its code."""

    def embed(self, codes: np.ndarray) -> np.ndarray:
        return people_of(codes)


@dataclass(frozen=True)
class DrawnBench(Bench):
    """Scores are saturating functions of the code itself; nothing is rendered."""

    def _rendered(self, ws: np.ndarray) -> np.ndarray:
        return np.zeros((len(ws), 1, 1, 3), np.uint8)

    def _scored(self, ws: np.ndarray, crops: np.ndarray) -> Faces:
        scores = np.einsum("nld,ldk->nk", ws, WEIGHTS)
        scores[:, 1] += 0.3 * scores[:, 0]
        named = {name: np.asarray(6.0 * np.tanh(scores[:, k] / 6.0), np.float32) for k, name in enumerate(NAMES)}
        present = np.ones(len(ws), np.float32)
        return Faces(ws, crops, {**named, "face": present}, people_of(ws.mean(axis=1)))

    def _mean_distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return 0.1


@dataclass(frozen=True)
class HeldRecipe(Recipe):
    """A recipe that holds the other score of the drawn world."""

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(name for name in NAMES if name != self.score)

    @property
    def seen(self) -> np.ndarray:
        return np.ones((1, 1), np.float32)


@dataclass(frozen=True)
class FittedRecipe(HeldRecipe):
    """One whose rows are left as the fit has them."""

    @property
    def weighed(self) -> bool:
        return False


DRAWN_RECIPES = {name: HeldRecipe(name.title(), name, (0, ROWS)) for name in NAMES}


def drawn_world() -> tuple[np.ndarray, dict[str, np.ndarray], DrawnBench]:
    """Codes [3000, 6], their scores, and the bench that measures them."""
    codes = np.random.default_rng(6).normal(size=(3000, WIDTH)).astype(np.float32)
    blank = DrawnBench(None, None, None, None, None)  # type: ignore[arg-type]
    scores = dict(blank.faces(np.repeat(codes[:, None], ROWS, axis=1)).scores)
    del scores["face"]
    return codes, scores, DrawnBench(None, None, None, Embedder(), ScoreTable.of(scores))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Slider], DrawnBench]:
    codes, _, bench = drawn_world()
    probe = bench.faces(np.repeat(codes[:32, None], ROWS, axis=1))
    trial = Trial(bench, probe, {}, probe)
    recipes = {name: FittedRecipe(name.title(), name, (0, ROWS)) for name in NAMES}
    return find_sliders(recipes, Samples(codes, bench.table, people_of(codes)), trial, {}), bench


def test_a_unit_is_a_deviation_and_the_other_score_stands_still(found: tuple[dict[str, Slider], DrawnBench]) -> None:
    sliders, bench = found
    unseen = np.random.default_rng(7).normal(size=(64, 1, WIDTH)).astype(np.float32).repeat(ROWS, axis=1)
    base = bench.faces(unseen)
    for column, name in enumerate(NAMES):
        effect = bench.effect(base, sliders[name].direction)
        assert effect.change[column] == pytest.approx(1.0, abs=0.3)
        assert abs(effect.change[1 - column]) < 0.2
        assert sliders[name].lo < 0 < sliders[name].hi


def test_what_a_move_keeps_is_the_slope_of_what_is_moved_on_what_was(
    found: tuple[dict[str, Slider], DrawnBench],
) -> None:
    sliders, bench = found
    base = bench.faces(np.random.default_rng(7).normal(size=(64, ROWS, WIDTH)).astype(np.float32))
    far = 6.0 * sliders["age"].direction
    slope = np.polyfit(base.scores["age"], bench.faces(base.ws + far.astype(np.float32)).scores["age"], 1)[0]
    assert bench.effect(base, far).kept[0] == pytest.approx(slope, abs=0.01)
    assert slope < 0.7, "the scores saturate: far away faces differ less"
    assert bench.effect(base, 0.01 * sliders["age"].direction).kept == pytest.approx(1.0, abs=0.02)


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
    nobody = np.zeros((1, 3))
    weak = tuple(Effect(np.array([own, 3.0]), np.zeros(2), np.ones(2), {}, 1.0, 0.1, nobody) for own in (-0.9, 0.9))
    assert not responds(sliders["age"], weak, bench.table)


def test_what_goes_with_an_attribute_is_what_those_who_have_it_show() -> None:
    """Where nobody smiles age is another number of the code than where people do."""
    codes = np.random.default_rng(8).normal(size=(4000, WIDTH)).astype(np.float32)
    scores = {"smile": codes[:, 0], "age": np.where(codes[:, 0] > 0.0, codes[:, 2], codes[:, 1])}
    samples = Samples(codes, ScoreTable.of(scores), np.empty((len(codes), 0), np.float32))
    plain, wearing = (HeldRecipe("Smile", "smile", (0, ROWS), wearing=with_it) for with_it in (None, ("age", 0.5)))
    added = fitted_direction(wearing, samples) - fitted_direction(plain, samples)
    assert added[2] == pytest.approx(0.5, abs=0.1)
    assert np.abs(np.delete(added, 2)).max() < 0.05


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> str:
    """A generator's id, so that no weights are needed."""
    monkeypatch.setattr(directions, "generator_id", lambda: "the published one")
    return "the published one"


def test_the_file_holds_what_the_bundle_reads(tmp_path: Path, published: str) -> None:
    slider = Slider(RECIPES["smile"], np.ones((12, 512)), -2.0, 3.0)
    write_sliders(tmp_path / "directions.npz", {"smile": slider})
    with np.load(tmp_path / "directions.npz", allow_pickle=False) as stored:
        assert stored["smile.direction"].shape == (12, 512)
        assert stored["smile.direction"].dtype == np.float32
        assert stored["smile.range"].tolist() == [-2.0, 3.0]
        assert str(stored["smile.label"]) == "Smile"
        assert str(stored["generator_id"]) == published
    assert [path.name for path in tmp_path.iterdir()] == ["directions.npz"]


def test_what_was_written_is_read_back(tmp_path: Path, published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "directions.npz"
    write_sliders(path, {"smile": Slider(RECIPES["smile"], np.full((12, 512), 0.5), -2.0, 3.0)})
    slider = read_sliders(path)["smile"]
    assert (slider.recipe, slider.lo, slider.hi) == (RECIPES["smile"], -2.0, 3.0)
    assert slider.direction == pytest.approx(np.full((12, 512), 0.5))
    monkeypatch.setattr(directions, "RECIPES", {"age": RECIPES["age"]})
    with pytest.raises(UsageError, match="has smile, but recipes exist for age"):
        read_sliders(path)
    monkeypatch.setattr(directions, "generator_id", lambda: "another")
    with pytest.raises(BundleError, match="another was expected"):
        read_sliders(path)


@pytest.fixture
def command(tmp_path: Path, published: str, monkeypatch: pytest.MonkeyPatch):
    """`train directions` in the drawn world; gives the sliders that its report is about, and the file's."""
    codes, scores, bench = drawn_world()
    reported: dict[str, Slider] = {}
    monkeypatch.setattr(directions, "RECIPES", DRAWN_RECIPES)
    monkeypatch.setattr(directions, "scored_samples", lambda count: (codes, scores, codes))
    monkeypatch.setattr(directions, "open_bench", lambda table, weights: bench)
    monkeypatch.setattr(
        directions, "draw_codes", lambda count, seed: np.repeat(codes[seed : seed + count, None], ROWS, axis=1)
    )
    monkeypatch.setattr(directions, "write_report", lambda docs, sliders, *rest: reported.update(sliders))
    path = tmp_path / "directions.npz"

    def call(*words: str) -> tuple[dict[str, Slider], dict[str, Slider]]:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        reported.clear()
        assert run(parser.parse_args([*words, "--out", str(path)])) == 0
        return dict(reported), read_sliders(path)

    return call


def test_only_some_are_fitted_and_the_others_stay_as_they_are(command, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = command()
    assert set(first) == set(NAMES)
    monkeypatch.setitem(directions.RECIPES, "age", HeldRecipe("Age", "age", (0, ROWS), furthest=1.5))
    _, second = command("--only", "age", "--codes", "20")
    assert (second["smile"].direction == first["smile"].direction).all()
    assert (second["smile"].lo, second["smile"].hi) == (first["smile"].lo, first["smile"].hi)
    assert not (second["age"].direction == first["age"].direction).all()
    assert second["age"].hi == 1.5


def test_weighing_changes_how_far_rows_go_along_and_nothing_else(command) -> None:
    _, first = command()
    _, second = command("--weigh", "age")
    assert (second["smile"].direction == first["smile"].direction).all()
    before, after = first["age"].direction, second["age"].direction
    gains = (before * after).sum(axis=1) / np.maximum(np.square(before).sum(axis=1), 1e-9)
    np.testing.assert_allclose(after, gains[:, None] * before, atol=1e-6)
    assert (np.abs(gains[before.any(axis=1)] - 1.0) > 0.01).any()


def test_rows_of_a_slider_that_is_not_there_cannot_be_weighed(command) -> None:
    with pytest.raises(UsageError, match="does not hold smile"):
        command("--weigh", "smile")


def test_a_row_that_drags_something_along_has_its_part_taken_by_the_others(
    found: tuple[dict[str, Slider], DrawnBench],
) -> None:
    sliders, bench = found
    age, smile = sliders["age"], sliders["smile"]
    direction = age.direction.copy()
    direction[0] += smile.direction[0] * 4.0
    dragging = Slider(age.recipe, direction, -1.0, 1.0)
    faces = bench.faces(np.random.default_rng(9).normal(size=(32, ROWS, WIDTH)).astype(np.float32))
    weighed = Trial(bench, faces, {}, faces).weighed(dragging)
    before, after = (bench.effect(faces, slider.offset(1.0)).change for slider in (dragging, weighed))
    assert abs(after[1]) < 0.6 * abs(before[1])
    assert after[0] == pytest.approx(before[0], rel=0.1)


def test_measuring_changes_nothing_but_the_ranges_when_asked(command, tmp_path: Path) -> None:
    _, first = command()
    path = tmp_path / "directions.npz"
    write_sliders(path, {name: Slider(s.recipe, s.direction, -1.0, 1.25) for name, s in first.items()})
    written = path.read_bytes()
    reported, _ = command("--measure")
    assert path.read_bytes() == written
    assert set(reported) == set(NAMES)
    assert reported["age"].hi == 1.25
    _, ranged = command("--measure", "--ranges")
    assert ranged["age"].hi == first["age"].hi
    assert (ranged["age"].direction == first["age"].direction).all()


def test_what_the_minutes_do_not_reach_stays_as_it_is(command) -> None:
    _, first = command()
    reported, second = command("--minutes", "0", "--codes", "20")
    assert set(reported) == set(NAMES)
    assert all((second[name].direction == first[name].direction).all() for name in NAMES)


def test_the_report_has_every_sliders_change_and_worst_leak(
    found: tuple[dict[str, Slider], DrawnBench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sliders, bench = found
    monkeypatch.setattr(directions, "draw_sheet", lambda *drawn: None)
    base = bench.faces(np.zeros((4, ROWS, WIDTH), np.float32))
    effects = measure_sliders(sliders, bench, base)
    write_report(tmp_path, sliders, effects, bench, base)
    report = json.loads((tmp_path / "directions.json").read_text(encoding="utf-8"))
    assert report["faces"] == 4
    age = report["sliders"]["age"]
    assert age["+1"]["change"]["age"] == pytest.approx(effects["age"][1].change[0], abs=0.01)
    span = effects["smile"][1].change[1] - effects["smile"][0].change[1]
    dragged = max(abs(end.change[1]) for end in effects["age"])
    assert age["leak"] == {"smile": pytest.approx(dragged / span, abs=0.002)}
    assert (tmp_path / "directions.png").is_file()


def test_what_goes_along_with_a_slider_is_added_and_taken_off_again() -> None:
    own = {name: Slider(RECIPES[name], np.full((2, 3), n + 1.0), -1.0, 1.0) for n, name in enumerate(RECIPES)}
    whole = joined(own)
    of_hair = own["grey_hair"].direction + RECIPES["grey_hair"].along["hair_colour"] * own["hair_colour"].direction
    np.testing.assert_allclose(whole["grey_hair"].direction, of_hair)
    share = RECIPES["age"].along["grey_hair"]
    np.testing.assert_allclose(whole["age"].direction, own["age"].direction + share * of_hair)
    np.testing.assert_array_equal(whole["smile"].direction, own["smile"].direction)
    for name, slider in parted(whole).items():
        np.testing.assert_allclose(slider.direction, own[name].direction, atol=1e-12)
    alone = joined({"age": own["age"]})
    np.testing.assert_array_equal(alone["age"].direction, own["age"].direction)


def test_offsets_follow_the_slider() -> None:
    slider = Slider(RECIPES["smile"], np.ones((2, 3)), -2.0, 3.0)
    assert slider.offset(0.5) == pytest.approx(np.full((2, 3), 1.5))
    assert slider.offset(-0.5) == pytest.approx(np.full((2, 3), -1.0))
    assert not slider.offset(0.0).any()


def test_what_colours_hair_is_seen_around_the_face_and_a_smile_within_it() -> None:
    crown, nose, brow = (20, 128), (150, 128), (100, 128)
    seen = {name: [RECIPES[name].seen[place] for place in (crown, nose, brow)] for name in RECIPES}
    assert seen["hair_colour"] == seen["grey_hair"] == [1.0, 0.0, 0.0]
    assert seen["smile"] == [0.0, 1.0, 1.0]
    assert seen["beard"] == [0.0, 1.0, 0.0]


def test_every_recipe_moves_what_it_does_not_hold() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.score not in recipe.held, name
        assert set(recipe.held) <= set(COMMON_HELD + recipe.also)
        assert not set(recipe.also) & set(COMMON_HELD + recipe.free), f"{name} names something twice"
        assert set(recipe.free) <= set(COMMON_HELD), f"{name} frees something that nobody holds"
        assert 0 <= recipe.rows[0] < recipe.rows[1] <= 12
