"""The one training loop: every gradient training of the project is a `Task` for it.

    class MyTask:                                        def run(args):
        name = "mine"                                        return train(MyTask(args), loop_options(args))
        settings = {"rate": 1e-4}
        players = (Player("mine", objective, ({"params": [...], "peak": 1e-4},)),)
        def draw(self, step, samples): ...

The random state of a run is its step number: batches are a pure function of (seed, step, sample number), torch's global
generator is seeded from (seed, step, process) before each step. Hence the data are the same whatever the number of
processes and of workers, and on a CPU a resumed run equals one that was never stopped, bit for bit. (Objectives that
draw from torch's global generator differ from one process to several, because each process draws its own.)

A checkpoint, `last.pt` in the cache folder, holds weights, optimizers, running average, step, seconds and settings. A
run that starts anew keeps the one before it as `previous.pt`. Ctrl-C or SIGTERM ends a run in good order, with a
checkpoint and exit code 0; a second Ctrl-C breaks it off. Weights for shipping go to `--out` with every checkpoint.
"""

import argparse
import itertools
import json
import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import CheckpointError, TrainingDiverged, UsageError
from models.training.distributed import Ranks, joined
from models.training.learner import Learner, Player
from models.training.log import Budget, checkpoint_dir, cosine_rate, load_checkpoint, save_checkpoint
from models.training.reporter import Reporter

__all__ = [
    "LoopOptions",
    "Outcome",
    "Player",
    "Task",
    "add_loop_arguments",
    "fit",
    "loop_options",
    "sample_rng",
    "train",
]

logger = logging.getLogger(__name__)

WARMUP_STEPS = 100
"""Steps of rising learning rate when a run starts from trained weights with a new optimizer."""


class Task(Protocol):
    """What is trained, on what, and how it is judged. Networks outside the players' objectives place themselves."""

    @property
    def name(self) -> str:
        """Name of the training, and of its folder in the cache."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What defines the training, as plain values; a resume with others is refused.

        Batch, seed and mixed precision are the loop's to add; budget, device and reporting do not define a training.
        """

    @property
    def players(self) -> tuple[Player, ...]:
        """In the order of their turns. Asked for once, after `start_from`."""

    def draw(self, step: int, samples: range) -> Any:
        """The samples of those numbers of one step, as tensors in tuples, lists or dicts; no global generator is used.

        Runs in a worker thread. `sample_rng(seed, step, sample)` gives the generator of a sample.
        """

    def start_from(self, folder: Path) -> str:
        """Put the newest weights into the networks: fresh ones in `folder`, else what ships. Says which, in words.

        Raises CheckpointError when there are none.
        """

    def validate(self, average: nn.Module) -> dict[str, float]:
        """Scores of the averaged network on held-out data; no gradient is computed."""

    def images(self, average: nn.Module) -> Tensor | None:
        """A sheet to look at, float RGB [3, H, W] in [-1, 1], or None."""

    def save(self, average: nn.Module, folder: Path) -> None:
        """Write the weights that ship, as `models.checkpoints.weights.save_fresh` does."""


@dataclass(frozen=True)
class LoopOptions:
    """How long, where and how a task is trained.

    out: folder of the trained weights. minutes or steps: the budget, resumed runs included; the learning rate follows
    it. batch: samples a step in each process. resume: go on from the checkpoint, or where there is none from the newest
    weights; init: from the newest weights even so, with other settings perhaps. every_s: seconds between checkpoints,
    each with a validation. log_every: steps a line of the log. workers: threads that draw batches ahead. checkpoints:
    folder of checkpoint, log and TensorBoard files; the cache's when None.
    """

    out: Path
    minutes: float | None = None
    steps: int | None = None
    batch: int = 4
    seed: int = 0
    device: str = "cpu"
    amp: bool = False
    resume: bool = False
    init: bool = False
    every_s: float = 300.0
    log_every: int = 20
    workers: int = 1
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise UsageError("a training has either a number of minutes or a number of steps")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"a training needs a positive number of minutes, not {self.minutes}")
        for name, least in (("steps", 1), ("batch", 1), ("log_every", 1), ("workers", 0), ("every_s", 0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; at least {least} was expected")


@dataclass(frozen=True)
class Outcome:
    """What a run leaves. finished: whether the budget is used up, rather than the run stopped before."""

    average: nn.Module
    step: int
    spent_s: float
    finished: bool


def add_loop_arguments(
    parser: argparse.ArgumentParser, *, minutes: float, batch: int, out: Path | None, amp: bool = False
) -> None:
    """Declare the flags of every training, with this training's defaults; `loop_options` reads them.

    out: None when the person has to say where the weights go.
    """
    add = parser.add_argument
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=minutes, help="wall-clock budget, resumed runs included")
    budget.add_argument("--steps", type=int, help="budget in steps, so that a run can be repeated exactly")
    add("--out", type=Path, default=out, required=out is None, help="folder of the trained weights")
    add("--batch", type=int, default=batch, help="samples a step in each process")
    add("--seed", type=int, default=0)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--amp", action=argparse.BooleanOptionalAction, default=amp, help="mixed precision (bfloat16)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, or else from the newest weights"
    )
    start.add_argument(
        "--init", action="store_true", help="start from the newest weights, whatever checkpoint there is"
    )
    add("--every-s", type=float, default=300.0, help="seconds between checkpoints, each with a validation")
    add("--log-every", type=int, default=20, help="steps a line of the log")
    add("--workers", type=int, default=1, help="threads that draw batches ahead")
    add("--checkpoints", type=Path, help="folder of the checkpoint, the log and the TensorBoard files")


def loop_options(args: argparse.Namespace) -> LoopOptions:
    """What `add_loop_arguments` declared. Raises UsageError when a value is out of range."""
    values = {name: getattr(args, name) for name in LoopOptions.__dataclass_fields__}
    if values["steps"] is not None:
        values["minutes"] = None
    return LoopOptions(**values)


def sample_rng(seed: int, step: int, sample: int) -> np.random.Generator:
    """The generator of one sample: the same for the same numbers, unrelated for others."""
    return np.random.default_rng((seed, step, sample))


def train(task: Task, options: LoopOptions) -> int:
    """`fit` as a command: the exit code, 0 also for a run that was asked to stop."""
    fit(task, options)
    return 0


def fit(task: Task, options: LoopOptions) -> Outcome:
    """Train until the budget is used up or somebody asks to stop.

    Raises UsageError when the settings of a resumed run differ, CheckpointError when a checkpoint cannot be read or
    written, TrainingDiverged when a loss is not finite.
    """
    with joined(options.device) as ranks, _asked_to_stop(ranks.world) as asked:
        run = _Run(task, options, ranks)
        with run.reporter:
            finished = run.train(asked)
        return Outcome(run.learner.average, run.step, run.budget.spent_s, finished)


class _Run:
    """One run of `fit`, from its start or a resume to its end."""

    def __init__(self, task: Task, options: LoopOptions, ranks: Ranks) -> None:
        self._task, self._options, self._ranks = task, options, ranks
        folder = options.checkpoints or checkpoint_dir(task.name)
        self._checkpoint = folder / "last.pt"
        self._settings = _all_settings(task, options, ranks.world)
        self.step, self._warmup_steps, spent_s = 0, 0, 0.0
        saved = self._begin()
        self.learner = Learner(task.players, ranks, amp=options.amp)
        if saved is not None:
            self.learner.load(saved, self._checkpoint)
            self.step, self._warmup_steps, spent_s = saved["step"], saved["warmup_steps"], saved["spent_s"]
        self._saved_step = None if saved is None else self.step
        self._saved_at = time.monotonic()
        self.budget = Budget(math.inf if options.minutes is None else options.minutes, spent_s)
        self.reporter = Reporter(folder, task.name, self.step, options.steps, leads=ranks.leads)
        self.reporter.note(step=self.step, settings=self._settings)

    def _begin(self) -> dict[str, Any] | None:
        """The state to resume from, if there is one; else the weights to start from are in place."""
        there, options = self._checkpoint.is_file(), self._options
        if options.resume and there:
            saved = load_checkpoint(self._checkpoint)
            _compare(self._checkpoint, saved, self._settings)
            self._say("going on from step %d of %s", saved["step"], self._checkpoint)
            return saved
        if there and self._ranks.leads:
            self._checkpoint.replace(self._checkpoint.with_name("previous.pt"))
        if options.resume or options.init:
            source = self._task.start_from(options.out)
            self._warmup_steps = WARMUP_STEPS
            missing = f"no checkpoint in {self._checkpoint.parent}: " if options.resume else ""
            told = "%sstarting from %s with a fresh optimizer and %d warm-up steps"
            self._say(told, missing, source, WARMUP_STEPS)
        return None

    def _say(self, text: str, *values: Any) -> None:
        if self._ranks.leads:
            logger.info("%s: " + text, self._task.name, *values)

    def train(self, asked: threading.Event) -> bool:
        """Step until the budget is used up (True) or `asked` is set (False)."""
        options, share = self._options, self._ranks.share(self._options.batch)
        with closing(_drawn(self._task, self.step, share, options.workers)) as batches:
            for batch in batches:
                progress, stopped, due = self._decide(asked)
                finished = progress >= 1.0
                if due or finished or stopped:
                    self._pause(validate=not stopped)
                if finished or stopped:
                    break
                self._advance(batch, progress)
        self._say("%s after %d steps; checkpoint %s", "done" if finished else "stopped", self.step, self._checkpoint)
        return finished

    def _decide(self, asked: threading.Event) -> tuple[float, bool, bool]:
        """Progress, whether to stop, whether a pause is due; the same in every process."""
        progress, due = 0.0, False
        if self._ranks.leads:
            progress = self.step / self._options.steps if self._options.steps else self.budget.progress
            due = self.step > (self._saved_step or 0) and time.monotonic() - self._saved_at >= self._options.every_s
        progress, stopped, due = self._ranks.largest((progress, asked.is_set(), due))
        return progress, bool(stopped), bool(due)

    def _advance(self, batch: Any, progress: float) -> None:
        """One step of every player."""
        torch.manual_seed(_step_seed(self._options.seed, self.step, self._ranks.rank))
        started = self._warmup_steps
        warm = min((self.step + 1) / started, 1.0) if started else 1.0

        def rate(peak: float) -> float:
            return warm * (cosine_rate(progress, peak, warmup=0.0) if started else cosine_rate(progress, peak))

        try:
            scalars = self.learner.step(batch, rate, self.step)
        except FloatingPointError as error:
            raise TrainingDiverged(f"{self._task.name} at step {self.step}: {error}; {self._last_good()}") from error
        self.step += 1
        self.reporter.add(scalars | {"rate_share": rate(1.0)})
        if self.step % self._options.log_every == 0:
            self.reporter.line(self.step, self.budget.spent_s)

    def _last_good(self) -> str:
        if self._saved_step is None:
            return "no checkpoint had been written yet"
        return f"the last good checkpoint is {self._checkpoint}, of step {self._saved_step}"

    def _pause(self, *, validate: bool) -> None:
        """Write checkpoint and weights, and look at how it goes."""
        self.reporter.line(self.step, self.budget.spent_s)
        if self._ranks.leads:
            state = {"step": self.step, "spent_s": self.budget.spent_s, "warmup_steps": self._warmup_steps}
            old = self._checkpoint.with_name("previous.pt") if self._saved_step is None else None
            save_checkpoint(self._checkpoint, old, **state, settings=self._settings, **self.learner.state())
            average = self.learner.average
            self._task.save(average, self._options.out)
            if validate:
                with torch.no_grad():
                    scores, sheet = self._task.validate(average), self._task.images(average)
                self.reporter.scores(self.step, self.budget.spent_s, scores, sheet)
        self._saved_step, self._saved_at = self.step, time.monotonic()


def _all_settings(task: Task, options: LoopOptions, world: int) -> dict[str, Any]:
    """What must not change over a resume; the batch is that of all processes together."""
    settings = {**task.settings, "batch": options.batch * world, "seed": options.seed, "amp": options.amp}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def _compare(checkpoint: Path, saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises UsageError when the checkpoint was made with other settings, CheckpointError when it is not one."""
    if missing := [name for name in ("step", "spent_s", "warmup_steps", "settings") if name not in saved]:
        raise CheckpointError(f"{checkpoint} holds no {', '.join(missing)}: not a checkpoint; train without --resume")
    names = list(dict.fromkeys([*settings, *saved["settings"]]))
    before, now = (
        ["nothing" if n not in kept else repr(kept[n]) for n in names] for kept in (saved["settings"], settings)
    )
    differ = [f"{n} is {b}, the checkpoint has {a}" for n, a, b in zip(names, before, now, strict=True) if a != b]
    if differ:
        raise UsageError(
            f"{checkpoint} was made with other settings: {'; '.join(differ[:3])}; train with --init or anew"
        )


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _drawn(task: Task, step: int, share: range, workers: int) -> Generator[Any, None, None]:
    """The batches from `step` on; with workers, as many are drawn ahead while the networks learn."""
    if workers == 0:
        yield from (task.draw(number, share) for number in itertools.count(step))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="draw")
    try:
        ahead = deque(pool.submit(task.draw, number, share) for number in range(step, step + workers))
        for number in itertools.count(step + workers):
            batch = ahead.popleft().result()
            ahead.append(pool.submit(task.draw, number, share))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _asked_to_stop(world: int) -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM; the second signal raises KeyboardInterrupt.

    Of several processes none breaks off: torchrun passes one Ctrl-C on twice, and kills what does not end in time.
    """
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set() and world == 1:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked  # no signals arrive here
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
