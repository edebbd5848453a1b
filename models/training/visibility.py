"""`rigid-live train visibility`: the visible net of Eq. 8, on triplets of real frames, before the recurrent encoder.

It learns which neighbour shows each pixel of a frame better, by the l1 distance between the frame and its composite;
then it is frozen. Talking heads hide little of themselves, so half of the triplets have one neighbour covered by a
piece of another picture, as by a hand that passes.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints.weights import FRESH, fitting, load_weights, save_fresh
from models.flow import SpyNet, warp
from models.training.episodes import EpisodeSource
from models.training.loop import Player, add_loop_arguments, loop_options, sample_rng, train
from models.training.losses import composition, composition_loss, unalign
from models.training.packs import prepared
from models.training.samples import image_tensor
from models.training.splits import Split
from models.training.stand_in import shrink
from models.visibility import LIGHT, VisibleNet

RESOLUTION = 128
PEAK_RATE = 1e-3
VALIDATION_TRIPLETS = 64
CLIP_SHARE = 0.9
COVERED_SHARE = 0.5

Triplets = tuple[Tensor, Tensor]
"""crops RGB [-1, 1] [3, B, 3, 256, 256] and canvas_from_crop [3, B, 2, 3]."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data folder that splits.toml describes")
    add_loop_arguments(parser, minutes=20.0, batch=8, out=FRESH)


def run(args: argparse.Namespace) -> int:
    torch.manual_seed(args.seed)
    return train(VisibilityTask(args), loop_options(args))


class Objective(nn.Module):
    """Batches of triplets -> l1 between the middle frame and its composite (rigid.md, Training)."""

    def __init__(self, network: VisibleNet, flow: SpyNet) -> None:
        super().__init__()
        self.network = network
        self._flow = (flow,)

    def forward(self, batch: Triplets) -> tuple[Tensor, dict[str, Tensor]]:
        """Also reports the loss of the plain mean of both neighbours, which it has to beat."""
        frame, previous, after = self.bring(batch)
        composed = composition(self.network(torch.cat((previous, after), dim=1)), previous, after)
        plain = composition_loss(frame, composition(torch.full_like(frame[:, :1], 0.5), previous, after))
        return composition_loss(frame, composed), {"plain": plain}

    @torch.no_grad()
    def bring(self, batch: Triplets) -> tuple[Tensor, Tensor, Tensor]:
        """The middle frame, and its neighbours warped onto it, on the canvas at 128 px."""
        frames = [unalign(shrink(crop, RESOLUTION), to) for crop, to in zip(*batch, strict=True)]
        unit = [0.5 * frame + 0.5 for frame in frames]
        with torch.autocast(frames[0].device.type, torch.bfloat16):
            flows = [self._flow[0](unit[1], unit[n]).float() for n in (0, 2)]
        return frames[1], warp(frames[0], flows[0]), warp(frames[2], flows[1])


def cover(frames: Tensor, other: Tensor, rng: np.random.Generator) -> None:
    """Lay an ellipse of `other` [3, 256, 256] over the first or the last of the `frames` [3, 3, 256, 256], in place."""
    side = frames.shape[-1]
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre, axes = rng.uniform(0.15, 0.85, 2) * side, rng.uniform(0.08, 0.3, 2) * side
    inside = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 < 1.0
    covered = frames[0 if rng.random() < 0.5 else 2]
    covered[:, inside] = other[:, inside]


class VisibilityTask:
    """The training, for `models.training.loop`."""

    name = "visibility"
    settings: Mapping[str, Any] = {"peak_rate": PEAK_RATE, "resolution": RESOLUTION}

    def __init__(self, args: argparse.Namespace) -> None:
        self._seed = args.seed
        self._source = EpisodeSource(*prepared(args.data, Split.TRAIN), clip_share=CLIP_SHARE)
        self._source.check(3)
        self._network = VisibleNet(LIGHT)
        flow = SpyNet.load().to(args.device)
        self._objective = Objective(self._network, flow)
        held_out = EpisodeSource(*prepared(args.data, Split.VALIDATION), clip_share=1.0)
        self._held_out = [self._triplets(held_out, 0, range(n, n + 8)) for n in range(0, VALIDATION_TRIPLETS, 8)]
        self._judge = Objective(VisibleNet(LIGHT), flow)

    @property
    def players(self) -> tuple[Player, ...]:
        groups = [{"params": list(self._network.parameters()), "peak": PEAK_RATE}]
        return (Player("visibility", self._objective, groups, self._network, decay=0.99),)

    def draw(self, step: int, samples: range) -> Triplets:
        return self._triplets(self._source, step, samples)

    def _triplets(self, source: EpisodeSource, step: int, samples: range) -> Triplets:
        rngs = [sample_rng(self._seed, step, number) for number in samples]
        episodes = source.draw(3, rngs)
        for number, rng in enumerate(rngs):
            if rng.random() < COVERED_SHARE:
                cover(episodes.crops[:, number], image_tensor(source.picture(rng)[None])[0], rng)
        return episodes.crops, episodes.canvas_from_crop

    def start_from(self, folder: Path) -> str:
        self._network.load_state_dict(load_visible(folder).state_dict())
        return "the newest weights"

    def validate(self, average: nn.Module) -> dict[str, float]:
        """Mean l1 of the composite, and of the plain mean, on held-out triplets."""
        device = next(average.parameters()).device
        judge = self._judge.to(device).eval()
        judge.network.load_state_dict(average.state_dict())
        found = [judge(tuple(part.to(device) for part in batch)) for batch in self._held_out]
        plain = torch.stack([told["plain"] for _, told in found]).mean()
        return {"l1": float(torch.stack([loss for loss, _ in found]).mean()), "l1_plain": float(plain)}

    def images(self, average: nn.Module) -> Tensor:
        """Frame, both neighbours brought onto it, and the visibility, of held-out triplets."""
        device = next(average.parameters()).device
        frame, previous, after = self._judge.to(device).bring(tuple(part.to(device) for part in self._held_out[0]))
        seen = average(torch.cat((previous, after), dim=1)).expand(-1, 3, -1, -1) * 2 - 1
        rows = [torch.cat(list(row), dim=2) for row in (frame, previous, after, seen)]
        return torch.cat(rows, dim=1).cpu()

    def save(self, average: nn.Module, folder: Path) -> None:
        save_fresh("visible", average.state_dict(), folder)


def load_visible(folder: Path | None = None) -> VisibleNet:
    """The visible net: fresh from `folder` where it is, else the committed one. Raises CheckpointError."""
    network = VisibleNet(LIGHT)
    network.load_state_dict(fitting(load_weights("visible", folder), network.state_dict(), "visible"))
    return network.eval().requires_grad_(False)
