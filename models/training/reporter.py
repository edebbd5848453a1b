"""What a training tells while it runs: a progress bar, JSON lines and TensorBoard files."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from tqdm import tqdm

from models.training.board import Board
from models.training.log import TrainingLog


class Reporter:
    """Reports of one run into `folder`: log.jsonl and board/. A context, closed at its end.

    start: the step it begins with, 0 or that of a checkpoint. steps: the budget, None when it is a time. leads: False
    for a process that keeps silent.
    """

    def __init__(self, folder: Path, name: str, start: int, steps: int | None, *, leads: bool) -> None:
        self._sums = defaultdict[str, float](float)
        self._counts = defaultdict[str, int](int)
        self._log = TrainingLog(folder / "log.jsonl") if leads else None
        self._board = Board(folder / "board", start) if leads else None
        # Without a terminal there is no bar.
        self._bar = tqdm(desc=name, total=steps, initial=start, unit="step", disable=None if leads else True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._board:
            self._board.close()

    def note(self, **fields: Any) -> None:
        """A line of the log."""
        if self._log:
            self._log.write(**fields)

    def add(self, scalars: Mapping[str, float]) -> None:
        """What one step has to say; `line` reports the means."""
        for name, value in scalars.items():
            self._sums[name] += value
            self._counts[name] += 1
        self._bar.update()

    def line(self, step: int, spent_s: float) -> None:
        """Report the means of the steps since the last line, if there were any."""
        if not self._counts:
            return
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        self.note(step=step, spent_s=spent_s, **means)
        first = next(iter(means))
        self._bar.set_postfix({"minutes": f"{spent_s / 60:.1f}", first: f"{means[first]:.4g}"})
        if self._board:
            self._board.scalars(step, means, "train")

    def scores(self, step: int, spent_s: float, scores: Mapping[str, float], sheet: Tensor | None) -> None:
        """Report a validation."""
        self.note(step=step, spent_s=spent_s, **{f"validation_{name}": value for name, value in scores.items()})
        if self._board:
            self._board.scalars(step, scores, "validation")
            if sheet is not None:
                self._board.sheet(step, sheet)
