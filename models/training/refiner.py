"""`rigid-live train refiner`: the refiner, in closed form on synthetic pairs and then by the pictures of refined codes.

The pairs tell how W lies from the encoder's code where the identity network sees two faces differ. That the picture
stays the photograph, of colours and outlines, only photographs teach. The base encoder stands still.
"""

import argparse
import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from engine.errors import UsageError
from models.checkpoints.weights import FRESH, fitting, load_weights, save_fresh
from models.compiled import compile_network
from models.encoder import BaseEncoder
from models.identity import FaceIdentity, identity_distance
from models.mobile_stylegan import LATENT_DIM
from models.perceptual import perceptual_distance
from models.pictures import pictures_from
from models.refiner import Refiner, RefinerConfig
from models.training.closed_form import degraded, dual_ridge, r2
from models.training.encoder import encoded, load_encoder
from models.training.episodes import EpisodeSource
from models.training.loop import Player, add_loop_arguments, loop_options, sample_rng, train
from models.training.losses import Distance, patch_reconstruction
from models.training.packs import prepared, prepared_at_128
from models.training.samples import CodeSampler, image_tensor
from models.training.splits import Split
from models.training.stand_in import Synthesis, enlarge, open_synthesis
from models.training.stills import Generator, StillJudge, sheet

logger = logging.getLogger(__name__)

VALIDATION_FACES = 24
PEAK_RATES = {"reduce": 4e-5, "expand": 2e-4}
DROPPED = 0.2
"""Share of the features that each step does without."""

HELD_OUT = 200
"""Of the pairs."""

TRUNCATION = (0.6, 1.0)
STRENGTH = 1.5
"""Of the ridge: the best of a third of it, itself and three times as much."""

FAINT = 0.05
"""Of the mean spread: features fainter than that stay faint."""

PERSON_ROWS = slice(4, 9)
"""Rows of W+ that the closed form moves. The coarser ones set the pose and the finer ones colours, which the encoder
knows better: with all rows the squared error of 40 validation faces rose from 8.7 to 11.5, not to 9.3 (by hand)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the data folder that splits.toml describes, or any with faces")
    add("--pairs", type=int, default=4000, help=f"synthetic pairs of the closed form, the first {HELD_OUT} held out")
    add("--generator", choices=("stand-in", "full"), default="full", help="stand-in: a third of the time")
    add("--identity", type=float, default=0.5, help="weight of the squared distance between dlib's embeddings")
    add("--size", type=float, default=0.5, help="weight of how far codes are moved")
    add("--rate", type=float, default=1.0, help="share of the peak learning rates")
    add_loop_arguments(parser, minutes=30.0, batch=8, out=FRESH)


def run(args: argparse.Namespace) -> int:
    """Train and write the refiner. Raises the errors of `engine/errors.py`."""
    if args.pairs < (least := HELD_OUT + RefinerConfig.rank):
        raise UsageError(f"--pairs is {args.pairs}; at least {least} were expected")
    torch.manual_seed(args.seed)
    return train(RefinerTask(args), loop_options(args))


class RefinerObjective(nn.Module):
    """Crops -> the loss of the refined codes' pictures."""

    def __init__(
        self,
        refiner: Refiner,
        encoder: BaseEncoder,
        synthesis: Synthesis,
        distances: tuple[Distance, Distance],
        weights: tuple[float, float],
    ) -> None:
        """distances: perceptual, at 128 px, and of identities, at 256 px. weights: of identity and size."""
        super().__init__()
        self.refiner = refiner
        self._frozen = (encoder,)
        self._synthesis, self._distances, self._weights = synthesis, distances, weights

    def forward(self, crops: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (perceptual, identity), (identity_weight, size_weight) = self._distances, self._weights
        with torch.no_grad():
            ws = encoded(self._frozen[0], crops)
            features = self.refiner.differences(crops, enlarge(self._synthesis(ws, None)))
        dws = self.refiner.moves(features, DROPPED)
        made = self._synthesis(ws + dws, None)
        rec, person = patch_reconstruction(made, crops, perceptual), identity(enlarge(made), crops).mean()
        size = dws.square().mean()
        loss = rec + identity_weight * person + size_weight * size
        return loss, {"rec": rec, "person": person, "size": size}


class RefinerTask:
    """The training, for `models.training.loop`."""

    name = "refiner"

    def __init__(self, args: argparse.Namespace) -> None:
        device = torch.device(args.device)
        self._args, self._judge = args, StillJudge.load(device)
        self._source = EpisodeSource(*prepared_at_128(args.data, Split.TRAIN), clip_share=0.1)
        self._source.check(1)
        self._faces = image_tensor(prepared(args.data, Split.VALIDATION)[0][:VALIDATION_FACES])
        self._encoder = load_encoder(args.out).to(device).requires_grad_(False)
        self._refiner: Refiner | None = None
        self._synthesis = open_synthesis(args.generator == "full", device)
        self._distances = perceptual_distance(device), identity_distance(device)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {name: getattr(self._args, name) for name in ("pairs", "generator", "identity", "size", "rate")}

    @property
    def players(self) -> tuple[Player, ...]:
        """The refiner starts from its closed form where neither `start_from` nor a checkpoint gives it weights."""
        args = self._args
        if self._refiner is None and args.resume:
            self._refiner = Refiner(FaceIdentity.load())
        elif self._refiner is None:
            self._refiner, quality = closed_form_refiner(self._encoder, args.pairs)
            logger.info("closed form: R2 %.3f of what codes lack, on %d held-out pairs", quality, HELD_OUT)
        weights = args.identity, args.size
        objective = RefinerObjective(self._refiner, self._encoder, self._synthesis, self._distances, weights)
        groups = [
            {"params": list(getattr(self._refiner, name).parameters()), "peak": args.rate * peak}
            for name, peak in PEAK_RATES.items()
        ]
        return (Player("refiner", objective, groups, self._refiner),)

    def draw(self, step: int, samples: range) -> Tensor:
        """Crops [B, 3, 256, 256]."""
        return self._source.draw(1, [sample_rng(self._args.seed, step, number) for number in samples]).crops[0]

    def start_from(self, folder: Path) -> str:
        self._refiner = load_refiner(folder)
        return f"the weights in {folder}" if (folder / "refiner.safetensors").is_file() else "the weights that ship"

    def validate(self, average: nn.Module) -> dict[str, float]:
        """`StillJudge.scores` of held-out stills at 256 px, from the refined code alone."""
        return self._judge.scores(self._invert(average, self._faces), self._faces)

    def images(self, average: nn.Module) -> Tensor:
        shown = self._faces[:6]
        return sheet(shown, self._invert(average, shown))

    def _invert(self, refiner: nn.Module, faces: Tensor) -> Tensor:
        generator = Generator(next(refiner.parameters()).device)
        codes = (refined_code(self._encoder, refiner, generator, face) for face in faces.split(1))
        return torch.cat([generator(ws) for ws in codes])

    def save(self, average: nn.Module, folder: Path) -> None:
        assert isinstance(average, Refiner)
        save_fresh("refiner", average.trained(), folder)


def refined_code(encoder: nn.Module, refiner: nn.Module | None, generator: Generator, face: Tensor) -> Tensor:
    """The code [1, L, D] of a face [1, 3, 256, 256], with what the refiner, if there is one, finds missing."""
    face = face.to(next(encoder.parameters()).device)
    ws: Tensor = encoder(face).cpu()
    return ws if refiner is None else ws + refiner(face, generator(ws).to(face.device)).cpu()


@torch.no_grad()
def closed_form_refiner(encoder: BaseEncoder, pairs: int) -> tuple[Refiner, float]:
    """The refiner by ridge regression on synthetic faces, and its R2 on what codes lack of the held-out ones."""
    refiner = Refiner(FaceIdentity.load())
    features, lacking = _synthetic(encoder, refiner, pairs)
    fit = features[HELD_OUT:]
    spread = torch.cat([part + FAINT * part.mean() for part in fit.std(0).split(refiner.config.parts)])
    refiner.centre.copy_(fit.mean(0))
    refiner.level.copy_(1.0 / spread)
    known = (features - refiner.centre) * refiner.level
    mean = lacking[HELD_OUT:].mean(0)
    weights = known[HELD_OUT:].T @ dual_ridge(known[HELD_OUT:], lacking[HELD_OUT:] - mean, STRENGTH)
    quality = r2(known[:HELD_OUT] @ weights + mean, lacking[:HELD_OUT])
    predicted = known[HELD_OUT:] @ weights
    basis = torch.linalg.svd(predicted, full_matrices=False)[2][: refiner.config.rank].T
    strength = (predicted @ basis).std(0)
    refiner.reduce.weight.copy_((weights @ basis / strength).T)
    refiner.reduce.bias.zero_()
    rows = refiner.expand.weight.unflatten(0, (refiner.config.latent_rows, LATENT_DIM))
    rows[PERSON_ROWS] = basis * strength
    refiner.expand.bias.unflatten(0, rows.shape[:2])[PERSON_ROWS] = mean
    return refiner, quality


def _synthetic(encoder: BaseEncoder, refiner: Refiner, pairs: int) -> tuple[Tensor, Tensor]:
    """Features [N, F] of drawn faces, half of them degraded as a webcam would, and what the encoder's codes of these
    lack [N, 512]."""
    codes, rng, generator = CodeSampler.open(), torch.Generator().manual_seed(0), Generator(torch.device("cpu"))
    image = torch.zeros(1, 3, 256, 256)
    encode = compile_network(copy.deepcopy(encoder).cpu(), image)
    compare = compile_network(refiner.differences, (image, image))
    features, lacking = torch.empty(pairs, sum(refiner.config.parts)), torch.empty(pairs, LATENT_DIM)
    for n in tqdm(range(pairs), desc="pairs", unit="face", disable=None):
        w = codes.draw(1, rng, TRUNCATION)
        face = pictures_from(generator(w[:, None].repeat(1, refiner.config.latent_rows, 1)).numpy())
        crop = image_tensor(degraded(face, seed=n) if n % 2 else face)
        ws = torch.from_numpy(encode(crop.numpy()).copy())
        features[n] = torch.from_numpy(compare(crop.numpy(), generator(ws).numpy()))[0]
        lacking[n] = (w - ws.mean(dim=1))[0]
    return features, lacking


def load_refiner(folder: Path | None = None) -> Refiner:
    """The refiner: fresh from `folder` where it is, else as it ships. Raises AssetMissing, CheckpointError."""
    refiner = Refiner(FaceIdentity.load())
    weights = fitting(load_weights("refiner", folder), refiner.trained(), "refiner")
    refiner.load_state_dict({**refiner.state_dict(), **weights})
    return refiner.eval()
