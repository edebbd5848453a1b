"""`rigid-live train encoder`: the base encoder, in closed form and then by what the generator makes of its codes.

As e4e: squared error, LPIPS and identity of the inversion, a penalty on how far the rows of W+ differ from each other,
and a discriminator of codes that keeps each row where the mapping network's codes lie, in which edits work.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints.weights import FRESH, fitting, load_weights, save_fresh
from models.encoder import MESH, BaseEncoder
from models.identity import identity_distance
from models.perceptual import perceptual_distance
from models.tracking import plain_slopes
from models.training.closed_form import closed_form_encoder
from models.training.episodes import EpisodeSource
from models.training.landmarks import mesh_distance
from models.training.loop import Player, add_loop_arguments, loop_options, sample_rng, train
from models.training.losses import Distance, patch_reconstruction
from models.training.packs import prepared, prepared_at_128
from models.training.samples import CodeSampler, image_tensor
from models.training.splits import Split
from models.training.stand_in import Synthesis, enlarge, open_synthesis
from models.training.stills import Generator, StillJudge, sheet

logger = logging.getLogger(__name__)

VALIDATION_FACES = 24
PEAK_RATES = {"expand": 4e-4, "bend": 4e-4, "reduce": 2e-5, "features": 4e-5}
"""In one step each of them can change a code by about as much: `reduce` sums ten thousand features."""
DROPPED = 0.2
"""Share of the features that each step does without: faces of the training part are met again and again."""
DISCRIMINATOR_RATE = 2e-4
R1_WEIGHT = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the data folder that splits.toml describes, or any with faces")
    add("--pairs", type=int, default=4000, help="synthetic pairs of the closed form, the first 300 held out")
    add("--generator", choices=("stand-in", "full"), default="full", help="stand-in: a third of the time")
    add("--mesh", type=float, default=3.0, help="weight of how far the meshes of picture and crop lie apart")
    add("--delta", type=float, default=0.002, help="weight of the rows' differences")
    add("--identity", type=float, default=0.25, help="weight of the squared distance between dlib's embeddings")
    add("--adversarial", type=float, default=0.02, help="weight of the latent discriminator; 0 for none")
    add("--rate", type=float, default=1.0, help="share of the peak learning rates")
    add_loop_arguments(parser, minutes=30.0, batch=8, out=FRESH)


def run(args: argparse.Namespace) -> int:
    """Train and write the encoder. Raises the errors of `engine/errors.py`."""
    torch.manual_seed(args.seed)
    return train(EncoderTask(args), loop_options(args))


class LatentDiscriminator(nn.Sequential):
    """Whether a code [N, 512] is the mapping network's: logit [N, 1] (as e4e's)."""

    def __init__(self, width: int = 512) -> None:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Linear(width, width), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Linear(width, 1))


class Weights(NamedTuple):
    """Of the losses beside the reconstruction's."""

    identity: float
    mesh: float
    delta: float
    adversarial: float


class Distances(NamedTuple):
    """What is made of a code is compared with its crop by: perceptual, at 128 px; the other two at 256 px."""

    perceptual: Distance
    identity: Distance
    mesh: Distance

    @classmethod
    def open(cls, device: torch.device) -> Self:
        """With the frozen networks. Raises AssetMissing, CheckpointError."""
        return cls(perceptual_distance(device), identity_distance(device), mesh_distance(device))


class EncoderObjective(nn.Module):
    """Crops and codes of the mapping network -> the encoder's loss."""

    def __init__(
        self,
        encoder: BaseEncoder,
        critic: LatentDiscriminator,
        synthesis: Synthesis,
        distances: Distances,
        weights: Weights,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._frozen = (critic,)
        self._synthesis, self._distances, self._weights = synthesis, distances, weights

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        crops, _ = batch
        weights, distances, ws = self._weights, self._distances, encoded(self.encoder, crops, DROPPED)
        made = self._synthesis(ws, None)
        rec = patch_reconstruction(made, crops, distances.perceptual)
        person = distances.identity(enlarge(made), crops).mean() if weights.identity else rec.new_zeros(())
        lost = distances.mesh(enlarge(made), crops).mean() if weights.mesh else rec.new_zeros(())
        differences = (ws - ws.mean(dim=1, keepdim=True)).square().mean()
        real = F.softplus(-self._frozen[0](ws.flatten(0, 1))).mean() if weights.adversarial else rec.new_zeros(())
        loss = rec + weights.identity * person + weights.mesh * lost
        loss = loss + weights.delta * differences + weights.adversarial * real
        return loss, {"rec": rec, "person": person, "mesh": lost, "differences": differences, "realness": real}


class CriticObjective(nn.Module):
    """Non-saturating loss of the latent discriminator with R1 on the mapping network's codes."""

    def __init__(self, critic: LatentDiscriminator, encoder: BaseEncoder) -> None:
        super().__init__()
        self.critic = critic
        self._frozen = (encoder,)

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        crops, drawn = batch
        with torch.no_grad():
            made = encoded(self._frozen[0], crops).flatten(0, 1)
        drawn = drawn.detach().requires_grad_()
        on_drawn, on_made = self.critic(drawn), self.critic(made)
        (slope,) = torch.autograd.grad(on_drawn.sum(), drawn, create_graph=True)
        r1 = slope.square().sum(1).mean()
        loss = F.softplus(-on_drawn).mean() + F.softplus(on_made).mean() + 0.5 * R1_WEIGHT * r1
        return loss, {"drawn": on_drawn.mean(), "made": on_made.mean()}


def encoded(encoder: BaseEncoder, crops: Tensor, dropped: float = 0.0) -> Tensor:
    """Codes [B, L, 512], all but face mesh and linear maps in bf16.

    dropped: share of the features that are left out; the mesh's few are all there.
    """
    with torch.autocast(crops.device.type, torch.bfloat16):
        features = encoder.features(crops)
    seen, mesh = features.float().tensor_split([-MESH], dim=1)
    return encoder.codes(torch.cat((F.dropout(seen, dropped), mesh), dim=1))


class EncoderTask:
    """The training, for `models.training.loop`."""

    name = "encoder"

    def __init__(self, args: argparse.Namespace) -> None:
        device = torch.device(args.device)
        self._args, self._codes, self._judge = args, CodeSampler.open(), StillJudge.load(device)
        self._source = EpisodeSource(*prepared_at_128(args.data, Split.TRAIN), clip_share=0.1)
        self._source.check(1)
        self._faces = image_tensor(prepared(args.data, Split.VALIDATION)[0][:VALIDATION_FACES])
        self._encoder: BaseEncoder | None = None
        self._synthesis = open_synthesis(args.generator == "full", device)
        self._distances = Distances.open(device)

    @property
    def settings(self) -> Mapping[str, Any]:
        chosen = ("pairs", "generator", "identity", "mesh", "delta", "adversarial", "rate")
        return {name: getattr(self._args, name) for name in chosen}

    @property
    def players(self) -> tuple[Player, ...]:
        """The encoder starts from its closed form where neither `start_from` nor a checkpoint gives it weights."""
        args = self._args
        if self._encoder is None and args.resume:
            self._encoder = BaseEncoder()
        elif self._encoder is None:
            self._encoder, quality = closed_form_encoder(args.pairs)
            logger.info("closed form: R2 %.3f on %d held-out codes", quality, 300)
        encoder, critic = self._encoder, LatentDiscriminator()
        weights = Weights(args.identity, args.mesh, args.delta, args.adversarial)
        objective = EncoderObjective(encoder, critic, self._synthesis, self._distances, weights)
        groups = [
            {"params": [p for p in getattr(encoder, name).parameters() if p.requires_grad], "peak": args.rate * peak}
            for name, peak in PEAK_RATES.items()
        ]
        players = [Player("encoder", objective, groups, encoder)]
        if args.adversarial:
            judged = [{"params": list(critic.parameters()), "peak": args.rate * DISCRIMINATOR_RATE}]
            players.append(Player("critic", CriticObjective(critic, encoder), judged, betas=(0.0, 0.99)))
        return tuple(players)

    def draw(self, step: int, samples: range) -> tuple[Tensor, Tensor]:
        """Crops [B, 3, 256, 256], and as many codes [B * L, 512] of the mapping network."""
        rngs = [sample_rng(self._args.seed, step, number) for number in samples]
        seeds = [torch.Generator().manual_seed(int(rng.integers(2**62))) for rng in rngs]
        drawn = torch.cat([self._codes.draw(4, seed, psi=(0.7, 1.0)) for seed in seeds])
        return self._source.draw(1, rngs).crops[0], drawn

    def start_from(self, folder: Path) -> str:
        self._encoder = load_encoder(folder)
        return f"the weights in {folder}" if (folder / "encoder.safetensors").is_file() else "the weights that ship"

    def validate(self, average: nn.Module) -> dict[str, float]:
        """`StillJudge.scores` of held-out stills at 256 px, from the code alone."""
        return self._judge.scores(self._invert(average, self._faces), self._faces)

    def images(self, average: nn.Module) -> Tensor:
        shown = self._faces[:6]
        return sheet(shown, self._invert(average, shown))

    def _invert(self, encoder: nn.Module, faces: Tensor) -> Tensor:
        device = next(encoder.parameters()).device
        generator = Generator(device)
        return torch.cat([generator(encoder(face.to(device)).cpu()) for face in faces.split(1)])

    def save(self, average: nn.Module, folder: Path) -> None:
        save_fresh("encoder", average.state_dict(), folder)


def load_encoder(folder: Path | None = None) -> BaseEncoder:
    """The base encoder: fresh from `folder` where it is, else as it ships. Raises CheckpointError."""
    encoder = BaseEncoder()
    weights = plain_slopes(load_weights("encoder", folder))
    encoder.load_state_dict(fitting(weights, encoder.state_dict(), "encoder"))
    return encoder.eval()
