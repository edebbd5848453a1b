"""`rigid-live train recurrent`: base encoder and recurrent encoder together, by what the generator makes of them.

Episodes of T frames, the first one the anchor, as in rigid.md; per frame squared error and ST-LPIPS (Eqs. 10-12), a
penalty that keeps the noise map from carrying the face, and one that keeps the inversion as steady as its video.
Most of the budget runs on a cheap stand-in for the generator: its layers up to 64 px and a linear 128 px head.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints.weights import FRESH, fitting, load_weights, save_fresh
from models.encoder import BaseEncoder
from models.mobile_stylegan import MobileStyleGan, inverse_haar
from models.perceptual import StLpips
from models.recurrent import RecurrentEncoder
from models.training import encoder as base_training
from models.training.episodes import EpisodeSource, load_clips, load_stills
from models.training.generator import compile_network, haar, load_light_generator
from models.training.log import (
    Budget,
    TrainingLog,
    checkpoint_dir,
    cosine_rate,
    ema_copy,
    ema_update,
    load_checkpoint,
    save_checkpoint,
)
from models.training.samples import CodeSampler, image_tensor, synthetic_pack
from models.training.splits import Split

LOSS_RESOLUTION = 128
VALIDATION_FACES = 24
REPORT_EVERY_S = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data folder that splits.toml describes")
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock budget")
    parser.add_argument("--stand-in", type=float, default=0.6, help="share of the budget on the cheap generator")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=3, help="frames an episode")
    parser.add_argument("--map-penalty", type=float, default=0.02)
    parser.add_argument("--steady", type=float, default=0.5, help="weight of the temporal difference loss")
    parser.add_argument("--bare", type=float, default=1.0, help="weight of the last frame's inversion without the map")
    parser.add_argument("--out", type=Path, default=FRESH, help="folder of the trained weights")
    parser.add_argument("--refine", action="store_true", help="start from the newest weights, with a fifth of the rate")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the cache folder")


class StandIn(nn.Module):
    """ws, noise -> image [B, 3, 128, 128]: the generator up to 64 px and a linear head fitted to its images."""

    def __init__(self, generator: MobileStyleGan) -> None:
        super().__init__()
        self.generator = generator
        self.head = nn.Conv2d(generator.config.widths[-2], 12, 1)

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        return inverse_haar(self.head(self.generator.features(ws, noise, upto=-1)))

    @torch.no_grad()
    def fit(self, ws: Tensor, images: Tensor, ridge: float = 1e-3) -> None:
        """Least squares on images [N, 3, 128, 128] of codes ws [N, L, 512]."""
        width = self.head.in_channels + 1
        gram, cross = torch.zeros(width, width), torch.zeros(width, 12)
        for code, image in zip(ws.split(4), images.split(4), strict=True):
            x = self.generator.features(code, upto=-1).flatten(2).transpose(1, 2).reshape(-1, width - 1)
            x = torch.cat((x, torch.ones(len(x), 1)), dim=1)
            gram += x.T @ x
            cross += x.T @ haar(image).flatten(2).transpose(1, 2).reshape(-1, 12)
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, cross)
        self.head.weight.copy_(solution[:-1].T[:, :, None, None])
        cast(Tensor, self.head.bias).copy_(solution[-1])


class Inverter(nn.Module):
    """What is trained: the base encoder's linear maps and the recurrent encoder."""

    def __init__(self, base: BaseEncoder, recurrent: RecurrentEncoder) -> None:
        super().__init__()
        self.base = base
        self.recurrent = recurrent


Synthesis = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Losses:
    """Frozen judges and weights of one training."""

    perceptual: StLpips
    map_penalty: float
    steady: float
    bare: float

    def reconstruction(self, made: Tensor, target: Tensor) -> Tensor:
        """Squared error and 0.8 ST-LPIPS (Eqs. 10-12), the mean over the batch.

        made: [B, 3, S, S], S 128 or 256; target: crops [B, 3, 256, 256]. At 256 px the distance is also taken on a
        random 128 px patch, because patterns of two pixels vanish in the smaller image.
        """
        target = shrink(target, made.shape[-1])
        distance = self._distance(shrink(made), shrink(target))
        if made.shape[-1] > LOSS_RESOLUTION:
            y, x = (int(v) for v in torch.randint(0, made.shape[-1] - LOSS_RESOLUTION + 1, (2,)))
            patch = (..., slice(y, y + LOSS_RESOLUTION), slice(x, x + LOSS_RESOLUTION))
            distance = 0.5 * distance + 0.5 * self._distance(made[patch], target[patch])
        return F.mse_loss(made, target) + 0.8 * distance

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        kind = next(self.perceptual.parameters()).dtype
        return self.perceptual(a.to(kind), b.to(kind)).float().mean()


def shrink(image: Tensor, size: int = LOSS_RESOLUTION) -> Tensor:
    """Average down to `size`."""
    return F.avg_pool2d(image, image.shape[-1] // size)


def unroll(inverter: Inverter, synthesis: Synthesis, losses: Losses, crops: Tensor, offset: Tensor) -> Tensor:
    """The loss of one batch of episodes: crops [T, B, 3, 256, 256], edit offset [B, L, 512].

    The images fed back are detached: gradients travel through time in the ConvLSTM only.
    """
    base, recurrent, batch = inverter.base, inverter.recurrent, crops.shape[1]
    with torch.autocast("cpu", torch.bfloat16):
        features = base.features(crops.flatten(0, 1))
    ws = base.codes(features.float()).unflatten(0, crops.shape[:2])
    anchor, former = ws[0], recurrent.config.former_rows
    loss = losses.reconstruction(synthesis(anchor, None), crops[0])
    with torch.no_grad():
        edit = upsample(synthesis(anchor + offset, None))
    inversion, previous = crops[0], None
    h = c = crops.new_zeros(batch, *recurrent.state_shape())
    for t in range(1, len(crops)):
        dws, noise, h, c = recurrent(crops[t - 1], crops[t], inversion, edit, h, c)
        code = torch.cat((ws[t, :, :former] + dws, anchor[:, former:]), dim=1)
        made = synthesis(code, noise)
        loss = loss + losses.reconstruction(made, crops[t]) + losses.map_penalty * noise.square().mean()
        loss = loss + 0.02 * dws.square().mean()
        if previous is not None:
            loss = loss + losses.steady * F.l1_loss(shrink(made) - previous, shrink(crops[t]) - shrink(crops[t - 1]))
        previous = shrink(made)
        inversion = upsample(made.detach())
        if t + 1 < len(crops):
            with torch.no_grad():
                edit = upsample(synthesis(code + offset, noise))
        else:
            # The code must be an inversion by itself: the map only adds what W+ cannot say, and edits survive it.
            loss = loss + losses.bare * losses.reconstruction(synthesis(code, None), crops[t])
    return loss / len(crops)


def upsample(image: Tensor) -> Tensor:
    """Back to 256 px; the recurrent encoder averages down again, so nothing is lost."""
    return F.interpolate(image, scale_factor=256 // image.shape[-1], mode="nearest")


def frozen_synthesis(network: nn.Module) -> Synthesis:
    """bf16, channels last: four times the speed of f32 where the processor multiplies bf16 matrices."""
    network = network.to(torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_(False)

    def run(ws: Tensor, noise: Tensor | None) -> Tensor:
        noise = None if noise is None else noise.to(torch.bfloat16)
        image: Tensor = network(ws.to(torch.bfloat16), noise).float()
        return image

    return run


@torch.no_grad()
def validate(inverter: Inverter, faces: Tensor, perceptual: StLpips, steps: int = 3) -> dict[str, float]:
    """MSE x100 and ST-LPIPS at 256 px of held-out stills, of the code alone and with code offset and map."""
    generator = load_light_generator()
    run = compile_network(generator, (torch.zeros(1, generator.config.latent_rows, 512), torch.zeros(1, 512, 32, 32)))
    scores: dict[str, list[float]] = {"mse_code": [], "lpips_code": [], "mse": [], "lpips": [], "lpips_no_map": []}
    for face in faces.split(1):
        ws = inverter.base(face)
        h = c = torch.zeros(1, *inverter.recurrent.state_shape())
        made = torch.from_numpy(run(ws.numpy(), np.zeros((1, 512, 32, 32), np.float32)))
        scores["mse_code"].append(100 * float(F.mse_loss(made, face)))
        scores["lpips_code"].append(float(perceptual(made, face)))
        inversion, edit = face, made
        for _ in range(steps):
            dws, noise, h, c = inverter.recurrent(face, face, inversion, edit, h, c)
            code = ws.clone()
            code[:, : dws.shape[1]] += dws
            inversion = edit = torch.from_numpy(run(code.numpy(), noise.numpy()))
        scores["mse"].append(100 * float(F.mse_loss(inversion, face)))
        scores["lpips"].append(float(perceptual(inversion, face)))
        bare = torch.from_numpy(run(code.numpy(), np.zeros((1, 512, 32, 32), np.float32)))
        scores["lpips_no_map"].append(float(perceptual(bare, face)))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def build_stand_in(generator: MobileStyleGan, count: int = 160) -> StandIn:
    """Fit the stand-in's head to the generator's own images."""
    stand_in = StandIn(generator)
    codes, images = synthetic_pack(4000)
    ws = torch.from_numpy(codes[:count])[:, None].repeat(1, generator.config.latent_rows, 1)
    stand_in.fit(ws, shrink(image_tensor(images[:count])))
    return stand_in


@dataclass
class Run:
    """What one training changes as it goes, and what a checkpoint holds."""

    inverter: Inverter
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    spent_s: float = 0.0

    @classmethod
    def begin(cls, inverter: Inverter) -> "Run":
        """Rates: the recurrent encoder starts from nothing, the base encoder from its closed form."""
        groups = [
            {"params": inverter.recurrent.parameters(), "peak": 5e-4},
            {"params": inverter.base.expand.parameters(), "peak": 1e-4},
            {"params": inverter.base.reduce.parameters(), "peak": 1e-5},
            {"params": inverter.base.features.parameters(), "peak": 1e-5},
        ]
        return cls(inverter, ema_copy(inverter), torch.optim.Adam(groups, betas=(0.9, 0.99)))

    def restore(self, checkpoint: Path) -> None:
        """Go on where `save` left off. Raises CheckpointError."""
        state = load_checkpoint(checkpoint)
        self.inverter.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent_s = state["step"], state["spent_s"]

    def save(self, checkpoint: Path) -> None:
        networks = {"model": self.inverter.state_dict(), "average": self.average.state_dict()}
        optimizer = self.optimizer.state_dict()
        save_checkpoint(checkpoint, **networks, optimizer=optimizer, step=self.step, spent_s=self.spent_s)

    def learn(self, loss: Tensor, progress: float, share: float) -> None:
        """One optimiser step at `share` of the groups' peak rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(progress, share * group["peak"])
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.inverter.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        ema_update(self.average, self.inverter, 0.995, self.step)


def run(args: argparse.Namespace) -> int:
    torch.manual_seed(0)
    source = EpisodeSource(load_stills(args.data, Split.TRAIN), load_clips(args.data, Split.TRAIN))
    faces = image_tensor(load_stills(args.data, Split.VALIDATION)[:VALIDATION_FACES])
    start = load_recurrent(args.out).train() if args.refine else RecurrentEncoder()
    training = Run.begin(Inverter(base_training.load_encoder(args.out), start))
    codes, perceptual = CodeSampler.open(), StLpips.load()
    judge = StLpips.load().to(torch.bfloat16).to(memory_format=torch.channels_last)
    losses = Losses(judge, args.map_penalty, args.steady, args.bare)
    cheap = frozen_synthesis(build_stand_in(load_light_generator()))
    full = frozen_synthesis(load_light_generator())
    log, checkpoint = TrainingLog(checkpoint_dir("recurrent") / "log.jsonl"), checkpoint_dir("recurrent") / "last.pt"
    if args.resume:
        training.restore(checkpoint)
    budget, reported = Budget(args.minutes, training.spent_s), time.monotonic()
    rng, draws = np.random.default_rng(training.step), torch.Generator().manual_seed(training.step)
    log.write(step=training.step, **validate(training.average, faces, perceptual))
    while not budget.exhausted:
        ends = codes.draw(2 * args.batch, draws)
        offset = 0.5 * (ends[: args.batch] - ends[args.batch :])[:, None]
        on_full = args.refine or budget.progress >= args.stand_in
        training.inverter.base.features.requires_grad_(on_full)
        crops = source.draw(args.batch, args.length, rng)
        loss = unroll(training.inverter, full if on_full else cheap, losses, crops, offset)
        training.learn(loss, budget.progress, 0.2 if args.refine else 1.0)
        if time.monotonic() - reported > REPORT_EVERY_S or budget.exhausted:
            scores = validate(training.average, faces, perceptual)
            log.write(step=training.step, minutes=budget.spent_s / 60, loss=loss, **scores)
            training.spent_s = budget.spent_s
            training.save(checkpoint)
            save_weights(training.average, args.out)
            reported = time.monotonic()
    return 0


def save_weights(inverter: Inverter, folder: Path) -> None:
    """Write both encoders into `folder`."""
    save_fresh("encoder", inverter.base.state_dict(), folder)
    save_fresh("recurrent", inverter.recurrent.state_dict(), folder)


def load_recurrent(folder: Path | None = None) -> RecurrentEncoder:
    """The recurrent encoder: fresh from `folder` where it is, else as it ships. Raises CheckpointError."""
    network = RecurrentEncoder()
    network.load_state_dict(fitting(load_weights("recurrent", folder), network.state_dict(), "recurrent"))
    return network.eval()
