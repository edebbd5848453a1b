"""`rigid-live train generator`: give the published generator, cut at 256 px, a last layer and an RGB head of its own.

The export lacks the 256 px head. It is distilled on the same W from the 1024 px network's images scaled down: in closed
form and on sampled pixels first, then with the 128 px layer on patches by L1, squared error and ST-LPIPS. The budget of
--minutes or --steps is the patches' alone; the start before it is counted in --pixel-steps, and --resume and --init
have none. With --adversarial W a discriminator of the patches plays too. It is meant for fine-tuning what distillation
has left (--init --adversarial 0.03), for minutes on a CPU and, with wider critics and whole images, longer on a GPU.

A patch's margin is not compared, so the outermost pixels are learned from whole images alone: finish with --init and
--patch at its largest. The light generator is made from this one by `rigid-live train compression`, which is the same
task with other layers.
"""

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import UsageError
from models.checkpoints.published import load_wide_generator, published_generator, trained_tensors
from models.checkpoints.weights import FRESH, save_fresh
from models.discriminator import Discriminator, doubling_widths
from models.mobile_stylegan import WIDE_256, MobileStyleGan
from models.perceptual import StLpips
from models.training.distillation import Batch, Criticism, Distillation, TopLayers, frozen_features, windows
from models.training.generator_start import start_head
from models.training.loop import LoopOptions, Player, add_loop_arguments, fit, loop_options, sample_rng
from models.training.losses import Distance
from models.training.samples import image_tensor, teacher_targets
from models.training.stills import likeness, sheet

logger = logging.getLogger(__name__)

TARGETS, HELD_OUT = 1300, 100
VALIDATION_IMAGES = 24
"""Of the held-out ones, for the scores while it runs; all of them are scored at the end."""
SHOWN = 6
MARGIN = 2
"""Activations around a patch that are computed and not compared."""
LEAST_IMAGE = 32
"""ST-LPIPS sees 32 px at least."""
HEAD_RATE, LAYER_RATE, CRITIC_RATE = 3e-4, 1e-4, 2e-3


@dataclass(frozen=True)
class Subject:
    """What is trained: the layers of `network` from `first` on and its RGB head, saved as `name`.safetensors.

    start: puts weights to start from into the network, given codes [N, L, 512] and their images uint8 RGB
    [N, 256, 256, 3]; the first `HELD_OUT` are for scores alone. load: the network with the newest weights in a folder.
    """

    name: str
    network: MobileStyleGan
    first: int
    start: Callable[[Tensor, NDArray[np.uint8]], None]
    load: Callable[[Path], MobileStyleGan]

    @property
    def side(self) -> int:
        """Of the activations before the first trained layer."""
        return 4 << self.first

    @property
    def scale(self) -> int:
        """Image pixels per activation."""
        return self.network.config.resolution // self.side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pixel-steps", type=int, default=3000, help="steps of the start, before the budget begins")
    add_patch_arguments(parser, patch=28, rate=1.0, minutes=12.0)


def add_patch_arguments(parser: argparse.ArgumentParser, *, patch: int, rate: float, minutes: float) -> None:
    """The flags of every `Subject`'s training, with its defaults."""
    add = parser.add_argument
    add("--targets", type=int, default=TARGETS, help=f"teacher images to make, the first {HELD_OUT} held out")
    add("--patch", type=int, default=patch, help="side of a patch, in activations before the first trained layer")
    add("--rate", type=float, default=rate, help="share of the peak learning rates")
    add("--adversarial", type=float, default=0.0, help="weight of the discriminator's verdict; 0 for none")
    add("--critic-width", type=int, default=16, help="the discriminator's least channels, 8 times that in its depth")
    add("--r1", type=float, default=0.1, help="weight of the discriminator's gradient penalty")
    add_loop_arguments(parser, minutes=minutes, batch=4, out=FRESH)


def run(args: argparse.Namespace) -> int:
    """Train and write the last layer and the head. Raises the errors of `engine/errors.py`."""
    if args.pixel_steps < 0:
        raise UsageError(f"--pixel-steps is {args.pixel_steps}; at least 0 was expected")
    network = published_generator(WIDE_256).requires_grad_(False)

    def start(ws: Tensor, images: NDArray[np.uint8]) -> None:
        start_head(network, ws, images, HELD_OUT, args.pixel_steps, args.seed)

    train_subject(args, Subject("wide", network, len(network.layers) - 1, start, load_wide_generator))
    return 0


def train_subject(args: argparse.Namespace, subject: Subject) -> None:
    """Train on patches for the budget; tell the score when it is used up. Raises the errors of `engine/errors.py`."""
    options = loop_options(args)
    _check(args, subject)
    torch.manual_seed(args.seed)
    task = GeneratorTask(args, subject)
    outcome = fit(task, options)
    if outcome.finished:
        scores = task.score(outcome.average, HELD_OUT)
        told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        logger.info("%s: %s on %d held-out images", task.name, told, HELD_OUT)


def _check(args: argparse.Namespace, subject: Subject) -> None:
    """Raises UsageError when a value is out of range."""
    least_patch = 2 * MARGIN + LEAST_IMAGE // subject.scale
    if not least_patch <= args.patch <= subject.side:
        raise UsageError(f"--patch is {args.patch}; {least_patch} to {subject.side} was expected")
    least = {"targets": HELD_OUT + 1, "rate": 0.0, "adversarial": 0.0, "critic_width": 1, "r1": 0.0}
    for name, value in least.items():
        if not getattr(args, name) >= value:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}; at least {value} was expected")


class GeneratorTask:
    """The training, for `models.training.loop`."""

    def __init__(self, args: argparse.Namespace, subject: Subject) -> None:
        self._args, self._subject = args, subject
        self._top = TopLayers(subject.network, subject.first)
        codes, self._images = teacher_targets(args.targets, HELD_OUT)
        self._ws = torch.from_numpy(codes)[:, : subject.network.config.latent_rows].contiguous()
        self._margin = 0 if args.patch == subject.side else MARGIN
        self._features: Callable[[Tensor], Tensor]
        self._judge = StLpips.load()

    @property
    def name(self) -> str:
        return self._subject.name

    @property
    def settings(self) -> Mapping[str, Any]:
        budget = LoopOptions.__dataclass_fields__.keys()
        return {name: value for name, value in vars(self._args).items() if name not in budget and not callable(value)}

    @property
    def players(self) -> tuple[Player, ...]:
        """The network starts anew where neither a checkpoint nor `start_from` gives it weights."""
        args, top, subject = self._args, self._top, self._subject
        if not (args.resume or args.init):
            subject.start(self._ws, self._images)
        device = _this_device(args.device)
        self._features = frozen_features(subject.network, subject.first, device)
        resolution = subject.scale * (args.patch - 2 * self._margin)
        critic = Discriminator(resolution, doubling_widths(resolution, args.critic_width))
        critic.to(device, memory_format=torch.channels_last)
        objective = Distillation(top, coarse_distance(device), critic, args.adversarial)
        trained = [parameter for parameter in top.layers.parameters() if parameter.requires_grad]
        groups = [
            {"params": list(top.to_rgb.parameters()), "peak": args.rate * HEAD_RATE},
            {"params": trained, "peak": args.rate * LAYER_RATE},
        ]
        players = [Player("generator", objective, groups, top, clip=5.0)]
        if args.adversarial:
            judged = [{"params": list(critic.parameters()), "peak": args.rate * CRITIC_RATE}]
            players.append(Player("critic", Criticism(critic, top, args.r1), judged, clip=5.0, betas=(0.0, 0.99)))
        return tuple(players)

    def draw(self, step: int, samples: range) -> Batch:
        """Patches of training images; the activations are on the device already."""
        patch, margin = self._args.patch, self._margin
        rngs = [sample_rng(self._args.seed, step, number) for number in samples]
        chosen = [int(rng.integers(HELD_OUT, len(self._ws))) for rng in rngs]
        side, scale = self._subject.side, self._subject.scale
        corners = torch.tensor([rng.integers(0, side - patch + 1, 2).tolist() for rng in rngs])
        ws, images = self._ws[chosen], image_tensor(self._images[chosen])
        target = windows(images, scale * (corners + margin), scale * (patch - 2 * margin))
        return windows(self._features(ws), corners, patch), ws, corners, target

    def start_from(self, folder: Path) -> str:
        self._top.load_state_dict(trained_tensors(self._subject.load(folder), self._subject.first))
        fresh = (folder / f"{self.name}.safetensors").is_file()
        return f"the weights in {folder}" if fresh else "the weights that ship"

    def validate(self, average: nn.Module) -> dict[str, float]:
        return self.score(average, VALIDATION_IMAGES)

    @torch.no_grad()
    def score(self, average: nn.Module, count: int) -> dict[str, float]:
        """`stills.likeness` of `count` held-out images at most to the teacher's."""
        numbers = [slice(number, number + 1) for number in range(min(count, HELD_OUT))]
        made = (self._make(average, number) for number in numbers)
        return likeness(made, (image_tensor(self._images[number]) for number in numbers), self._judge)

    def images(self, average: nn.Module) -> Tensor:
        """The teacher's images above ours."""
        shown = min(SHOWN, HELD_OUT)
        made = [self._make(average, slice(number, number + 1)) for number in range(shown)]
        return sheet(image_tensor(self._images[:shown]), torch.cat(made))

    def _make(self, average: nn.Module, images: slice) -> Tensor:
        """Our images of those codes, on the CPU."""
        ws = self._ws[images]
        features = self._features(ws)
        made: Tensor = average(features, ws.to(features.device))
        return made.cpu().clamp(-1.0, 1.0)

    def save(self, average: nn.Module, folder: Path) -> None:
        tensors = average.state_dict()
        assert tensors.keys() == trained_tensors(self._subject.network, self._subject.first).keys()
        save_fresh(self.name, tensors, folder)


def coarse_distance(device: torch.device) -> Distance:
    """ST-LPIPS in bf16, to train through."""
    judge = StLpips.load().to(device, torch.bfloat16).to(memory_format=torch.channels_last)
    return lambda a, b: judge(a.bfloat16(), b.bfloat16()).float()


def _this_device(kind: str) -> torch.device:
    """With its number, because the threads that draw do not know which GPU is this process's."""
    return torch.device("cuda", torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
