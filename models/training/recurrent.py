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

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

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

WEIGHTS = Path(__file__).parents[1] / "weights" / "recurrent.safetensors"
LOSS_RESOLUTION = 128
VALIDATION_FACES = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data folder that splits.toml describes")
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock budget")
    parser.add_argument("--stand-in", type=float, default=0.6, help="share of the budget on the cheap generator")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=3, help="frames an episode")
    parser.add_argument("--map-penalty", type=float, default=0.02)
    parser.add_argument("--steady", type=float, default=0.5, help="weight of the temporal difference loss")
    parser.add_argument("--out", type=Path, default=WEIGHTS.parent, help="folder for both encoders' weights")
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
        self.head.bias.copy_(solution[-1])


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

    def reconstruction(self, made: Tensor, target: Tensor) -> Tensor:
        """Squared error and 0.8 ST-LPIPS of [B, 3, 128, 128] images (rigid.md, Eqs. 10-12), the mean over the batch."""
        kind = next(self.perceptual.parameters()).dtype
        distance = self.perceptual(made.to(kind), target.to(kind)).float().mean()
        return F.mse_loss(made, target) + 0.8 * distance


def shrink(image: Tensor) -> Tensor:
    """Average down to the resolution of the losses."""
    return F.avg_pool2d(image, image.shape[-1] // LOSS_RESOLUTION)


def unroll(inverter: Inverter, synthesis: Synthesis, losses: Losses, crops: Tensor, offset: Tensor) -> Tensor:
    """The loss of one batch of episodes: crops [T, B, 3, 256, 256], edit offset [B, L, 512].

    The images fed back are detached: gradients travel through time in the ConvLSTM only.
    """
    base, recurrent, batch = inverter.base, inverter.recurrent, crops.shape[1]
    with torch.no_grad():
        features = base.features(crops.flatten(0, 1))
    ws = base.codes(features).unflatten(0, crops.shape[:2])
    anchor, former = ws[0], recurrent.config.former_rows
    target = shrink(crops[0])
    loss = losses.reconstruction(synthesis(anchor, None), target)
    with torch.no_grad():
        edit = upsample(synthesis(anchor + offset, None))
    inversion, previous = crops[0], None
    h = c = crops.new_zeros(batch, *recurrent.state_shape())
    for t in range(1, len(crops)):
        dws, noise, h, c = recurrent(crops[t - 1], crops[t], inversion, edit, h, c)
        code = torch.cat((ws[t, :, :former] + dws, anchor[:, former:]), dim=1)
        made = synthesis(code, noise)
        last_target, target = target, shrink(crops[t])
        loss = loss + losses.reconstruction(made, target) + losses.map_penalty * noise.square().mean()
        loss = loss + 0.02 * dws.square().mean()
        if previous is not None:
            loss = loss + losses.steady * F.l1_loss(made - previous, target - last_target)
        previous = made
        inversion = upsample(made.detach())
        if t + 1 < len(crops):
            with torch.no_grad():
                edit = upsample(synthesis(code + offset, noise))
    return loss / len(crops)


def upsample(image: Tensor) -> Tensor:
    """Back to 256 px; the recurrent encoder averages down again, so nothing is lost."""
    return F.interpolate(image, scale_factor=256 // image.shape[-1], mode="nearest")


def frozen_synthesis(network: nn.Module) -> Synthesis:
    """bf16, channels last: four times the speed of f32 where the processor multiplies bf16 matrices."""
    network = network.to(torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_(False)

    def run(ws: Tensor, noise: Tensor | None) -> Tensor:
        noise = None if noise is None else noise.to(torch.bfloat16)
        return shrink(network(ws.to(torch.bfloat16), noise)).float()

    return run


@torch.no_grad()
def validate(inverter: Inverter, faces: Tensor, perceptual: StLpips, steps: int = 3) -> dict[str, float]:
    """MSE x100 and ST-LPIPS at 256 px of held-out stills, of the code alone and with code offset and map."""
    generator = load_light_generator()
    run = compile_network(
        generator, (torch.zeros(1, generator.config.latent_rows, 512), torch.zeros(1, 512, 32, 32))
    )
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


def run(args: argparse.Namespace) -> int:
    torch.manual_seed(0)
    source = EpisodeSource(load_stills(args.data, Split.TRAIN), load_clips(args.data, Split.TRAIN))
    faces = image_tensor(load_stills(args.data, Split.VALIDATION)[:VALIDATION_FACES])
    inverter = Inverter(base_training.load_encoder(args.out / "encoder.safetensors"), RecurrentEncoder())
    inverter.base.features.requires_grad_(False)
    codes = CodeSampler.open()
    perceptual = StLpips.load()
    judge = StLpips.load().to(torch.bfloat16).to(memory_format=torch.channels_last)
    losses = Losses(judge, args.map_penalty, args.steady)
    cheap = frozen_synthesis(build_stand_in(load_light_generator()))
    full = frozen_synthesis(load_light_generator())
    log = TrainingLog(checkpoint_dir("recurrent") / "log.jsonl")
    optimizer = torch.optim.Adam(
        [
            {"params": inverter.recurrent.parameters(), "peak": 5e-4},
            {"params": inverter.base.expand.parameters(), "peak": 1e-4},
            {"params": inverter.base.reduce.parameters(), "peak": 1e-5},
        ],
        betas=(0.9, 0.99),
    )
    average, step, spent = ema_copy(inverter), 0, 0.0
    checkpoint = checkpoint_dir("recurrent") / "last.pt"
    if args.resume:
        state = load_checkpoint(checkpoint)
        inverter.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent_s"]
    budget, reported = Budget(args.minutes, spent), time.monotonic()
    rng, draws = np.random.default_rng(step), torch.Generator().manual_seed(step)
    log.write(step=step, **validate(average, faces, perceptual))
    while not budget.exhausted:
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(budget.progress, group["peak"])
        crops = source.draw(args.batch, args.length, rng)
        ends = codes.draw(2 * args.batch, draws)
        offset = 0.5 * (ends[: args.batch] - ends[args.batch :])[:, None]
        loss = unroll(inverter, cheap if budget.progress < args.stand_in else full, losses, crops, offset)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(inverter.parameters(), 1.0)
        optimizer.step()
        step += 1
        ema_update(average, inverter, 0.995, step)
        if time.monotonic() - reported > 300 or budget.exhausted:
            log.write(step=step, minutes=budget.spent_s / 60, loss=loss, **validate(average, faces, perceptual))
            state = {"model": inverter.state_dict(), "average": average.state_dict()}
            save_checkpoint(checkpoint, **state, optimizer=optimizer.state_dict(), step=step, spent_s=budget.spent_s)
            save_weights(average, args.out)
            reported = time.monotonic()
    return 0


def save_weights(inverter: Inverter, folder: Path) -> None:
    """Write both encoders as fp16 safetensors."""
    base_training.save_encoder(inverter.base, folder / "encoder.safetensors")
    tensors = {k: v.detach().half().contiguous() for k, v in inverter.recurrent.state_dict().items()}
    save_file(tensors, folder / "recurrent.safetensors")


def load_recurrent(path: Path = WEIGHTS) -> RecurrentEncoder:
    """Read the recurrent encoder that `save_weights` wrote."""
    network = RecurrentEncoder()
    network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return network.eval()
