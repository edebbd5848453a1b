"""The training loop: what a resume, a second process, bad numbers and bad disks do to a run."""

import argparse
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import CheckpointError, RuntimeUnavailable, TrainingDiverged, UsageError
from models.training import log, loop
from models.training.distributed import joined
from models.training.learner import Learner
from models.training.loop import LoopOptions, add_loop_arguments, fit, loop_options, sample_rng, train
from tests.models.training.toy_task import ToyTask, lines, options

TOY = Path(__file__).with_name("toy_task.py")


def checkpoint(folder: Path) -> dict[str, Any]:
    return log.load_checkpoint(folder / "run" / "last.pt")


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Every leaf of nested dicts and lists by its path."""
    if isinstance(state, dict | list):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {key: leaf for part, value in pairs for key, leaf in flat(value, f"{name}/{part}").items()}
    return {name: state}


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit."""
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


def interrupt_at(*steps: int, **chosen: Any) -> ToyTask:
    """A task that is interrupted when it draws a batch of these steps; draw with no worker."""
    return ToyTask(before=lambda step: signal.raise_signal(signal.SIGINT) if step in steps else None, **chosen)


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed_equals_never_stopped_bit_for_bit(tmp_path: Path, adversarial: bool, workers: int) -> None:
    straight = ToyTask(adversarial=adversarial)
    assert fit(straight, options(tmp_path / "straight", workers=workers)).finished
    outcome = fit(interrupt_at(5, adversarial=adversarial), options(tmp_path / "twice", workers=0))
    assert (outcome.step, outcome.finished) == (5, False)
    assert fit(ToyTask(adversarial=adversarial), options(tmp_path / "twice", workers=workers, resume=True)).step == 10
    for part in ("players", "average", "step", "settings", "warmup_steps"):
        assert_same(checkpoint(tmp_path / "straight")[part], checkpoint(tmp_path / "twice")[part])
    losses = [[line for line in lines(tmp_path / run) if "rate_share" in line] for run in ("straight", "twice")]
    for once, twice in zip(*losses, strict=True):
        assert {**once, "spent_s": 0} == {**twice, "spent_s": 0}


def run_toy(folder: Path, *words: str, processes: int = 1) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), str(TOY)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOY.parents[3])}
    done = subprocess.run([*launch, str(folder), *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_processes_learn_what_one_learns_from_the_doubled_batch(tmp_path: Path) -> None:
    run_toy(tmp_path / "two", "batch=2", "steps=12", "every_s=0", processes=2)
    fit(ToyTask(), options(tmp_path / "one", batch=4, steps=12, every_s=0))
    curves = [[line["loss"] for line in lines(tmp_path / run) if "loss" in line] for run in ("one", "two")]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
    assert len(curves[0]) == 12
    one, two = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "two")
    assert one["settings"] == two["settings"]
    for part in ("players", "average"):
        for name, value in flat(one[part]).items():
            torch.testing.assert_close(value, flat(two[part])[name], rtol=1e-5, atol=1e-6)


def test_processes_draw_neighbouring_samples_and_decide_together() -> None:
    with joined("cpu") as alone:
        assert alone.share(3) == range(3)
        assert alone.largest((0.5, True)) == [0.5, 1.0]
    assert loop.Ranks(2, 4, torch.device("cpu")).share(3) == range(6, 9)


def test_half_a_torchrun_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match="MASTER_ADDR"), joined("cpu"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_absent_device_is_named() -> None:
    with pytest.raises(RuntimeUnavailable, match="--device cpu"), joined("cuda"):
        pass


def poison(task: ToyTask, step: int, part: str) -> None:
    """Makes the loss, or only the gradient, not a number in one step."""

    def forward(batch: Any) -> Any:
        loss, scalars = type(objective).forward(objective, batch)
        if len(steps) == step:
            wrong = loss * torch.nan if part == "loss" else (0 * loss.square()).sqrt() + loss.detach()
            loss = wrong
        steps.append(0)
        return loss, scalars

    objective, steps = task.players[0].objective, list[int]()
    objective.forward = forward


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_number_that_is_not_one_stops_and_names_the_last_good_checkpoint(tmp_path: Path, part: str) -> None:
    task = ToyTask()
    poison(task, 4, part)
    with pytest.raises(TrainingDiverged, match=rf"step 4: the {part} of toy .*last\.pt, of step 4$"):
        fit(task, options(tmp_path, every_s=0))
    state = checkpoint(tmp_path)
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in flat(state).values() if isinstance(value, torch.Tensor))


def test_a_first_step_that_is_not_a_number_has_no_checkpoint_to_name(tmp_path: Path) -> None:
    task = ToyTask()
    poison(task, 0, "loss")
    with pytest.raises(TrainingDiverged, match="no checkpoint"):
        fit(task, options(tmp_path))
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(interrupt_at(5), options(tmp_path, workers=0))

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(log.os, "fsync", fail)
    with pytest.raises(CheckpointError, match=r"last\.pt .*No space left.*intact") as caught:
        fit(ToyTask(), options(tmp_path, resume=True))
    assert "\n" not in str(caught.value)
    assert checkpoint(tmp_path)["step"] == 5
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["board", "last.pt", "log.jsonl"]


def test_ctrl_c_ends_the_program_in_good_order(tmp_path: Path) -> None:
    words = [sys.executable, str(TOY), str(tmp_path), "minutes=5"]
    environment = {**os.environ, "PYTHONPATH": str(TOY.parents[3])}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as program:
        try:
            deadline = time.monotonic() + 300  # a machine with much else to do
            while not (tmp_path / "run" / "log.jsonl").exists() or not any("loss" in line for line in lines(tmp_path)):
                assert program.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            program.send_signal(signal.SIGINT)
            errors = program.communicate(timeout=300)[1]
        finally:
            program.kill()
    assert program.returncode == 0, errors
    assert "Traceback" not in errors
    assert checkpoint(tmp_path)["step"] >= 1


def test_a_second_ctrl_c_breaks_off(tmp_path: Path) -> None:
    task, before = ToyTask(), signal.getsignal(signal.SIGINT)  # ignored, for a job in the background of a shell

    def twice(step: int) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    task.before = twice
    with pytest.raises(KeyboardInterrupt):
        fit(task, options(tmp_path, workers=0))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_returns_zero_and_says_that_it_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "models")
    task = interrupt_at(2)
    assert train(task, options(tmp_path, workers=0)) == 0
    assert "toy: stopped after 2 steps" in caplog.text
    assert task.saved == [tmp_path / "out"]
    assert not any("validation_bias" in line for line in lines(tmp_path))


@pytest.mark.parametrize(
    ("task", "chosen", "message"),
    [
        ({}, {"batch": 8}, "batch is 8, the checkpoint has 4;"),
        ({"rate": 0.5}, {}, r"rate is 0\.5, the checkpoint has 0\.02;"),
        ({}, {"seed": 1, "amp": True}, "seed is 1, the checkpoint has 0; amp is True, the checkpoint has False;"),
    ],
)
def test_a_resume_with_other_settings_is_refused(tmp_path: Path, task: Any, chosen: Any, message: str) -> None:
    fit(ToyTask(), options(tmp_path, steps=2))
    with pytest.raises(UsageError, match=message):
        fit(ToyTask(**task), options(tmp_path, resume=True, **chosen))
    assert fit(ToyTask(), options(tmp_path, resume=True, steps=3, log_every=7, workers=3)).step == 3


def test_a_setting_that_is_new_is_named(tmp_path: Path) -> None:
    fit(ToyTask(), options(tmp_path, steps=2))
    task = ToyTask()
    task.settings = {"place": "here", "sizes": (3, 8), "pace": 1}
    with pytest.raises(UsageError, match=r"pace is 1, the checkpoint has nothing; rate is nothing, the checkpoint has"):
        fit(task, options(tmp_path, resume=True))


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    fit(ToyTask(), options(tmp_path, steps=2))
    with pytest.raises(CheckpointError, match=r"last\.pt does not fit"):
        fit(ToyTask(adversarial=True), options(tmp_path, resume=True))


def test_a_resume_without_a_checkpoint_starts_from_weights_and_warms_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models")
    fit(interrupt_at(3), options(tmp_path, steps=1000, resume=True, workers=0))
    assert f"no checkpoint in {tmp_path / 'run'}: starting from weights of {tmp_path / 'out'}" in caplog.text
    assert "fresh optimizer and 100 warm-up steps" in caplog.text
    assert "going on from step" not in caplog.text
    fit(interrupt_at(5), options(tmp_path, steps=1000, resume=True, workers=0))
    assert "going on from step 3" in caplog.text
    rates = [line["rate_share"] for line in lines(tmp_path) if "rate_share" in line]
    assert rates == pytest.approx([(n + 1) / 100 for n in range(5)], rel=1e-3)


def test_init_starts_from_weights_though_there_is_a_checkpoint_of_other_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(ToyTask(), options(tmp_path, steps=2))
    caplog.set_level(logging.INFO, "models")
    outcome = fit(ToyTask(rate=0.5), options(tmp_path, steps=1, init=True))
    assert outcome.step == 1
    assert f"starting from weights of {tmp_path / 'out'}" in caplog.text
    assert (tmp_path / "run" / "previous.pt").is_file()


def test_a_start_from_weights_keeps_them(tmp_path: Path) -> None:
    outcome = fit(interrupt_at(1), options(tmp_path, steps=1000, resume=True, workers=0))
    assert float(outcome.average[0].bias.detach().mean()) == pytest.approx(0.5, abs=1e-3)


def test_a_new_run_keeps_the_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    fit(ToyTask(), options(tmp_path, steps=3))
    fit(ToyTask(), options(tmp_path, steps=2, every_s=0))
    assert checkpoint(tmp_path)["step"] == 2
    assert log.load_checkpoint(tmp_path / "run" / "previous.pt")["step"] == 3


def test_minutes_are_a_budget_and_the_rate_follows_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(loop, "Budget", lambda minutes, spent_s: log.Budget(minutes, spent_s, lambda: next(seconds)))
    outcome = fit(ToyTask(), options(tmp_path, minutes=1, log_every=100))
    assert outcome.finished
    assert 50 <= outcome.step <= 60
    rates = [line["rate_share"] for line in lines(tmp_path) if "rate_share" in line]
    assert rates[-1] == pytest.approx(0.5, abs=0.1)  # the mean over a whole cosine


def test_checkpoints_hold_what_changes_and_no_judge(tmp_path: Path) -> None:
    fit(ToyTask(), options(tmp_path, steps=2))
    kept = checkpoint(tmp_path)["players"]["toy"]["objective"]
    assert kept["seen"] == 2
    assert not any(name.startswith("judge") for name in kept)
    assert any(name.startswith("network") for name in kept)


def one_step(task: ToyTask, rate: float = 0.0) -> Learner:
    with joined("cpu") as alone:
        learner = Learner(task.players, alone, amp=False)
        learner.step(task.draw(0, range(4)), lambda peak: rate, 50)
    return learner


def test_gradients_are_clipped_and_stay_with_their_player() -> None:
    task = ToyTask(adversarial=True)
    maker, critic = task.players
    task.players = (loop.Player("maker", maker.objective, maker.groups, maker.network, clip=1e-3), critic)
    one_step(task)
    gradients = torch.cat([parameter.grad.flatten() for parameter in task.network.parameters()])
    assert float(gradients.norm()) == pytest.approx(1e-3, rel=1e-2)
    assert all(parameter.requires_grad for player in task.players for parameter in player.objective.parameters())


def test_the_average_moves_by_its_decay() -> None:
    task = ToyTask()
    before = task.network[0].weight.detach().clone()
    learner = one_step(task, rate=0.1)
    after = task.network[0].weight.detach()
    assert not torch.equal(before, after)
    decay = min(0.9, 51 / 60)
    torch.testing.assert_close(learner.average[0].weight, decay * before + (1 - decay) * after)


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    task, seen = ToyTask(), list[torch.dtype]()
    task.network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fit(task, options(tmp_path, steps=2, amp=True))
    assert set(seen) == {torch.bfloat16}
    assert task.network[0].weight.dtype == torch.float32


def test_tensorboard_files_hold_curves_and_a_sheet(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(ToyTask(), options(tmp_path, steps=4))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "board"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == [1, 2, 3, 4]
    logged = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert [point.value for point in events.Scalars("train/loss")] == pytest.approx(logged, rel=1e-4)
    assert events.Scalars("validation/bias")[0].step == 4
    (sheet,) = events.Images("sheet")
    assert (sheet.height, sheet.width) == (4, 6)


def test_without_tensorboard_a_run_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert fit(ToyTask(), options(tmp_path, steps=2)).finished
    assert "tensorboard is not installed" in caplog.text
    assert not (tmp_path / "run" / "board").exists()


def test_flags_become_options(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_loop_arguments(parser, minutes=7.0, batch=3, out=tmp_path)
    plain = loop_options(parser.parse_args([]))
    assert plain == LoopOptions(out=tmp_path, minutes=7.0, batch=3)
    chosen = loop_options(parser.parse_args(["--steps", "5", "--amp", "--resume", "--every-s", "1"]))
    assert chosen == LoopOptions(out=tmp_path, steps=5, batch=3, amp=True, resume=True, every_s=1.0)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch": 0}, {"minutes": 0.0}, {"minutes": float("nan")}, {"workers": -1}, {"every_s": -1}]
)
def test_options_out_of_range_are_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(UsageError):
        options(tmp_path, **wrong)


def test_samples_have_generators_of_their_own() -> None:
    draws = [sample_rng(*numbers).random() for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))]
    assert len(set(draws)) == 4
    assert draws[0] == draws[4]
