"""`rigid-live train parser`: train the face parser on CelebAMask-HQ pairs."""

import argparse
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import CheckpointError
from models.parsing import CLASSES, FACE_CLASSES, FaceParser
from models.training import parsing_samples as samples
from models.training.log import (
    Budget,
    TrainingLog,
    cosine_rate,
    ema_copy,
    ema_update,
    load_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
)
from models.training.splits import load_splits

logger = logging.getLogger(__name__)

PEAK_RATE = 2e-3
EMA_DECAY = 0.998
WEIGHTS, LINEAGE = "parser.pt", "parser.json"
LICENCE = "trained on CelebAMask-HQ: non-commercial research and education only"
_LOG_EVERY, _VALIDATE_EVERY = 20, 100


@dataclass(frozen=True)
class Pairs:
    """Images uint8 RGB [N, 256, 256, 3] and class indices uint8 [N, 256, 256]."""

    crops: samples.U8
    labels: samples.U8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this training."""
    parser.add_argument("--data", type=Path, required=True, help="folder that holds parsing/celebamask256")
    parser.add_argument("--out", type=Path, required=True, help="folder for the log, the checkpoint and the weights")
    parser.add_argument("--minutes", type=float, default=15.0, help="wall-clock budget, resumed runs included")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Train until the budget is used up, then score the averaged weights on the test split and save them."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    log = TrainingLog(args.out / "log.jsonl")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    log.write(settings={name: value for name, value in settings.items() if not callable(value)})
    train, validation, test = (load_split(args.data, split) for split in ("train", "validation", "test"))
    average, steps, spent_s = fit(train, validation, args, log)
    measure_statistics(average, batches(train, args.batch, np.random.default_rng(args.seed)))
    report = lineage(average, test, len(train.crops), steps, spent_s / 60)
    log.write(step=steps, test_miou=report["miou"], test_iou=report["iou"])
    save_checkpoint(args.out / WEIGHTS, weights=average.state_dict())
    (args.out / LINEAGE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    logger.info("parser: mIoU %.3f on %d held-out faces after %d steps", report["miou"], len(test.crops), steps)
    return 0


def load_parser(weights: Path) -> FaceParser:
    """The network of `run`'s `parser.pt`, in evaluation mode. Raises CheckpointError when the file does not fit."""
    parser = FaceParser()
    try:
        parser.load_state_dict(load_checkpoint(weights)["weights"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{weights} does not hold a face parser's weights; expected {WEIGHTS} of a run"
        ) from error
    return parser.eval()


def load_split(data: Path, split: str) -> Pairs:
    """One split of the parsing pairs, in memory."""
    return Pairs(*samples.load_pairs(load_splits().parsing_pairs(data, split)))


def fit(train: Pairs, validation: Pairs, args: argparse.Namespace, log: TrainingLog) -> tuple[nn.Module, int, float]:
    """Train, resuming when asked. Returns the averaged network, the steps done and the seconds used."""
    learner, rng = Learner.fresh(), np.random.default_rng(args.seed)
    checkpoint = args.out / "last.pt"
    step, spent_s = learner.load(checkpoint, rng) if args.resume else (0, 0.0)
    weights = class_weights(train.labels)
    budget = Budget(args.minutes, spent_s)
    for crops, labels in batches(train, args.batch, rng):
        if budget.exhausted:
            break
        loss = learner.step(crops, labels, weights, cosine_rate(budget.progress, PEAK_RATE), step)
        step += 1
        if step % _LOG_EVERY == 0:
            log.write(step=step, spent_s=budget.spent_s, loss=loss)
        if step % _VALIDATE_EVERY == 0:
            ious = class_ious(learner.average, validation)
            log.write(step=step, spent_s=budget.spent_s, validation_miou=float(ious.mean()))
            learner.save(checkpoint, rng, step, budget.spent_s)
    learner.save(checkpoint, rng, step, budget.spent_s)
    return learner.average, step, budget.spent_s


@dataclass(frozen=True)
class Learner:
    """The network that learns, its running average (the one that ships) and its optimizer."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def fresh(cls) -> Self:
        """Random weights from torch's global generator."""
        # channels_last and bfloat16 are what the matrix units of a CPU want: half the time of plain fp32.
        model = FaceParser().to(memory_format=torch.channels_last)
        return cls(model, ema_copy(model), torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=1e-2))

    def step(self, crops: Tensor, labels: Tensor, weights: Tensor, rate: float, step: int) -> float:
        """One update at the learning rate `rate`; returns the loss before it."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(crops)
        loss = parsing_loss(logits.float(), labels, weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        ema_update(self.average, self.model, EMA_DECAY, step)
        return loss.item()

    def save(self, path: Path, rng: np.random.Generator, step: int, spent_s: float) -> None:
        """Write all that `load` needs to go on as if nothing had happened."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        save_checkpoint(path, **parts, rng=rng_state(rng), step=step, spent_s=spent_s)

    def load(self, path: Path, rng: np.random.Generator) -> tuple[int, float]:
        """Take up what `save` wrote; returns its step and seconds. Raises CheckpointError when it does not fit."""
        state = load_checkpoint(path)
        try:
            for name in ("model", "average", "optimizer"):
                getattr(self, name).load_state_dict(state[name])
            restore_rng(state["rng"], rng)
            return state["step"], state["spent_s"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a checkpoint of this training; train without --resume") from error


@torch.no_grad()
def measure_statistics(model: nn.Module, crops_and_labels: Iterator[tuple[Tensor, Tensor]], count: int = 40) -> None:
    """Set the batch norms' running statistics to plain means over `count` training batches; ends in evaluation mode.

    The averaged weights are those of no step, so the statistics met on the way do not fit them: several points of IoU.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    model.train()
    for crops, _ in itertools.islice(crops_and_labels, count):
        model(crops)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def parsing_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross entropy plus half a Dice loss over the classes that the batch holds.

    `logits` [B, K, H, W] float, `labels` [B, H, W] int64, `weights` [K] float. Dice asks for overlap, which is what
    the score counts, so that small classes (glasses, hats) are not traded for a few pixels of hair.
    """
    entropy = F.cross_entropy(logits, labels, weights)
    chances = logits.softmax(1)
    truth = F.one_hot(labels, logits.shape[1]).movedim(3, 1).to(chances.dtype)
    overlap = (chances * truth).sum((0, 2, 3))
    size = chances.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    dice = 1.0 - 2.0 * overlap[present] / size[present]
    return entropy + 0.5 * dice.mean()


def class_weights(labels: NDArray[np.uint8]) -> Tensor:
    """Weight [K] of each class: frequency to the power -0.4, mean 1 over the pixels."""
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES)).astype(np.float64)
    frequency = np.maximum(counts / counts.sum(), 1e-4)
    weights = frequency**-0.4
    return torch.from_numpy(weights / (weights * frequency).sum()).float()


def batches(pairs: Pairs, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless augmented batches: crops [B, 3, 256, 256] in [-1, 1] and labels [B, 128, 128] int64.

    The next batch is made by one worker while the network trains on this one.
    """

    def make(indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        made = [samples.augmented_sample(pairs.crops, pairs.labels, index, rng) for index in indices]
        crops = samples.to_network([crop for crop, _ in made])
        labels = torch.from_numpy(np.stack([label for _, label in made])).long()
        return crops, labels

    chances = sampling_chances(pairs.labels)
    with ThreadPoolExecutor(max_workers=1) as worker:
        ahead = worker.submit(make, rng.choice(len(chances), size, p=chances))
        while True:
            batch = ahead.result()
            ahead = worker.submit(make, rng.choice(len(chances), size, p=chances))
            yield batch


def sampling_chances(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Chance [N] of each pair to be drawn: four times the others' for those with glasses or a hat, one in ten."""
    rare = np.isin(labels, [CLASSES.index("glasses"), CLASSES.index("hat")]).mean((1, 2)) > 0.003
    weights = np.where(rare, 4.0, 1.0)
    return weights / weights.sum()


def class_ious(model: nn.Module, pairs: Pairs) -> NDArray[np.float64]:
    """Intersection over union of each class [K] over all pixels of `pairs`."""
    return ious_from_confusion(confusion(in_evaluation(model), pairs))


def in_evaluation(model: nn.Module) -> Callable[[Tensor], NDArray[np.float32]]:
    """`model` as a function from crops to logits, in evaluation mode and float32."""

    @torch.inference_mode()
    def parse(crops: Tensor) -> NDArray[np.float32]:
        return model.eval()(crops).numpy()

    return parse


def confusion(parse: Callable[[Tensor], NDArray[np.float32]], pairs: Pairs, batch: int = 10) -> NDArray[np.int64]:
    """Pixels [K true, K found] of `pairs` at 128 px; `parse` maps crops [B, 3, 256, 256] to logits [B, K, 128, 128]."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for start in range(0, len(pairs.crops), batch):
        chosen = zip(pairs.crops[start : start + batch], pairs.labels[start : start + batch], strict=True)
        made = [samples.plain_sample(crop, label) for crop, label in chosen]
        found = parse(samples.to_network([crop for crop, _ in made])).argmax(1)
        truth = np.stack([label for _, label in made]).astype(np.int64)
        counts += np.bincount((truth * len(CLASSES) + found).ravel(), minlength=counts.size).reshape(counts.shape)
    return counts


def ious_from_confusion(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU [K] from a confusion matrix [K true, K found]; a class that is in neither counts as 1."""
    hit = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hit
    return np.where(union > 0, hit / np.maximum(union, 1), 1.0)


def face_iou(counts: NDArray[np.int64]) -> float:
    """IoU of the mask that blends, every face class against every other, from a confusion matrix [K true, K found]."""
    face = np.isin(CLASSES, FACE_CLASSES)
    hit = counts[np.ix_(face, face)].sum()
    return float(hit / (counts[face].sum() + counts[:, face].sum() - hit))


def lineage(model: nn.Module, test: Pairs, faces: int, steps: int, minutes: float) -> dict[str, Any]:
    """What must be known about the weights: how they were made, from what, how good they are, what they cost."""
    counts = confusion(in_evaluation(model), test)
    ious = ious_from_confusion(counts)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.zeros(1, 3, samples.CROP_PX, samples.CROP_PX))
    return {
        "command": f"rigid-live train parser --data DIR --out DIR --minutes {minutes:.0f}",
        "data": f"CelebAMask-HQ at 256 px, {faces} training pairs",
        "minutes": round(minutes, 1),
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflop": round(flops.get_total_flops() / 1e9, 3),
        "scored_on": f"{len(test.crops)} held-out pairs, 128 px, all pixels together",
        "miou": round(float(ious.mean()), 4),
        "iou": {name: round(float(iou), 4) for name, iou in zip(CLASSES, ious, strict=True)},
        "face_iou": round(face_iou(counts), 4),
        "licence": LICENCE,
    }
