"""The comparison finds what differs, says where, and judges by the precision's tolerance."""

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import ExportError
from export.verify import TOLERANCES, compare, drawn_faces, judge, record, report
from tests.engine.conftest import tiny, tiny_folder, tiny_networks

__all__ = ["tiny", "tiny_folder", "tiny_networks"]

STEPS = 4
OUTPUTS = {
    "encoder_anchor.ws",
    "encoder.ws",
    "generator.image",
    "recurrent.dws",
    "recurrent.noise",
    "recurrent.h_out",
    "recurrent.c_out",
    "parser.logits",
    "refiner.dws",
}


class Off:
    """A network one of whose outputs is off by a little, from its third call on."""

    def __init__(self, network, output, by):
        self.network, self.output, self.by, self.calls = network, output, by, 0
        self.spec = network.spec

    def __call__(self, **arrays):
        outputs = dict(self.network(**arrays))
        self.calls += 1
        if self.calls > 2:
            outputs[self.output] = outputs[self.output] + np.float32(self.by)
        return outputs


@pytest.fixture(scope="module")
def crops(tiny, tiny_networks):
    return drawn_faces(tiny_networks, tiny, STEPS)


@pytest.fixture(scope="module")
def expected(tiny, tiny_networks, crops):
    return record(tiny_networks, tiny, crops)


def test_the_film_is_seeded_moves_and_stays_in_range(tiny, tiny_networks, crops):
    again, other = drawn_faces(tiny_networks, tiny, STEPS), drawn_faces(tiny_networks, tiny, STEPS, seed=1)
    for index, crop in enumerate(crops):
        np.testing.assert_array_equal(crop, again[index])
        assert not np.array_equal(crop, other[index])
        assert (crop.shape, crop.dtype) == ((1, 3, 256, 256), np.float32)
        assert np.abs(crop).max() <= 1.0
    assert np.abs(crops[0] - crops[3]).mean() > 0.04


def test_every_output_is_compared_at_every_step(expected):
    errors = compare(expected, expected)
    assert errors.keys() == OUTPUTS
    assert {name: len(error.max) for name, error in errors.items()} == {
        name: {"encoder_anchor.ws": 1, "refiner.dws": 1, "encoder.ws": STEPS - 1}.get(name, STEPS) for name in OUTPUTS
    }
    assert max(max(error.max) for error in errors.values()) == 0.0
    judge(errors, "fp32")


def test_an_error_in_the_state_shows_in_the_images_after_it(tiny, tiny_networks, crops, expected):
    wrong = replace(tiny_networks, recurrent=Off(tiny_networks.recurrent, "h_out", 0.05))
    errors = compare(expected, record(wrong, tiny, crops))
    assert errors["generator.image"].max[0] == 0.0
    assert errors["generator.image"].max[2] > 1e-3
    with pytest.raises(ExportError, match=r"max error of .* at step \d, but fp32 allows 0\.001"):
        judge(errors, "fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_each_precision_has_its_limit(tiny, tiny_networks, crops, expected, precision):
    limit = TOLERANCES[precision].limit
    for factor, fails in ((0.9, False), (1.1, True)):
        found = [{**step, "generator.image": step["generator.image"] + limit * factor} for step in expected]
        errors = compare(expected, found)
        assert max(errors["generator.image"].mean) == pytest.approx(limit * factor, rel=0.01)
        if fails:
            with pytest.raises(ExportError, match=r"generator\.image"):
                judge(errors, precision)
        else:
            judge(errors, precision)


def test_a_large_output_is_measured_against_how_far_it_reaches(expected):
    base = [{"parser.logits": np.array([0.0, -200.0], np.float32)}]
    errors = compare(base, [{"parser.logits": np.array([0.1, -200.0], np.float32)}])
    assert errors["parser.logits"].reach == 200.0
    assert errors["parser.logits"].max[0] == pytest.approx(0.1 / 200)


def test_nan_is_refused(expected):
    broken = [{**step, "recurrent.dws": step["recurrent.dws"] * np.nan} for step in expected]
    with pytest.raises(ExportError, match=r"recurrent\.dws is not finite"):
        compare(expected, broken)


def test_the_report_has_every_step(expected):
    told = report(compare(expected, expected), "bf16")
    assert told["tolerance"] == {"figure": "mean", "limit": 1.5e-2}
    assert told["steps"] == STEPS
    assert len(told["outputs"]["generator.image"]["max_per_step"]) == STEPS
