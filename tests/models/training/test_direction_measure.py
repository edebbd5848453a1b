"""What a move does to faces as far as it is seen, and where a slider's range ends."""

import numpy as np
import pytest

from models.pictures import pictures_from
from models.training.direction_fit import ScoreTable
from models.training.direction_measure import (
    Bench,
    Effect,
    RangeLimits,
    leakage,
    render_crops,
    usable_step,
)

STEPS = (1.0, 2.0, 3.0, 4.0)
NOBODY = np.zeros((1, 4), np.float32)


class HalvesScorer:
    """Scores a picture by the brightness of its left and of its right half."""

    def score(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        left, right = (half.mean(axis=(1, 2, 3)) for half in np.split(crops.astype(np.float32), 2, axis=2))
        return {"left": left, "right": right, "face": np.ones(len(crops), np.float32)}


class NobodysIdentity:
    def embed(self, crops: np.ndarray) -> np.ndarray:
        return np.zeros((len(crops), 4), np.float32)


class HalvesBench(Bench):
    def _mean_distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a.astype(np.float32) - b).mean())


def test_a_move_counts_as_far_as_it_is_seen() -> None:
    def render(ws: np.ndarray) -> np.ndarray:
        return np.broadcast_to(ws[:, 0, 0, None, None, None] * np.ones((3, 8, 8), np.float32), (2, 3, 8, 8))

    table = ScoreTable.of({name: np.array([0.0, 2.0]) for name in ("left", "right")})  # of deviation 1
    bench = HalvesBench(render, HalvesScorer(), None, NobodysIdentity(), table)  # type: ignore[arg-type]
    base = bench.faces(np.zeros((2, 1, 4), np.float32))
    seen = np.ones((8, 8), np.float32)
    seen[:, :4] = 0.0
    seen[:, 4:] = 0.5
    whole, half = (bench.effect(base, np.full((1, 4), 0.4), shown) for shown in (None, seen))
    np.testing.assert_allclose(whole.change, 51.0, atol=1.0)
    np.testing.assert_allclose(half.change, [0.0, 25.5], atol=1.0)
    assert half.distance == pytest.approx(whole.distance / 4, abs=0.3)


def effect(own: float, leak: float = 0.0, presence: float = 1.0, distance: float = 0.1) -> Effect:
    return Effect(np.array([own, leak]), np.zeros(2), np.ones(2), {}, presence, distance, NOBODY)


def usable(*effects: Effect, sign: float = 1.0, threshold: bool = False) -> float:
    steps = [sign * step for step in STEPS[: len(effects)]]
    return usable_step(steps, effects, 0, [1], RangeLimits(threshold=threshold))


def test_a_well_behaved_direction_is_usable_to_the_last_step() -> None:
    assert usable(*(effect(own) for own in (0.9, 1.8, 2.6, 3.3))) == 4.0
    assert usable(*(effect(-own) for own in (0.9, 1.8, 2.6, 3.3)), sign=-1.0) == -4.0


@pytest.mark.parametrize(
    "third",
    [
        effect(2.6, leak=1.4),
        effect(2.6, leak=-1.4),
        effect(2.6, presence=0.9),
        effect(2.6, distance=0.6),
        effect(1.85),
        effect(1.2),
    ],
    ids=["leaks up", "leaks down", "no face", "another face", "stalls", "turns back"],
)
def test_the_range_ends_before_the_first_bad_step(third: Effect) -> None:
    assert usable(effect(0.9), effect(1.8), third, effect(3.3)) == 2.0


def test_a_short_last_step_may_add_less() -> None:
    effects = [effect(own) for own in (0.9, 1.8, 1.86)]
    assert usable_step((1.0, 2.0, 2.1), effects, 0, [1], RangeLimits()) == 2.1
    assert usable_step((1.0, 2.0, 3.0), effects, 0, [1], RangeLimits()) == 2.0


def test_a_direction_that_goes_the_wrong_way_has_no_range() -> None:
    assert usable(effect(-0.5)) == 0.0
    assert usable(effect(0.5), sign=-1.0) == 0.0


def test_a_rare_attribute_may_wait_for_its_threshold() -> None:
    late = (effect(-0.05), effect(0.0), effect(1.4), effect(3.0))
    assert usable(*late) == 0.0
    assert usable(*late, threshold=True) == 4.0
    assert usable(*late[:2], effect(1.4, leak=0.7), threshold=True) == 0.0


def test_a_small_leak_is_judged_in_deviations_not_as_a_share() -> None:
    assert usable(effect(0.2, leak=0.3), effect(0.4, leak=0.45)) == 2.0


def test_an_odd_number_of_codes_is_rendered_in_pairs() -> None:
    seen = []

    def render(ws: np.ndarray) -> np.ndarray:
        seen.append(len(ws))
        return np.ones((len(ws), 3, 256, 256), dtype=np.float32) * ws[:, :1, :1, None]

    ws = np.linspace(-1.0, 1.0, 5, dtype=np.float32)[:, None, None] * np.ones((1, 12, 4), dtype=np.float32)
    crops = render_crops(render, ws)
    assert seen == [2, 2, 2]
    assert crops[:, 0, 0, 0].tolist() == [0, 64, 128, 191, 255]


def test_images_become_crops_by_rounding_and_clipping() -> None:
    image = np.array([-1.2, -1.0, 0.0, 1.0, 1.5], dtype=np.float32)[None, None, None].repeat(3, axis=1)
    assert pictures_from(image)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_leak_is_a_share_of_the_dragged_sliders_own_range() -> None:
    def ends(down: tuple[float, float], up: tuple[float, float]) -> tuple[Effect, Effect]:
        return tuple(Effect(np.array(change), np.zeros(2), np.ones(2), {}, 1.0, 0.1, NOBODY) for change in (down, up))  # type: ignore[return-value]

    effects = {"age": ends((-1.0, 0.1), (3.0, -0.6)), "smile": ends((0.5, -1.0), (0.2, 1.0))}
    leaks = leakage(effects, {"age": 0, "smile": 1}, {"age": [1], "smile": [0]})
    assert leaks["age"] == ("smile", pytest.approx(0.3))
    assert leaks["smile"] == ("age", pytest.approx(0.125))
    assert leakage(effects, {"age": 0, "smile": 1}, {"age": [], "smile": [0]})["age"] == ("", 0.0)
