"""`rigid-live train compression`: the light generator with fewer channels, in closed form (`narrowing.py`).

Widths are those of the layers from 8 px up, as in `MobileStyleGanConfig`. The narrow network is fitted on --codes
sampled codes; it is scored on the 1024 px network's images that `train generator` holds out, beside the wide one.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import UsageError
from models.checkpoints.published import load_light_generator
from models.checkpoints.weights import FRESH, save_fresh
from models.compiled import compile_network
from models.mobile_stylegan import LIGHT_256, MobileStyleGan, MobileStyleGanConfig
from models.perceptual import StLpips
from models.training.generator import HELD_OUT, TARGETS
from models.training.log import TrainingLog, checkpoint_dir
from models.training.narrowing import gigaflops, narrow
from models.training.samples import CodeSampler, image_tensor, teacher_targets
from models.training.stills import likeness

logger = logging.getLogger(__name__)

TIMED_RUNS = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--widths", type=_widths, default=LIGHT_256.widths, help="after each layer, N,N,...; default: as it is")
    add("--inner", type=_widths, required=True, help="between the two convolutions of each layer, N,N,...")
    add("--codes", type=int, default=240, help="sampled codes to fit on")
    add("--scored", type=int, default=48, help=f"held-out images, at most {HELD_OUT}")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=FRESH, help="folder of the narrow network's weights, narrow.safetensors")


def run(args: argparse.Namespace) -> int:
    """Narrow, score, write. Raises the errors of `engine/errors.py`."""
    config = MobileStyleGanConfig(widths=args.widths, inner=args.inner)
    _check(args, config)
    wide = load_light_generator(args.out)
    rng = torch.Generator().manual_seed(args.seed)
    started = time.monotonic()
    student = narrow(wide, config, CodeSampler.open().draw_plus(args.codes, config.latent_rows, rng))
    seconds = time.monotonic() - started
    save_fresh("narrow", student.state_dict(), args.out)
    codes, images = teacher_targets(TARGETS, HELD_OUT)
    ws = torch.from_numpy(codes[: args.scored, : config.latent_rows]).contiguous()
    board = TrainingLog(checkpoint_dir("compression") / "log.jsonl")
    for name, network, ms in zip(("wide", "narrow"), (wide, student), time_side_by_side(wide, student), strict=True):
        shape = {"widths": network.config.widths, "inner": network.config.inner_widths}
        scores = score(network, ws, images[: args.scored])
        figures = {"gflop": gigaflops(network.config), **scores, "ms_batch_of_two": ms}
        board.write(network=name, **shape, **figures, codes=args.codes, seconds=seconds)
        told = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        logger.info("%s: %s on %d held-out images", name, told, args.scored)
    return 0


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not N,N,...") from None


def _check(args: argparse.Namespace, config: MobileStyleGanConfig) -> None:
    """Raises UsageError when widths do not fit the wide network's, or a count is out of range."""
    kinds = (("--widths", config.widths, LIGHT_256.widths), ("--inner", config.inner_widths, LIGHT_256.inner_widths))
    for flag, ours, theirs in kinds:
        if len(ours) != len(theirs) or not all(0 < a <= b for a, b in zip(ours, theirs, strict=True)):
            raise UsageError(f"{flag} is {_told(ours)}; {len(theirs)} widths up to {_told(theirs)} were expected")
    if any(width % 4 for width in config.widths[:-1]):
        raise UsageError(f"--widths is {_told(config.widths)}; multiples of 4 were expected, the last one excepted")
    if config.widths == LIGHT_256.widths and config.inner_widths == LIGHT_256.inner_widths:
        raise UsageError("--widths and --inner are those of the wide network; narrower ones were expected")
    for name, least, most in (("codes", 1, 100_000), ("scored", 1, HELD_OUT)):
        if not least <= getattr(args, name) <= most:
            raise UsageError(f"--{name} is {getattr(args, name)}; {least} to {most} was expected")


def _told(widths: tuple[int, ...]) -> str:
    return ",".join(str(width) for width in widths)


def score(network: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8]) -> dict[str, float]:
    """`stills.likeness` of what the network makes of codes ws [N, L, 512] to images uint8 RGB [N, H, W, 3]."""
    with torch.no_grad():
        made = (network(code).clamp(-1.0, 1.0) for code in ws.split(1))
        return likeness(made, image_tensor(images).split(1), StLpips.load())


def time_side_by_side(*networks: MobileStyleGan) -> list[float]:
    """Median milliseconds of a batch of two on OpenVINO in bf16, the networks taking turns."""
    ws = torch.zeros(2, networks[0].config.latent_rows, 512)
    compiled = [compile_network(network, ws, "bf16") for network in networks]
    taken = []
    for _ in range(TIMED_RUNS):
        marks = [time.perf_counter()]
        for run_network in compiled:
            run_network(ws.numpy())
            marks.append(time.perf_counter())
        taken.append(np.diff(marks))
    medians: list[float] = (1e3 * np.median(taken, axis=0)).tolist()
    return medians
