"""`rigid-live train parser`: train the face parser on CelebAMask-HQ pairs."""

import argparse
import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import CheckpointError
from models.checkpoints.weights import load_weights
from models.parsing import CLASSES, FACE_CLASSES, OCCLUDER_CLASSES, FaceParser
from models.training import parsing_samples as samples
from models.training.hand_photos import HandPhoto, load_hands
from models.training.log import checkpoint_dir, load_checkpoint, save_checkpoint
from models.training.loop import LoopOptions, Player, add_loop_arguments, fit, loop_options, sample_rng
from models.training.norms import measure_statistics, unfold_norms
from models.training.open_mouths import open_mouths
from models.training.parsing_stills import Parse, labelled_stills
from models.training.splits import load_splits

logger = logging.getLogger(__name__)

PEAK_RATE = 1e-3
WEIGHTS, LINEAGE = "parser.pt", "parser.json"
LICENCE = "trained on CelebAMask-HQ: non-commercial research and education only"
_STATISTICS_BATCHES = 40
_SHOWN = 6
_OCCLUDED = 0.05  # of the pixels, as augmentation leaves them
STILLS, MOUTHS = "stills.npz", "mouths.npz"
SCORED = tuple(name for name in CLASSES if name not in OCCLUDER_CLASSES)
"""The classes of CelebAMask-HQ; what is before the face is background there."""
# One colour a class, RGB.
_PALETTE = np.array(
    [
        (0, 0, 0),
        (230, 170, 140),
        (120, 70, 30),
        (40, 90, 230),
        (230, 40, 40),
        (240, 220, 90),
        (60, 160, 80),
        (200, 60, 220),
    ],
    np.uint8,
)


@dataclass(frozen=True)
class Pairs:
    """Images uint8 RGB [N, 256, 256, 3] and class indices uint8 [N, 256, 256], some of them samples.UNKNOWN."""

    crops: samples.U8
    labels: samples.U8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this training."""
    parser.add_argument("--data", type=Path, required=True, help="folder that holds parsing/celebamask256")
    parser.add_argument("--threads", type=int, default=2)
    # bfloat16 is what the matrix units of a CPU want: with channels_last half the time of plain fp32.
    parser.add_argument(
        "--stills", action="store_true", help="also learn from FFHQ's photographs, labelled by the newest parser"
    )
    parser.add_argument(
        "--mouths", type=int, default=0, metavar="N", help="also learn from drawn faces whose mouths are wide open"
    )
    parser.add_argument(
        "--hands", type=Path, help="pictures of single hands before a pale wall, to hide faces behind (hand_photos.py)"
    )
    add_loop_arguments(parser, minutes=15.0, batch=16, out=None, amp=True)


def run(args: argparse.Namespace) -> int:
    """Train until the budget is used up, then score the averaged weights on the test split and save them."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    options = loop_options(args)
    pairs = load_split(args.data, "train")
    more: dict[str, Callable[[Parse], tuple[samples.U8, samples.U8]]] = {}
    if args.stills:
        more[STILLS] = partial(labelled_stills, args.data)
    if args.mouths:
        more[MOUTHS] = partial(open_mouths, args.mouths)
    train = with_more(pairs, options, more)
    hands = load_hands(args.hands) if args.hands else []
    outcome = fit(ParserTask(train, load_split(args.data, "validation"), args.seed, hands), options)
    if not outcome.finished:
        return 0
    test = load_split(args.data, "test")
    stills = len(train.crops) - len(pairs.crops) - args.mouths
    used = Used(len(pairs.crops), stills, len(hands), args.mouths)
    report = lineage(load_parser(args.out / WEIGHTS), test, used, outcome.step, outcome.spent_s / 60)
    (args.out / LINEAGE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    logger.info("parser: mIoU %.3f on %d held-out faces after %d steps", report["miou"], len(test.crops), outcome.step)
    return 0


class Objective(nn.Module):
    """What the parser's training minimises: batches of crops and labels -> loss."""

    weights: Tensor

    def __init__(self, network: FaceParser, weights: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: crops [B, 3, 256, 256] in [-1, 1] and labels [B, 128, 128] int64."""
        crops, labels = batch
        return parsing_loss(self.network(crops).float(), labels, self.weights), {}


class ParserTask:
    """The parser's training, for `models.training.loop`. Random weights from torch's global generator."""

    name = "parser"

    def __init__(self, train: Pairs, validation: Pairs, seed: int, hands: Sequence[HandPhoto] = ()) -> None:
        self.train, self.validation, self.hands = train, validation, hands
        self.settings = {"peak_rate": PEAK_RATE, "training_pairs": len(train.crops), "hands": len(hands)}
        self._seed = seed
        self.network = FaceParser().to(memory_format=torch.channels_last)
        self._chances = sampling_chances(train.labels)

    @property
    def players(self) -> tuple[Player, ...]:
        objective = Objective(self.network, class_weights(self.train.labels))
        groups = ({"params": list(self.network.parameters()), "peak": PEAK_RATE, "weight_decay": 1e-2},)
        return (Player("parser", objective, groups, self.network, decay=0.998, clip=5.0, betas=(0.9, 0.999)),)

    def draw(self, step: int, numbers: range) -> tuple[Tensor, Tensor]:
        """Augmented crops [B, 3, 256, 256] in [-1, 1] and labels [B, 128, 128] int64."""
        made = [self._sample(sample_rng(self._seed, step, number)) for number in numbers]
        crops = samples.to_network([crop for crop, _ in made])
        return crops, torch.from_numpy(np.stack([label for _, label in made])).long()

    def _sample(self, rng: np.random.Generator) -> tuple[samples.U8, samples.U8]:
        chosen = int(rng.choice(len(self._chances), p=self._chances))
        return samples.augmented_sample(self.train.crops, self.train.labels, chosen, rng, self.hands)

    def start_from(self, folder: Path) -> str:
        """Fresh weights as they are; the shipped ones with batch norms that compute the same on training crops."""
        if (folder / WEIGHTS).is_file():
            self.network.load_state_dict(load_parser(folder / WEIGHTS).state_dict())
            return f"the weights in {folder}"
        unfold_norms(self.network, load_weights("parser"), self.draw(0, range(64))[0])
        return "the weights that ship"

    def validate(self, average: nn.Module) -> dict[str, float]:
        return {"miou": float(class_ious(average, self.validation).mean())}

    def images(self, average: nn.Module) -> Tensor:
        """Validation crops above their true and their found classes."""
        pairs = zip(self.validation.crops[:_SHOWN], self.validation.labels[:_SHOWN], strict=True)
        shown = [samples.plain_sample(crop, label) for crop, label in pairs]
        found = in_evaluation(average)(samples.to_network([crop for crop, _ in shown])).argmax(1)
        small = np.concatenate([crop[::2, ::2] for crop, _ in shown], axis=1)
        truth = np.concatenate([_PALETTE[label] for _, label in shown], axis=1)
        sheet = np.concatenate([small, truth, np.concatenate(list(_PALETTE[found]), axis=1)])
        return torch.from_numpy(sheet).permute(2, 0, 1).float() / 127.5 - 1.0

    def save(self, average: nn.Module, folder: Path) -> None:
        """Write the averaged weights, with statistics of their own."""
        shipped = copy.deepcopy(average)
        batch = min(16, len(self.train.crops))
        device = next(shipped.parameters()).device
        crops = (self.draw(n, range(batch))[0].to(device) for n in range(_STATISTICS_BATCHES))
        measure_statistics(shipped, crops)
        save_checkpoint(folder / WEIGHTS, weights=shipped.state_dict())


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


def with_more(
    pairs: Pairs, options: LoopOptions, more: Mapping[str, Callable[[Parse], tuple[samples.U8, samples.U8]]]
) -> Pairs:
    """The pairs and further ones that the newest parser labels; a resumed run keeps the labels it began with.

    more: under which name each kind is kept, and what makes it with a parser.
    """
    folder = options.checkpoints or checkpoint_dir(ParserTask.name)
    missing = [name for name in more if not (options.resume and (folder / name).is_file())]
    if missing:
        teacher = ParserTask(pairs, pairs, options.seed)
        logger.info("labelling %s with %s", " and ".join(missing), teacher.start_from(options.out))
        folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            made, told = more[name](in_evaluation(teacher.network))
            np.savez(folder / name, crops=made, labels=told)
    crops, labels = [pairs.crops], [pairs.labels]
    for name in more:
        with np.load(folder / name) as file:
            crops.append(file["crops"])
            labels.append(file["labels"])
    return Pairs(np.concatenate(crops), np.concatenate(labels))


def load_split(data: Path, split: str) -> Pairs:
    """One split of the parsing pairs, in memory."""
    return Pairs(*samples.load_pairs(load_splits().parsing_pairs(data, split)))


def parsing_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross entropy plus a Dice loss over the classes that the batch holds.

    `logits` [B, K, H, W] float, `labels` [B, H, W] int64, `weights` [K] float. Dice asks for overlap, which is what
    the score counts, so that small classes (glasses, hats) are not traded for a few pixels of hair.
    """
    entropy = F.cross_entropy(logits, labels, weights, ignore_index=samples.UNKNOWN)
    known = (labels != samples.UNKNOWN)[:, None]
    chances = logits.softmax(1) * known
    truth = F.one_hot(labels.where(known[:, 0], 0), logits.shape[1]).movedim(3, 1).to(chances.dtype) * known
    overlap = (chances * truth).sum((0, 2, 3))
    size = chances.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    dice = 1.0 - 2.0 * overlap[present] / size[present]
    return entropy + dice.mean()


def class_weights(labels: NDArray[np.uint8]) -> Tensor:
    """Weight [K] of each class: frequency to the power -0.2, mean 1 over the pixels."""
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))[: len(CLASSES)].astype(np.float64)
    frequency = np.maximum(counts / counts.sum(), 1e-4)
    frequency[[CLASSES.index(name) for name in OCCLUDER_CLASSES]] = _OCCLUDED
    weights = frequency**-0.2
    return torch.from_numpy(weights / (weights * frequency).sum()).float()


def sampling_chances(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Chance [N] of each pair to be drawn: with a hat four times the others', with glasses 1.5 times."""
    weights = np.ones(len(labels))
    for name, times in (("glasses", 1.5), ("hat", 4.0)):
        weights[(labels == CLASSES.index(name)).mean((1, 2)) > 0.003] = times
    return weights / weights.sum()


def class_ious(model: nn.Module, pairs: Pairs) -> NDArray[np.float64]:
    """Intersection over union of each class [S] over all pixels of `pairs`."""
    return ious_from_confusion(confusion(in_evaluation(model), pairs))


def in_evaluation(model: nn.Module) -> Callable[[Tensor], NDArray[np.float32]]:
    """`model` as a function from crops to logits, in evaluation mode and float32."""

    @torch.inference_mode()
    def parse(crops: Tensor) -> NDArray[np.float32]:
        device = next(model.parameters()).device
        return model.eval()(crops.to(device)).cpu().numpy()

    return parse


def confusion(parse: Callable[[Tensor], NDArray[np.float32]], pairs: Pairs, batch: int = 10) -> NDArray[np.int64]:
    """Pixels [S true, S found] of `pairs` at 128 px, S = len(SCORED), an occluder found counting as background.

    `parse` maps crops [B, 3, 256, 256] to logits [B, K, 128, 128].
    """
    counts = np.zeros((len(SCORED), len(SCORED)), np.int64)
    for start in range(0, len(pairs.crops), batch):
        chosen = zip(pairs.crops[start : start + batch], pairs.labels[start : start + batch], strict=True)
        made = [samples.plain_sample(crop, label) for crop, label in chosen]
        found = parse(samples.to_network([crop for crop, _ in made])).argmax(1)
        found = np.where(found == samples.OCCLUDER, CLASSES.index("background"), found)
        truth = np.stack([label for _, label in made]).astype(np.int64)
        counts += np.bincount((truth * len(SCORED) + found).ravel(), minlength=counts.size).reshape(counts.shape)
    return counts


def ious_from_confusion(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU [K] from a confusion matrix [K true, K found]; a class that is in neither counts as 1."""
    hit = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hit
    return np.where(union > 0, hit / np.maximum(union, 1), 1.0)


def face_iou(counts: NDArray[np.int64]) -> float:
    """IoU of the mask that blends, every face class against every other, from a confusion matrix [S true, S found]."""
    face = np.isin(SCORED, FACE_CLASSES)
    hit = counts[np.ix_(face, face)].sum()
    return float(hit / (counts[face].sum() + counts[:, face].sum() - hit))


@dataclass(frozen=True)
class Used:
    """What a training learnt from: how many pairs, photographs and drawn open mouths that a parser labelled, and
    photographed hands."""

    pairs: int
    stills: int
    hands: int
    mouths: int = 0


def lineage(model: nn.Module, test: Pairs, used: Used, steps: int, minutes: float) -> dict[str, Any]:
    """What must be known about the weights: how they were made, from what, how good they are, what they cost."""
    counts = confusion(in_evaluation(model), test)
    ious = ious_from_confusion(counts)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.zeros(1, 3, samples.CROP_PX, samples.CROP_PX))
    return {
        "command": f"rigid-live train parser --data DIR --out DIR --minutes {minutes:.0f}"
        + " --stills" * (used.stills > 0)
        + f" --mouths {used.mouths}" * (used.mouths > 0)
        + " --hands DIR" * (used.hands > 0),
        "data": f"CelebAMask-HQ at 256 px, {used.pairs} training pairs; FFHQ, {used.stills} stills labelled by a parser"
        + f"; {used.mouths} drawn faces with open mouths, too" * (used.mouths > 0)
        + f"; {used.hands} hands of the Sign Language Digits Dataset (Apache-2.0) before them",
        "minutes": round(minutes, 1),
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflop": round(flops.get_total_flops() / 1e9, 3),
        "scored_on": f"{len(test.crops)} held-out pairs, 128 px, all pixels together",
        "miou": round(float(ious.mean()), 4),
        "iou": {name: round(float(iou), 4) for name, iou in zip(SCORED, ious, strict=True)},
        "face_iou": round(face_iou(counts), 4),
        "licence": LICENCE,
    }
