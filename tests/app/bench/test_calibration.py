"""The calibration graph is the same work everywhere, and really done in the precision that it is told under."""

import numpy as np
import pytest

from app.bench.calibration import GFLOP, Calibration


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration()


def test_it_is_as_much_work_as_said() -> None:
    assert pytest.approx(17.18, abs=0.01) == GFLOP


def test_the_answer_is_the_same_every_time_and_neither_fades_nor_grows(calibration: Calibration) -> None:
    answer = calibration.answer("f32").copy()
    assert answer.shape == (1, 256, 128, 128)
    assert 0.3 < answer.std() < 3.0
    np.testing.assert_array_equal(answer, calibration.answer("f32"))


def test_bf16_rounds(calibration: Calibration) -> None:
    if "bf16" not in calibration.precisions:
        pytest.skip("this processor has no bf16")
    exact, rounded = calibration.answer("f32").copy(), calibration.answer("bf16").copy()
    error = np.abs(exact - rounded).mean() / exact.std()
    assert 1e-4 < error < 0.1


def test_every_taking_adds_times(calibration: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bench.calibration._REPEATS", 1)
    calibration.take()
    for times in calibration.as_json().values():
        assert 0 < times["p50"] <= times["max"]
