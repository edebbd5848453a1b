"""The shared parts of the trainings."""

import json
import resource

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import CheckpointError, UsageError
from models.training.log import (
    Budget,
    TrainingLog,
    cosine_rate,
    ema_copy,
    ema_update,
    load_checkpoint,
    save_checkpoint,
)


def test_budget_counts_the_seconds_of_earlier_runs():
    now = [100.0]
    budget = Budget(minutes=1, spent_s=30, clock=lambda: now[0])
    assert budget.progress == pytest.approx(0.5)
    now[0] += 29
    assert budget.progress < 1.0
    now[0] += 2
    assert budget.progress == 1.0


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_budget_refuses_no_time(minutes):
    with pytest.raises(UsageError, match="positive"):
        Budget(minutes=minutes)


def test_log_appends_plain_numbers(tmp_path):
    log = TrainingLog(tmp_path / "deep" / "log.jsonl")
    log.write(step=1, loss=torch.tensor(0.25), iou=[np.float32(0.5)])
    log.write(step=2)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.25, "iou": [0.5]}, {"step": 2}]


def test_cosine_rate_rises_then_falls():
    assert cosine_rate(0.0, 1.0) < cosine_rate(0.02, 1.0) < cosine_rate(0.03, 1.0) == pytest.approx(1.0)
    assert cosine_rate(0.5, 1.0) > cosine_rate(0.9, 1.0) > cosine_rate(1.0, 1.0) == pytest.approx(0.01)


def test_ema_moves_parameters_and_statistics_and_copies_counters():
    model = nn.BatchNorm1d(2)
    average = ema_copy(model)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(8.0)
        model.num_batches_tracked.fill_(5)
    ema_update(average, model, decay=0.75, step=10_000)
    assert torch.allclose(average.weight, torch.full((2,), 1.5))
    assert torch.allclose(average.running_mean, torch.full((2,), 2.0))
    assert average.num_batches_tracked == 5
    assert not average.weight.requires_grad
    assert not average.training


def test_checkpoint_resumes_the_optimizer(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "new" / "last.pt"
    save_checkpoint(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=1)

    state = load_checkpoint(path)
    assert state["step"] == 1
    assert torch.equal(state["model"]["weight"], model.weight)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(state["optimizer"])
    assert again.state_dict()["state"][0]["step"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_failed_save_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, step=1)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint(path, step=lambda: None)
    assert load_checkpoint(path) == {"step": 1}


def test_a_write_that_falls_short_is_an_error_for_a_person(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, step=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"last\.pt cannot be written \(File too large\); .*intact"):
            save_checkpoint(path, weights=torch.zeros(1000, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_can_keep_the_one_before(tmp_path):
    path, old = tmp_path / "last.pt", tmp_path / "previous.pt"
    save_checkpoint(path, old, step=1)
    assert not old.exists()
    save_checkpoint(path, old, step=2)
    assert (load_checkpoint(path), load_checkpoint(old)) == ({"step": 2}, {"step": 1})


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_unreadable_checkpoint(tmp_path, content):
    path = tmp_path / "last.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        load_checkpoint(path)


def test_checkpoint_with_code_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"step": nn.Linear(1, 1)}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
