"""`rigid-live train compression`: the light generator, a narrow one made from the wide one of `train generator`.

In closed form first (`narrowing.py`), on --codes sampled codes: no gradient, minutes. Then the narrow layers are
trained on patches of the 1024 px network's images, as `train generator` does. Widths are those of the layers from 8 px
up, as in `MobileStyleGanConfig`; other than the light generator's are for measuring, and no bundle takes them.
"""

import argparse
import logging
import time
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import UsageError
from models.checkpoints.published import cut_generator, load_light_generator, load_wide_generator
from models.compiled import compile_network, take_turns
from models.mobile_stylegan import LATENT_DIM, LIGHT_256, WIDE_256, MobileStyleGan, MobileStyleGanConfig, first_narrower
from models.perceptual import StLpips
from models.training.generator import HELD_OUT, Subject, add_patch_arguments, train_subject
from models.training.log import TrainingLog, checkpoint_dir
from models.training.narrowing import gigaflops, narrow
from models.training.samples import CodeSampler, image_tensor
from models.training.stills import likeness

logger = logging.getLogger(__name__)

COMPRESSION_LOG = "compression.jsonl"
"""In the generator's folder of the cache: what a run measured before its training."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--widths", type=_widths, default=LIGHT_256.widths, help="after each layer, N,N,...")
    add("--inner", type=_widths, default=LIGHT_256.inner_widths, help="between the two convolutions of each layer")
    add("--codes", type=int, default=240, help="sampled codes of the closed form")
    add_patch_arguments(parser, patch=16, rate=2.0, minutes=60.0)


def run(args: argparse.Namespace) -> int:
    """Narrow, train, score, write. Raises the errors of `engine/errors.py`."""
    config = MobileStyleGanConfig(widths=args.widths, inner=args.inner, noise_upto=LIGHT_256.noise_upto)
    _check(args, config)
    wide, student = load_wide_generator(args.out), cut_generator(config)

    def start(ws: Tensor, images: NDArray[np.uint8]) -> None:
        started = time.monotonic()
        codes = CodeSampler.open().draw_plus(args.codes, config.latent_rows, torch.Generator().manual_seed(args.seed))
        student.load_state_dict(narrow(wide, config, codes).state_dict())
        report(wide, student, ws[:HELD_OUT], images[:HELD_OUT], seconds=time.monotonic() - started, codes=args.codes)

    train_subject(args, Subject("generator", student, first_narrower(WIDE_256, config), start, load_light_generator))
    return 0


def report(
    wide: MobileStyleGan, student: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8], **settings: float
) -> None:
    """Log what both score on held-out images and how long they take, side by side."""
    board = TrainingLog(checkpoint_dir("generator") / COMPRESSION_LOG)
    pair = torch.zeros(2, student.config.latent_rows, LATENT_DIM)
    calls = [partial(compile_network(network, pair, "bf16"), pair.numpy()) for network in (wide, student)]
    for name, network, ms in zip(("wide", "narrow"), (wide, student), take_turns(calls), strict=True):
        shape = {"widths": network.config.widths, "inner": network.config.inner_widths}
        figures = {"gflop": gigaflops(network.config), **score(network, ws, images), "ms_batch_of_two": ms}
        board.write(network=name, **shape, **figures, **settings)
        told = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        logger.info("%s: %s on %d held-out images", name, told, len(ws))


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not N,N,...") from None


def _check(args: argparse.Namespace, config: MobileStyleGanConfig) -> None:
    """Raises UsageError when widths do not fit the wide network's, or a count is out of range."""
    kinds = (("--widths", config.widths, WIDE_256.widths), ("--inner", config.inner_widths, WIDE_256.inner_widths))
    for flag, ours, theirs in kinds:
        if len(ours) != len(theirs) or not all(0 < a <= b for a, b in zip(ours, theirs, strict=True)):
            raise UsageError(f"{flag} is {_told(ours)}; {len(theirs)} widths up to {_told(theirs)} were expected")
    if any(width % 4 for width in config.widths[:-1]):
        raise UsageError(f"--widths is {_told(config.widths)}; multiples of 4 were expected, the last one excepted")
    if config.widths == WIDE_256.widths and config.inner_widths == WIDE_256.inner_widths:
        raise UsageError("--widths and --inner are those of the wide network; narrower ones were expected")
    if args.codes < 1:
        raise UsageError(f"--codes is {args.codes}; at least 1 was expected")


def _told(widths: tuple[int, ...]) -> str:
    return ",".join(str(width) for width in widths)


def score(network: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8]) -> dict[str, float]:
    """`stills.likeness` of what the network makes of codes ws [N, L, 512] to images uint8 RGB [N, H, W, 3]."""
    with torch.no_grad():
        made = (network(code).clamp(-1.0, 1.0) for code in ws.split(1))
        return likeness(made, image_tensor(images).split(1), StLpips.load())
