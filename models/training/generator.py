"""`rigid-live train generator`: give the published generator, cut at 256 px, a last layer and an RGB head of its own.

The export lacks the 256 px head. It is distilled on the same W from the 1024 px network's images scaled down: in closed
form and on sampled pixels first, then with the 128 px layer on patches by L1, squared error and ST-LPIPS. The budget of
--minutes or --steps is the patches' alone; the start before it is counted in --pixel-steps, and --resume and --init
have none. With --adversarial W a discriminator of the patches plays too. It is meant for fine-tuning what distillation
has left (--init --adversarial 0.03), for minutes on a CPU and, with wider critics and whole images, longer on a GPU.
"""

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import UsageError
from models.checkpoints.published import load_light_generator, published_generator, trained_tensors
from models.checkpoints.weights import FRESH, save_fresh
from models.discriminator import Discriminator, doubling_widths
from models.mobile_stylegan import LIGHT_256
from models.perceptual import StLpips
from models.training.distillation import Batch, Criticism, Distillation, TopLayers, frozen_features, windows
from models.training.generator_start import start_head
from models.training.loop import Player, add_loop_arguments, fit, loop_options, sample_rng
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
LEAST_PATCH = 2 * MARGIN + 8
"""ST-LPIPS sees 32 px at least."""
HEAD_RATE, LAYER_RATE, CRITIC_RATE = 3e-4, 1e-4, 2e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--targets", type=int, default=TARGETS, help=f"teacher images to make, the first {HELD_OUT} held out")
    add("--pixel-steps", type=int, default=3000, help="steps of the start, before the budget begins")
    add("--patch", type=int, default=28, help="side of a patch in 64 px activations; 64 is the whole image")
    add("--rate", type=float, default=1.0, help="share of the peak learning rates")
    add("--adversarial", type=float, default=0.0, help="weight of the discriminator's verdict; 0 for none")
    add("--critic-width", type=int, default=16, help="the discriminator's least channels, 8 times that in its depth")
    add("--r1", type=float, default=0.1, help="weight of the discriminator's gradient penalty")
    add_loop_arguments(parser, minutes=12.0, batch=4, out=FRESH)


def run(args: argparse.Namespace) -> int:
    """Train and write the last layer and the head. Raises the errors of `engine/errors.py`."""
    options = loop_options(args)
    _check(args)
    torch.manual_seed(args.seed)
    task = GeneratorTask(args)
    outcome = fit(task, options)
    if outcome.finished:
        scores = task.score(outcome.average, HELD_OUT)
        told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        logger.info("generator: %s on %d held-out images", told, HELD_OUT)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError when a value is out of range."""
    side = LIGHT_256.resolution // 4
    if not LEAST_PATCH <= args.patch <= side:
        raise UsageError(f"--patch is {args.patch}; {LEAST_PATCH} to {side} was expected")
    least = {"targets": HELD_OUT + 1, "pixel_steps": 0, "rate": 0.0, "adversarial": 0.0, "critic_width": 1, "r1": 0.0}
    for name, value in least.items():
        if not getattr(args, name) >= value:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}; at least {value} was expected")


class GeneratorTask:
    """The training, for `models.training.loop`."""

    name = "generator"

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._generator = published_generator(LIGHT_256).requires_grad_(False)
        self._top = TopLayers(self._generator)
        codes, self._images = teacher_targets(args.targets, HELD_OUT)
        self._ws = torch.from_numpy(codes)[:, : self._generator.config.latent_rows].contiguous()
        self._side = self._generator.config.resolution // 4
        self._margin = 0 if args.patch == self._side else MARGIN
        self._features: Callable[[Tensor], Tensor]
        self._judge = StLpips.load()

    @property
    def settings(self) -> Mapping[str, Any]:
        chosen = ("targets", "pixel_steps", "patch", "rate", "adversarial", "critic_width", "r1")
        return {name: getattr(self._args, name) for name in chosen}

    @property
    def players(self) -> tuple[Player, ...]:
        """The head starts from its closed form where neither a checkpoint nor `start_from` gives it weights."""
        args, top = self._args, self._top
        if not (args.resume or args.init):
            start_head(self._generator, self._ws, self._images, HELD_OUT, args.pixel_steps, args.seed)
        device = _this_device(args.device)
        self._features = frozen_features(self._generator, device)
        resolution = 4 * (args.patch - 2 * self._margin)
        critic = Discriminator(resolution, doubling_widths(resolution, args.critic_width))
        critic.to(device, memory_format=torch.channels_last)
        objective = Distillation(top, coarse_distance(device), critic, args.adversarial)
        trained = [parameter for parameter in top.layer.parameters() if parameter.requires_grad]
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
        corners = torch.tensor([rng.integers(0, self._side - patch + 1, 2).tolist() for rng in rngs])
        ws, images = self._ws[chosen], image_tensor(self._images[chosen])
        target = windows(images, 4 * (corners + margin), 4 * (patch - 2 * margin))
        return windows(self._features(ws), corners, patch), ws, corners, target

    def start_from(self, folder: Path) -> str:
        self._top.load_state_dict(trained_tensors(load_light_generator(folder)))
        fresh = (folder / "generator.safetensors").is_file()
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
        assert tensors.keys() == trained_tensors(self._generator).keys()
        save_fresh("generator", tensors, folder)


def coarse_distance(device: torch.device) -> Distance:
    """ST-LPIPS in bf16, to train through."""
    judge = StLpips.load().to(device, torch.bfloat16).to(memory_format=torch.channels_last)
    return lambda a, b: judge(a.bfloat16(), b.bfloat16()).float()


def _this_device(kind: str) -> torch.device:
    """With its number, because the threads that draw do not know which GPU is this process's."""
    return torch.device("cuda", torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
