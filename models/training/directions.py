"""`rigid-live train directions`: find the sliders' directions in the generator's W by scoring its own faces.

Samples are scored, directions are fitted with everything else held (`direction_fit.py`), recombined by what they are
measured to do, given the range in which faces stay faces, and measured once more on codes that took no part. What moves
its own score by less than a standard deviation is not shipped.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.assets import asset_path
from models.checkpoints.published import load_light_generator
from models.compiled import compile_network
from models.mobile_stylegan import LATENT_DIM
from models.perceptual import StLpips
from models.scorers import FaceScorers
from models.training.direction_fit import (
    CodeModel,
    ScoreTable,
    conditioned_direction,
    corrected_directions,
    fit_code_model,
    in_rows,
)
from models.training.direction_measure import Bench, Effect, Faces, RangeLimits, usable_step
from models.training.direction_report import draw_response, draw_sheet
from models.training.log import checkpoint_dir
from models.training.samples import CodeSampler, synthetic_pack

LOG = logging.getLogger(__name__)

DIRECTIONS_FILE = Path(__file__).parents[1] / "bundles" / "default" / "directions.npz"
STEPS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Steps that are tried for a range, in standard deviations of the own score."""
MIN_RESPONSE = 1.0

COMMON_HELD = (
    "age",
    "gender",
    "smile",
    "mouth_open",
    "eyes_open",
    "yaw",
    "pitch",
    "eyeglasses",
    "beard",
    "chubby",
    "hair_colour",
    "skin_colour",
)
"""What a slider leaves alone unless its recipe frees it."""


@dataclass(frozen=True)
class Recipe:
    """How one slider is made.

    score: the score that it moves. rows: W+ rows first <= row < last that it may move. free: scores that go with it
    and are not held. furthest: largest step, in standard deviations, at which it still is the same person by eye.
    power: of the metric (`conditioned_direction`); the smaller, the less else changes. probe: the step, in predicted
    deviations, that its response is measured at. rare: most faces lack it, so that only those who have it can lose it,
    and it appears at a threshold, beyond what a small step shows.
    """

    label: str
    score: str
    rows: tuple[int, int]
    free: tuple[str, ...] = ()
    furthest: float = 2.0
    power: float = 0.25
    probe: float = 3.0
    rare: bool = False

    @property
    def held(self) -> tuple[str, ...]:
        """The scores that the slider leaves alone."""
        return tuple(name for name in COMMON_HELD if name != self.score and name not in self.free)


# Rows of the 256 px generator: 0 at 4 px, then two a resolution (1-2 at 8, 3-4 at 16, 5-6 at 32, 7-8 at 64, 9-10 at
# 128), 11 the RGB head. Shape and pose live in the coarse rows, colours in the fine ones.
RECIPES: Mapping[str, Recipe] = {
    "age": Recipe("Age", "age", (2, 12), free=("beard", "hair_colour"), furthest=2.5),
    "gender": Recipe("Masculine", "gender", (0, 9), free=("beard",)),
    # The label of a happy face, not the mouth's shape alone: people smile with teeth, cheeks and eyes.
    "smile": Recipe("Smile", "happy", (2, 8), free=("smile", "mouth_open"), furthest=2.5, power=0.5),
    "mouth_open": Recipe("Mouth open", "mouth_open", (2, 7), furthest=2.5),
    "eyes_open": Recipe("Eyes open", "eyes_open", (2, 9), furthest=1.5),
    "yaw": Recipe("Turn", "yaw", (0, 5), furthest=2.0),
    "pitch": Recipe("Nod", "pitch", (0, 5), furthest=1.5),
    "eyeglasses": Recipe("Eyeglasses", "eyeglasses", (0, 5), furthest=3.0, power=0.5, probe=6.0, rare=True),
    "beard": Recipe("Beard", "beard", (4, 9), power=0.5, probe=6.0, rare=True),
    "chubby": Recipe("Chubby", "chubby", (0, 7), furthest=1.5),
    "hair_colour": Recipe("Hair colour", "hair_colour", (5, 12)),
    "makeup": Recipe("Make-up", "makeup", (5, 12), furthest=1.5),
}


@dataclass(frozen=True)
class Slider:
    """A finished attribute: its offset for one unit [L, D], and how many units -1 and +1 are."""

    recipe: Recipe
    direction: NDArray[np.float64]
    lo: float
    hi: float

    def offset(self, value: float) -> NDArray[np.float64]:
        """The move of W+ [L, D] for a slider value in [-1, 1]."""
        return self.direction * (value * self.hi if value > 0 else -value * self.lo)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train directions`."""
    parser.add_argument("--out", type=Path, default=DIRECTIONS_FILE, help="where the directions go (.npz)")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="where the numbers and pictures of what they do go"
    )
    parser.add_argument("--samples", type=int, default=4000, help="faces to fit on")
    parser.add_argument("--codes", type=int, default=10, help="codes that each trial of a step is measured on")
    parser.add_argument("--unseen", type=int, default=100, help="codes of the final measurement")
    parser.add_argument("--only", nargs="*", choices=sorted(RECIPES), help="these attributes alone")


def run(args: argparse.Namespace) -> int:
    """Fit, measure and write the directions; returns the exit code."""
    recipes = {name: RECIPES[name] for name in args.only or RECIPES}
    ws, scores = scored_samples(args.samples)
    table = ScoreTable.of(scores)
    model = fit_code_model(ws, table)
    for name, explained in zip(model.names, model.explained, strict=True):
        LOG.info("R2 of %s from the code: %.2f", name, explained)
    bench = open_bench(table)
    probe, unseen = draw_codes(args.codes, seed=101), draw_codes(args.unseen, seed=202)
    wearers = {
        name: bench.faces(wearers_of(ws, table, recipe.score, args.codes, probe.shape[1]))
        for name, recipe in recipes.items()
        if recipe.rare
    }
    sliders = find_sliders(recipes, model, bench, bench.faces(probe), wearers)
    base = bench.faces(unseen)
    effects = measure_sliders(sliders, bench, base)
    shipped = {name: slider for name, slider in sliders.items() if responds(slider, effects[name], table)}
    for name in sorted(set(sliders) - set(shipped)):
        LOG.info("%s moves its own score by less than a standard deviation: not shipped", name)
    write_directions(args.out, shipped)
    write_report(args, shipped, effects, table, bench, base)
    return 0


def open_bench(table: ScoreTable) -> Bench:
    """The light generator on OpenVINO, the scorers and the distance."""
    generator = load_light_generator()
    network = compile_network(generator, torch.zeros(2, generator.config.latent_rows, LATENT_DIM), "bf16")
    return Bench(network, FaceScorers.open(), StLpips.load(net="alex"), table)


def draw_codes(count: int, seed: int) -> NDArray[np.float32]:
    """`count` codes of W [N, L, D] as the samples were drawn, with a seed of their own."""
    rows = load_light_generator().config.latent_rows
    ws = CodeSampler.open().draw(count, torch.Generator().manual_seed(seed)).numpy()
    return np.repeat(ws[:, None], rows, axis=1)


def scored_samples(count: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Codes [N, D] of faces that look like faces, and their scores; scored once and kept in the cache folder."""
    ws, crops = synthetic_pack(count)
    scorers = FaceScorers.open()
    path = checkpoint_dir("directions") / f"scores-{count}-{scorers.classifiers.heads.fingerprint}.npz"
    if path.exists():
        with np.load(path) as stored:
            scores = dict(stored)
    else:
        scores = scorers.score(crops)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **scores)  # type: ignore[arg-type]
    real = scores["face"] > 0.9
    return ws[real], {name: values[real] for name, values in scores.items() if name != "face"}


def wearers_of(ws: NDArray[np.float32], table: ScoreTable, score: str, count: int, rows: int) -> NDArray[np.float32]:
    """Codes [count, rows, D] of the samples [N, D] that score highest: those who have a rare attribute."""
    order = np.argsort(-table.values[:, table.names.index(score)], kind="stable")
    return np.repeat(ws[order[:count], None], rows, axis=1)


def find_sliders(
    recipes: Mapping[str, Recipe], model: CodeModel, bench: Bench, probe: Faces, wearers: Mapping[str, Faces]
) -> dict[str, Slider]:
    """Directions with everything else held, by the fit first and then by what they are measured to do, with ranges.

    wearers: for a rare attribute the faces that its lower end is measured on, instead of `probe`.
    """
    rows = probe.ws.shape[1]
    fitted = {
        name: in_rows(conditioned_direction(model, recipe.score, recipe.held, recipe.power), recipe.rows, rows)
        for name, recipe in recipes.items()
    }
    response = np.stack([response_of(bench, probe, recipes[name], direction) for name, direction in fitted.items()])
    own = [model.names.index(recipe.score) for recipe in recipes.values()]
    held = [[model.names.index(name) for name in recipe.held] for recipe in recipes.values()]
    corrected = corrected_directions(np.stack(list(fitted.values())), response, own, held)
    sliders = {}
    for (name, recipe), direction, score in zip(recipes.items(), corrected, own, strict=True):
        measured = response_of(bench, probe, recipe, direction)[score]
        slider = Slider(recipe, direction / max(float(measured), 0.1), 0.0, 0.0)
        lo = usable_end(slider, bench, wearers.get(name, probe), -1.0)
        sliders[name] = replace(slider, lo=lo, hi=usable_end(slider, bench, probe, 1.0))
        LOG.info(
            "%s: %.2f per predicted deviation, range %.1f..%.1f", name, measured, sliders[name].lo, sliders[name].hi
        )
    return sliders


def response_of(bench: Bench, probe: Faces, recipe: Recipe, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean change of each score [K] for one unit: from a step each way, or forward alone for a rare attribute."""
    forward = bench.effect(probe, direction * recipe.probe).change
    if recipe.rare:
        return forward / recipe.probe
    return (forward - bench.effect(probe, direction * -recipe.probe).change) / (2.0 * recipe.probe)


def usable_end(slider: Slider, bench: Bench, probe: Faces, sign: float) -> float:
    """The furthest usable step of that sign; 0 when there is none."""
    names = bench.table.names
    own, held = names.index(slider.recipe.score), [names.index(name) for name in slider.recipe.held]
    limits = RangeLimits(threshold=slider.recipe.rare)
    steps: list[float] = []
    effects: list[Effect] = []
    for step in STEPS:
        if step > slider.recipe.furthest:
            break
        steps.append(sign * step)
        effects.append(bench.effect(probe, slider.direction * sign * step))
        usable = usable_step(steps, effects, own, held, limits)
        if usable != steps[-1] and not limits.threshold:
            break
    return usable


def measure_sliders(sliders: Mapping[str, Slider], bench: Bench, base: Faces) -> dict[str, tuple[Effect, Effect]]:
    """The effect of each slider at -1 and at +1."""
    return {
        name: (bench.effect(base, slider.offset(-1.0)), bench.effect(base, slider.offset(1.0)))
        for name, slider in sliders.items()
    }


def responds(slider: Slider, effects: tuple[Effect, Effect], table: ScoreTable) -> bool:
    """Whether the slider moves its own score by a standard deviation at its stronger end."""
    own = table.names.index(slider.recipe.score)
    return max(-effects[0].change[own], effects[1].change[own]) >= MIN_RESPONSE


def generator_id() -> str:
    """What the directions belong to: the sha256 of the published synthesis network's weights."""
    return hashlib.sha256(asset_path("synthesis_bin").read_bytes()).hexdigest()


def write_directions(path: Path, sliders: Mapping[str, Slider]) -> None:
    """directions.npz of a bundle: NAME.direction [L, D], NAME.range (lo, hi), NAME.label, and the generator's id."""
    arrays: dict[str, NDArray[np.generic]] = {"generator_id": np.array(generator_id())}
    for name, slider in sliders.items():
        arrays[f"{name}.direction"] = slider.direction.astype(np.float32)
        arrays[f"{name}.range"] = np.array([slider.lo, slider.hi], dtype=np.float32)
        arrays[f"{name}.label"] = np.array(slider.recipe.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def write_report(
    args: argparse.Namespace,
    sliders: Mapping[str, Slider],
    effects: Mapping[str, tuple[Effect, Effect]],
    table: ScoreTable,
    bench: Bench,
    base: Faces,
) -> None:
    """The numbers as JSON and the two pictures, in the docs folder."""
    report = {
        "faces": len(base.ws),
        "unit": "mean change in standard deviations of the samples; raw: in the score's own unit",
        "deviation": dict(zip(table.names, table.deviation.round(4).tolist(), strict=True)),
        "sliders": {name: _numbers(slider, effects[name], table) for name, slider in sliders.items()},
    }
    args.docs.mkdir(parents=True, exist_ok=True)
    (args.docs / "directions.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    shipped = {name: effects[name] for name in sliders}
    draw_response(args.docs / "directions.png", shipped, table.names)
    draw_sheet(args.docs / "directions_sheet.jpg", bench, base.ws[:3], {name: s.offset for name, s in sliders.items()})


def _numbers(slider: Slider, effects: tuple[Effect, Effect], table: ScoreTable) -> dict[str, object]:
    ends = {}
    for end, effect in zip(("-1", "+1"), effects, strict=True):
        ends[end] = {
            "change": dict(zip(table.names, effect.change.round(2).tolist(), strict=True)),
            "raw": {name: round(value, 3) for name, value in effect.raw.items()},
            "st_lpips": round(effect.distance, 3),
        }
    return {"score": slider.recipe.score, "range": [round(slider.lo, 2), round(slider.hi, 2)], **ends}
