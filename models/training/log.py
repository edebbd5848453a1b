"""What every training shares: a log of JSON lines, a wall-clock budget, atomic checkpoints and weight averaging."""

import copy
import json
import math
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.assets import cache_folder
from engine.errors import CheckpointError, UsageError


class Budget:
    """Wall-clock budget of one training, resumed runs included.

    `minutes` is the whole budget, `spent_s` the seconds that earlier runs of the same training have used already.
    Raises UsageError when there is no time at all.
    """

    def __init__(self, minutes: float, spent_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        if not minutes > 0:
            raise UsageError(f"a training needs a positive number of minutes, not {minutes}")
        self.total_s = minutes * 60.0
        self._clock = clock
        self._start_s = clock() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds used so far."""
        return self._clock() - self._start_s

    @property
    def progress(self) -> float:
        """Used fraction of the budget, in [0, 1]."""
        return min(self.spent_s / self.total_s, 1.0)


class TrainingLog:
    """Appends one JSON object a line to `path`, so that a killed training leaves every line that it wrote."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, **fields: Any) -> None:
        """Append `fields`; tensors and NumPy scalars become plain numbers, floats are cut to 6 digits."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: _plain(value) for name, value in fields.items()}) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def cosine_rate(progress: float, peak: float, warmup: float = 0.03, floor: float = 0.01) -> float:
    """Learning rate at `progress` in [0, 1]: linear to `peak` over `warmup`, then a cosine down to `floor` * peak."""
    if progress < warmup:
        return peak * max(progress / warmup, floor)
    fraction = min((progress - warmup) / (1.0 - warmup), 1.0)
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * fraction)))


def ema_copy(model: nn.Module) -> nn.Module:
    """A frozen copy of `model` in evaluation mode, the start of its running average."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards `model` in place, running statistics included; integer buffers are copied.

    The decay of the first steps is lower, (1 + step) / (10 + step), so that the random start is forgotten.
    """
    weight = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(current, weight)
        else:
            kept.copy_(current)


def checkpoint_dir(name: str) -> Path:
    """The folder of the user's cache for the checkpoints of the training `name`; `save_checkpoint` makes it."""
    return cache_folder() / "training" / name


def save_checkpoint(path: Path, old: Path | None = None, /, **state: Any) -> None:
    """Write `state` (tensors, numbers, strings, lists and dicts of them) so that `path` is either old or complete.

    old: where to keep what `path` held before, None for nowhere. Raises CheckpointError when it cannot be written, on a
    full disk for instance; nothing is left behind.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if old and path.is_file():
            path.replace(old)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch's archive writer reports a write that fell short as a RuntimeError in the wake of the OSError.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        before = "the one before it is intact" if path.is_file() else "there was none before"
        raise CheckpointError(f"{path} cannot be written ({cause.strerror or cause}); {before}; make room") from error
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing in the file is executed.

    Raises CheckpointError when the file is absent, torn or holds anything but plain data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({reason}); train again without --resume"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not the dict of a checkpoint")
    return state
