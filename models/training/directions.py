"""`rigid-live train directions`: find the sliders' directions in the generator's W by scoring its own faces.

Samples are scored, directions are fitted with everything else held (`direction_fit.py`), recombined by what they are
measured to do, given the range in which faces stay faces, and each row of W+ the part that leaves most of a person
alone. They are measured once more on codes that took no part; what moves its own score by less than a standard
deviation is not shipped. `--only` fits some and keeps the others as they are; `--weigh` finds the rows' parts anew and
fits none, nor does `--measure`, which is how the same directions are tried on another generator of the same W.
"""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.assets import asset_path
from engine.direction_file import SAID, Direction, read_directions, write_directions
from engine.errors import UsageError
from models.checkpoints.published import load_light_generator
from models.compiled import compile_network
from models.identity import FaceIdentity
from models.mobile_stylegan import LATENT_DIM, LIGHT_256
from models.perceptual import StLpips
from models.scorers import VERSION, Crops, FaceScorers
from models.training.direction_fit import (
    DRIFT,
    CodeModel,
    ScoreTable,
    conditioned_direction,
    corrected_directions,
    fit_code_model,
    in_rows,
    row_gains,
)
from models.training.direction_measure import Bench, Effect, Faces, RangeLimits, leakage, usable_step
from models.training.direction_recipes import RECIPES, Recipe
from models.training.direction_report import draw_response, draw_sheet
from models.training.log import checkpoint_dir
from models.training.samples import CodeSampler, synthetic_pack

LOG = logging.getLogger(__name__)

DIRECTIONS_FILE = Path(__file__).parents[1] / "bundles" / "default" / "directions.npz"
STEPS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Steps that are tried for a range, in standard deviations of the own score."""
MIN_RESPONSE = 1.0
EXPRESSION = ("smile", "mouth_open", "eyes_open")
"""Scores that change while somebody speaks."""
SPEAKING = 1.5
"""Weight of what these lose of their spread, where rows are weighed; that of a leak's standard deviation is 1."""
WEIGHINGS = 2
WEAK_ROW = 0.2
"""Share of the strongest row, below which a row is no more than what cancels leaks and stays as it is."""


@dataclass(frozen=True)
class Slider:
    """An attribute: its offset for one unit [L, D], and how many units -1 and +1 are.

    While it is made that is its own offset, without what goes along with it (`joined`).
    """

    recipe: Recipe
    direction: NDArray[np.float64]
    lo: float
    hi: float

    def offset(self, value: float) -> NDArray[np.float64]:
        """The move of W+ [L, D] for a slider value in [-1, 1]."""
        return self.direction * (value * self.hi if value > 0 else -value * self.lo)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train directions`."""
    add = parser.add_argument
    add("--out", type=Path, default=DIRECTIONS_FILE, help="the directions (.npz): what is not fitted stays as it is")
    add("--docs", type=Path, default=Path("docs"), help="where the numbers and pictures of what they do go")
    add("--weights", type=Path, help="folder of the generator's weights; what ships without it")
    add("--only", nargs="+", choices=sorted(RECIPES), metavar="NAME", help="fit these attributes alone")
    add("--weigh", nargs="+", choices=sorted(RECIPES), metavar="NAME", help="fit nothing, weigh the rows of these")
    add("--measure", action="store_true", help="fit nothing, measure what --out holds")
    add("--ranges", action="store_true", help="find the ranges of what is not fitted anew as well")
    add("--minutes", type=float, default=float("inf"), help="fit no further attribute after so many; it stays as it is")
    add("--samples", type=int, default=4000, help="faces to fit on")
    add("--codes", type=int, default=10, help="codes that each trial of a step is measured on")
    add("--weighed", type=int, default=32, help="codes that rows are weighed on")
    add("--unseen", type=int, default=100, help="codes of the final measurement")


def run(args: argparse.Namespace) -> int:
    """Fit, measure and write the directions; returns the exit code."""
    deadline = time.monotonic() + 60.0 * args.minutes
    before = parted(read_sliders(args.out)) if args.out.is_file() else {}
    if missing := sorted(set(args.weigh or ()) - before.keys()):
        raise UsageError(f"{args.out} does not hold {', '.join(missing)}, whose rows were to be weighed")
    recipes = {} if args.measure or args.weigh else {name: RECIPES[name] for name in args.only or RECIPES}
    ws, scores, crops = scored_samples(args.samples)
    table = ScoreTable.of(scores)
    bench = open_bench(table, args.weights)
    probe, weighed = (bench.faces(draw_codes(*drawn)) for drawn in ((args.codes, 101), (args.weighed, 303)))
    trial = Trial(bench, probe, _wearers(ws, bench, args.codes), weighed)
    kept = {name: slider for name, slider in before.items() if name not in recipes}
    sliders = before
    if recipes:
        samples = Samples(ws, table, bench.identity.embed(crops))
        sliders = before | find_sliders(recipes, samples, trial, kept, deadline)
    if args.ranges:
        sliders |= {name: trial.with_range(sliders[name]) for name in kept}
    for name in args.weigh or ():
        sliders[name] = trial.with_range(trial.weighed(before[name]))
        LOG.info("%s: its rows are weighed, range %.1f..%.1f", name, sliders[name].lo, sliders[name].hi)
    sliders = joined({name: sliders[name] for name in RECIPES if name in sliders})
    base = bench.faces(draw_codes(args.unseen, seed=202))
    effects = measure_sliders(sliders, bench, base)
    needed = {name for slider in sliders.values() for name in slider.recipe.along}
    shipped = {name: of for name, of in sliders.items() if name in needed or responds(of, effects[name], table)}
    for name in sorted(set(sliders) - set(shipped)):
        LOG.info("%s moves its own score by less than a standard deviation: not shipped", name)
    if recipes or args.weigh or args.ranges:
        write_sliders(args.out, shipped)
    write_report(args.docs, shipped, effects, bench, base)
    return 0


def open_bench(table: ScoreTable, weights: Path | None = None) -> Bench:
    """The light generator (`weights`: folder of fresh ones) on OpenVINO, the scorers and the distance."""
    generator = load_light_generator(weights)
    network = compile_network(generator, torch.zeros(2, generator.config.latent_rows, LATENT_DIM), "bf16")
    return Bench(network, FaceScorers.open(), StLpips.load(net="alex"), FaceIdentity.load(), table)


def draw_codes(count: int, seed: int) -> NDArray[np.float32]:
    """`count` codes of W [N, L, D] as the samples were drawn, with a seed of their own."""
    ws = CodeSampler.open().draw(count, torch.Generator().manual_seed(seed)).numpy()
    return np.repeat(ws[:, None], LIGHT_256.latent_rows, axis=1)


def scored_samples(count: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]], Crops]:
    """Codes [N, D] of faces that look like faces, their scores, and the faces; scored once and kept in the cache.

    They are faces of the generator that shipped when they were made, whichever is measured now: the scores' deviations
    over them are the unit.
    """
    ws, crops = synthetic_pack(count)
    scorers = FaceScorers.open()
    path = checkpoint_dir("directions") / f"scores-{count}-{scorers.classifiers.heads.fingerprint}-{VERSION}.npz"
    if path.exists():
        with np.load(path) as stored:
            scores = dict(stored)
    else:
        scores = scorers.score(crops)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **scores)  # type: ignore[arg-type]
    real = scores["face"] > 0.9
    named = {name: values[real] for name, values in scores.items() if name != "face"}
    return ws[real], named, crops[real]


def wearers_of(ws: NDArray[np.float32], table: ScoreTable, score: str, count: int, rows: int) -> NDArray[np.float32]:
    """Codes [count, rows, D] of the samples [N, D] that score highest: those who have a rare attribute."""
    order = np.argsort(-table.values[:, table.names.index(score)], kind="stable")
    return np.repeat(ws[order[:count], None], rows, axis=1)


def _wearers(ws: NDArray[np.float32], bench: Bench, count: int) -> dict[str, Faces]:
    """By score, faces that have each rare attribute."""
    rare = {recipe.score for recipe in RECIPES.values() if recipe.rare}
    codes = {score: wearers_of(ws, bench.table, score, count, LIGHT_256.latent_rows) for score in sorted(rare)}
    return {score: bench.faces(chosen) for score, chosen in codes.items()}


@dataclass(frozen=True)
class Trial:
    """Where moves are tried while directions are made.

    probe: faces to move. wearers: by score, faces that have a rare attribute; its lower end is tried on them. many:
    faces on which rows are weighed, for which few are not enough.
    """

    bench: Bench
    probe: Faces
    wearers: Mapping[str, Faces]
    many: Faces

    def response_of(
        self, recipe: Recipe, direction: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean change of each score [K] for one unit, and of the embeddings as `corrected_directions` takes them: from
        a step each way, or forward alone for a rare attribute."""
        steps = (1.0,) if recipe.rare else (1.0, -1.0)
        effects = [self.bench.effect(self.probe, direction * recipe.probe * step, recipe.seen) for step in steps]
        span = recipe.probe * len(steps)
        change = np.tensordot(steps, [effect.change for effect in effects], 1) / span
        people = np.tensordot(steps, [effect.people for effect in effects], 1) / span
        return change, people.ravel() / len(people) ** 0.5

    def with_range(self, slider: Slider) -> Slider:
        """The slider with the range in which it is usable."""
        below = self.wearers.get(slider.recipe.score, self.probe) if slider.recipe.rare else self.probe
        lo, hi = self._usable_end(slider, below, -1.0), self._usable_end(slider, self.probe, 1.0)
        return replace(slider, lo=lo, hi=hi)

    def weighed(self, slider: Slider) -> Slider:
        """The slider with each row of W+ as far along as leaves most of a person alone, at the effect that +1 had.

        A rare attribute's lower end is not looked at: it is seen on its wearers alone.
        """
        ends = (1.0,) if slider.recipe.rare or not slider.lo else (1.0, -1.0)
        wanted, _ = self._done(slider, 1.0)
        for _ in range(WEIGHINGS):
            strength = np.linalg.norm(slider.direction, axis=1)
            rows = np.flatnonzero(strength > WEAK_ROW * strength.max())
            whole = [self._done(slider, end) for end in ends]
            lacking = [[self._done(_without(slider, row), end) for end in ends] for row in rows]
            unwanted = np.concatenate([rest for _, rest in whole])
            without = np.stack([np.concatenate([rest for _, rest in by_end]) for by_end in lacking])
            own = np.array([by_end[0][0] for by_end in lacking])
            gains = np.ones(len(strength))
            gains[rows] = row_gains(unwanted, without, wanted - whole[0][0], whole[0][0] - own)
            slider = replace(slider, direction=slider.direction * gains[:, None])
        return slider

    def _done(self, slider: Slider, value: float) -> tuple[float, NDArray[np.float64]]:
        """What the slider does at that value: the change of its own score, and all that is not wanted of it, [M]."""
        names, recipe = self.bench.table.names, slider.recipe
        effect = self.bench.effect(self.many, slider.offset(value), recipe.seen)
        watched = [names.index(name) for name in recipe.watched]
        speaking = [names.index(name) for name in EXPRESSION if name in recipe.watched]
        still = SPEAKING * (1.0 - effect.kept[speaking])
        drift = DRIFT**0.5 * effect.people.ravel() / len(effect.people) ** 0.5
        return float(effect.change[names.index(recipe.score)]), np.concatenate((effect.change[watched], still, drift))

    def _usable_end(self, slider: Slider, faces: Faces, sign: float) -> float:
        """The furthest usable step of that sign; 0 when there is none."""
        names = self.bench.table.names
        own, watched = names.index(slider.recipe.score), [names.index(name) for name in slider.recipe.watched]
        limits = RangeLimits(leak=slider.recipe.leak, threshold=slider.recipe.rare)
        steps: list[float] = []
        effects: list[Effect] = []
        usable = 0.0
        furthest = slider.recipe.furthest if sign > 0 else slider.recipe.furthest_back or slider.recipe.furthest
        if not slider.recipe.reshapes:
            return sign * furthest  # what it does to bare codes beside its colours is not shown
        for step in (*(step for step in STEPS if step < furthest), furthest):
            steps.append(sign * step)
            effects.append(self.bench.effect(faces, slider.direction * sign * step, slider.recipe.seen))
            usable = usable_step(steps, effects, own, watched, limits)
            if usable != steps[-1] and not limits.threshold:
                break
        return usable


@dataclass(frozen=True)
class Samples:
    """What directions are fitted on. ws: codes [N, D]. people: their faces' embeddings [N, E]."""

    ws: NDArray[np.float32]
    table: ScoreTable
    people: NDArray[np.float32]

    @cached_property
    def model(self) -> CodeModel:
        """What codes say of the scores."""
        return fit_code_model(self.ws, self.table, self.people)

    def wearing(self, score: str) -> "Samples":
        """Those who have an attribute, whose score is its log odds."""
        column = self.table.names.index(score)
        has = self.table.values[:, column] * self.table.deviation[column] + self.table.mean[column] > 0.0
        return Samples(self.ws[has], replace(self.table, values=self.table.values[has]), self.people[has])


def _without(slider: Slider, row: int) -> Slider:
    direction = slider.direction.copy()
    direction[row] = 0.0
    return replace(slider, direction=direction)


def fitted_direction(recipe: Recipe, samples: Samples) -> NDArray[np.float64]:
    """The direction of W [D] by the fit alone, with everything else held."""
    direction = conditioned_direction(samples.model, recipe.score, recipe.held, recipe.power)
    if recipe.wearing:
        score, amount = recipe.wearing
        others = [name for name in samples.table.names if name != score]
        worn = samples.wearing(recipe.score).model
        direction = direction + amount * conditioned_direction(worn, score, others, recipe.power)
    return direction


def find_sliders(
    recipes: Mapping[str, Recipe],
    samples: Samples,
    trial: Trial,
    kept: Mapping[str, Slider],
    deadline: float = float("inf"),
) -> dict[str, Slider]:
    """Directions with everything else held, by the fit first and then by what they are measured to do, with ranges.

    samples: to fit on. kept: further sliders, which are not changed but take part in cancelling leaks. deadline: by
    `time.monotonic`, after which no further slider is begun.
    """
    rows, model = trial.probe.ws.shape[1], samples.model
    tried = {
        name: (recipe, in_rows(fitted_direction(recipe, samples), recipe.rows, rows))
        for name, recipe in recipes.items()
    } | {name: (slider.recipe, slider.direction) for name, slider in kept.items()}
    measured = [trial.response_of(recipe, direction) for recipe, direction in tried.values()]
    response, drift = (np.stack(kind) for kind in zip(*measured, strict=True))
    own = [model.names.index(recipe.score) for recipe in recipes.values()]
    # A leak into what no slider moves could only be cancelled by much of many others.
    moved = {recipe.score for recipe, _ in tried.values()}
    held = [[model.names.index(name) for name in recipe.held if name in moved] for recipe in recipes.values()]
    found = np.stack([direction for _, direction in tried.values()])
    corrected = corrected_directions(found, response, drift, own, held)
    sliders: dict[str, Slider] = {}
    for (name, recipe), direction, score in zip(recipes.items(), corrected, own, strict=True):
        if time.monotonic() > deadline:
            LOG.info(
                "the minutes are over: %s stays as it is", ", ".join(name for name in recipes if name not in sliders)
            )
            break
        unit = float(trial.response_of(recipe, direction)[0][score])
        sliders[name] = trial.with_range(Slider(recipe, direction / max(unit, 0.1), 0.0, 0.0))
        if recipe.weighed:
            sliders[name] = trial.with_range(trial.weighed(sliders[name]))
        lo, hi = sliders[name].lo, sliders[name].hi
        LOG.info(
            "%s: R2 %.2f, %.2f per predicted deviation, range %.1f..%.1f",
            name,
            model.explained[score],
            unit,
            lo,
            hi,
        )
    return sliders


def joined(sliders: Mapping[str, Slider]) -> dict[str, Slider]:
    """The sliders with what goes along with each; what is missing goes along with none."""

    def whole(slider: Slider) -> NDArray[np.float64]:
        return sum((share * whole(other) for other, share in _along(slider, sliders)), slider.direction)

    return {name: replace(slider, direction=whole(slider)) for name, slider in sliders.items()}


def parted(sliders: Mapping[str, Slider]) -> dict[str, Slider]:
    """The sliders without what goes along with each: the inverse of `joined`."""

    def own(slider: Slider) -> NDArray[np.float64]:
        return sum((-share * other.direction for other, share in _along(slider, sliders)), slider.direction)

    return {name: replace(slider, direction=own(slider)) for name, slider in sliders.items()}


def _along(slider: Slider, sliders: Mapping[str, Slider]) -> list[tuple[Slider, float]]:
    return [(sliders[name], share) for name, share in slider.recipe.along.items() if name in sliders]


def measure_sliders(sliders: Mapping[str, Slider], bench: Bench, base: Faces) -> dict[str, tuple[Effect, Effect]]:
    """The effect of each slider at -1 and at +1, as far as it is seen."""

    def at(slider: Slider, value: float) -> Effect:
        return bench.effect(base, slider.offset(value), slider.recipe.seen)

    return {name: (at(slider, -1.0), at(slider, 1.0)) for name, slider in sliders.items()}


def responds(slider: Slider, effects: tuple[Effect, Effect], table: ScoreTable) -> bool:
    """Whether the slider moves its own score by a standard deviation at its stronger end."""
    own = table.names.index(slider.recipe.score)
    return max(-effects[0].change[own], effects[1].change[own]) >= MIN_RESPONSE


def generator_id() -> str:
    """What the directions belong to: the sha256 of the published synthesis network's weights."""
    return hashlib.sha256(asset_path("synthesis_bin").read_bytes()).hexdigest()


def write_sliders(path: Path, sliders: Mapping[str, Slider]) -> None:
    """The directions of a bundle (`engine/direction_file.py`)."""
    directions = (
        Direction(
            name,
            recipe.label,
            slider.direction,
            slider.lo,
            slider.hi,
            zone=recipe.zone,
            shift=recipe.shift,
            takes_off=recipe.takes_off,
            **{part: getattr(recipe, part) for part in SAID},
        )
        for name, slider in sliders.items()
        for recipe in [slider.recipe]
    )
    write_directions(path, directions, generator_id())


def read_sliders(path: Path) -> dict[str, Slider]:
    """The sliders of the directions of a bundle.

    Raises BundleError when they belong to another generator, UsageError when they hold an attribute without a recipe.
    """
    found = read_directions(path, generator_id())
    if strangers := sorted(found.keys() - RECIPES.keys()):
        raise UsageError(f"{path} has {', '.join(strangers)}, but recipes exist for {', '.join(RECIPES)}")
    return {name: Slider(RECIPES[name], d.direction.astype(np.float64), d.lo, d.hi) for name, d in found.items()}


def write_report(
    docs: Path, sliders: Mapping[str, Slider], effects: Mapping[str, tuple[Effect, Effect]], bench: Bench, base: Faces
) -> None:
    """The numbers as JSON and the two pictures, in the docs folder."""
    names = bench.table.names
    shipped = {name: effects[name] for name in sliders}
    leaks = leakage(
        shipped,
        {name: names.index(slider.recipe.score) for name, slider in sliders.items()},
        {name: [names.index(seen) for seen in slider.recipe.watched] for name, slider in sliders.items()},
    )
    report = {
        "faces": len(base.ws),
        "unit": "mean change in standard deviations of the samples; raw: in the score's own unit",
        "kept": "how far moved faces still differ in a score as the unmoved ones do, 1 for all the way",
        "leak": "the held slider that it drags furthest, and by what share of that slider's own range",
        "deviation": dict(zip(names, bench.table.deviation.round(4).tolist(), strict=True)),
        "sliders": {
            name: {**_numbers(slider, effects[name], bench.table), "leak": {leaks[name][0]: round(leaks[name][1], 3)}}
            for name, slider in sliders.items()
        },
    }
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "directions.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw_response(docs / "directions.png", shipped, names)
    drawn = {name: (slider.offset, slider.recipe.seen) for name, slider in sliders.items()}
    draw_sheet(docs / "directions_sheet.jpg", bench, base.ws[:3], drawn)


def _numbers(slider: Slider, effects: tuple[Effect, Effect], table: ScoreTable) -> dict[str, object]:
    ends = {}
    for end, effect in zip(("-1", "+1"), effects, strict=True):
        ends[end] = {
            "change": dict(zip(table.names, effect.change.round(2).tolist(), strict=True)),
            "kept": {
                name: round(float(kept), 2)
                for name, kept in zip(table.names, effect.kept, strict=True)
                if name in EXPRESSION
            },
            "raw": {name: round(value, 3) for name, value in effect.raw.items()},
            "st_lpips": round(effect.distance, 3),
            "dlib": round(float(np.linalg.norm(effect.people, axis=1).mean()), 3),
        }
    return {"score": slider.recipe.score, "range": [round(slider.lo, 2), round(slider.hi, 2)], **ends}
