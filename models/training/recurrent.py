"""`rigid-live train recurrent`: base encoder and recurrent encoder together, by RIGID's losses over episodes.

The losses are in `inversion.py`. Most of a budget is well spent on the generator's stand-in (`--generator stand-in`),
and its end at full size.
"""

import argparse
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.errors import UsageError
from engine.recurrence import PRIMING_STEPS
from models.checkpoints.weights import FRESH, fitting, load_weights, save_fresh
from models.recurrent import RecurrentEncoder
from models.training.encoder import load_encoder
from models.training.episodes import EpisodeSource
from models.training.inversion import PARTS, Batch, EpisodeObjective, Inverter, Judges, Terms
from models.training.loop import Player, add_loop_arguments, loop_options, sample_rng, train
from models.training.losses import LossWeights
from models.training.packs import prepared, prepared_at_128
from models.training.refiner import load_refiner, refined_code
from models.training.samples import EditSampler, image_tensor
from models.training.splits import Split
from models.training.stand_in import open_synthesis
from models.training.stills import Generator, StillJudge, sheet
from models.training.visibility import load_visible

VALIDATION_FACES = 24
SHOWN = 6
LEAST_LENGTH = 3
"""Frames of an episode: L_ibfcc compares a frame with both of its neighbours."""

LONGEST_PAST = 12
"""Steps that the memory may have behind it in an episode."""

MOST_CARRIED = 0.65
"""Largest share of a picture that is carried over to the next; `engine/steadying.py` carries about as much."""

PEAK_RATES = {
    "recurrent": 5e-4,
    "keep": 5e-3,
    "expand": 1e-4,
    "bend": 1e-4,
    "reduce": 5e-6,
    "features": 1e-5,
}
"""The recurrent encoder starts from nothing, the base encoder from its closed form. keep: the bias of the map memory's
gate; Adam moves a bias by the rate a step, and a gate has units of logits to go."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the data folder that splits.toml describes, or any with faces")
    add("--generator", choices=("stand-in", "full"), default="stand-in", help="stand-in: a third of the time")
    add("--length", type=int, default=6, help="frames an episode")
    add("--without", default="", metavar="PART,...", help=f"of {', '.join(PARTS)}")
    add("--rate", type=float, default=1.0, help="share of the peak learning rates")
    add("--bare", type=float, default=1.0, help="weight of the inversion without the noise map")
    add("--person", type=float, default=Terms.person, help="weight of the distance between dlib's embeddings")
    add("--mesh", type=float, default=Terms.mesh, help="weight of how far the meshes of code and frame lie apart")
    add("--survive", type=float, default=0.3, help="weight of what the map takes from an edit")
    add("--steady", type=float, default=Terms.steady, help="weight of what moves in the inversion and not in the video")
    add("--checkpointing", action="store_true", help="recompute activations: less memory, a third slower")
    add_loop_arguments(parser, minutes=60.0, batch=4, out=FRESH)


def run(args: argparse.Namespace) -> int:
    """Train, and write both encoders. Raises the errors of `engine/errors.py`."""
    without = [name for name in args.without.split(",") if name]
    if unknown := set(without) - set(PARTS):
        raise UsageError(f"--without names {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if args.length < LEAST_LENGTH:
        raise UsageError(f"--length is {args.length}; at least {LEAST_LENGTH} was expected")
    return train(RecurrentTask(args, without), loop_options(args))


class RecurrentTask:
    """The training, for `models.training.loop`."""

    name = "recurrent"

    def __init__(self, args: argparse.Namespace, without: list[str]) -> None:
        device = torch.device(args.device)
        torch.manual_seed(args.seed)
        self._source = EpisodeSource(*prepared_at_128(args.data, Split.TRAIN))
        self._source.check(args.length)
        self._faces = image_tensor(prepared(args.data, Split.VALIDATION)[0][:VALIDATION_FACES])
        self._edits, self._judge = EditSampler.open(), StillJudge.load(device)
        self._length, self._seed, self._rate = args.length, args.seed, args.rate
        self._inverter = Inverter(load_encoder(args.out), RecurrentEncoder(), load_refiner(args.out))
        paper = LossWeights(
            tc=0.0 if "tc" in without else LossWeights.tc, ibfcc=0.0 if "ibfcc" in without else LossWeights.ibfcc
        )
        names = ("bare", "person", "mesh", "survive", "steady")
        terms = Terms(paper, **{name: getattr(args, name) for name in names})
        self._objective = EpisodeObjective(
            self._inverter,
            open_synthesis(args.generator == "full", device),
            Judges.open(load_visible(args.out), device),
            terms,
            without,
            args.checkpointing,
        )
        self._settings = {
            "generator": args.generator,
            "length": args.length,
            "without": sorted(without),
            "rate": args.rate,
            "terms": asdict(terms),
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._settings

    @property
    def players(self) -> tuple[Player, ...]:
        base, recurrent = self._inverter.base, self._inverter.recurrent
        assert recurrent.map_head is not None
        gate = [cast(Tensor, recurrent.map_head.keep.bias)]
        trained: dict[str, Iterable[Tensor]] = {
            "recurrent": [p for p in recurrent.parameters() if p is not gate[0]],
            "keep": gate,
            **{name: part.parameters() for name, part in base.named_children()},
        }
        groups = [
            {"params": [p for p in part if p.requires_grad], "peak": self._rate * PEAK_RATES[name]}
            for name, part in trained.items()
        ]
        return (Player("recurrent", self._objective, groups, self._inverter),)

    def draw(self, step: int, samples: range) -> Batch:
        """Episodes and, for each, an edit that is the same over its frames.

        The first frame is there `PRIMING_STEPS` times: each track starts so in the editor.
        """
        rngs = [sample_rng(self._seed, step, number) for number in samples]
        episodes = self._source.draw(self._length, rngs)
        shown = [0] * (PRIMING_STEPS - 1) + list(range(self._length))
        edits = torch.stack([self._edits.draw(rng) for rng in rngs])
        past = int((LONGEST_PAST + 1) * rngs[0].random() ** 3)
        carried = MOST_CARRIED * max(float(rngs[0].uniform(-1.0, 1.0)), 0.0)
        return episodes.crops[shown], episodes.canvas_from_crop[shown], edits, past, carried

    def start_from(self, folder: Path) -> str:
        self._inverter.base.load_state_dict(load_encoder(folder).state_dict())
        self._inverter.recurrent.load_state_dict(load_recurrent(folder).state_dict())
        fresh = [name for name in ("encoder", "recurrent") if (folder / f"{name}.safetensors").is_file()]
        return f"the weights that ship, but for {', '.join(fresh)} in {folder}" if fresh else "the weights that ship"

    def validate(self, average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Inverter)
        return score_stills(average, self._faces, self._judge, self._edits.sliders)

    def images(self, average: nn.Module) -> Tensor:
        """Validation faces above their inversions, with the map and without it."""
        assert isinstance(average, Inverter)
        shown = self._faces[:SHOWN]
        generator = Generator(next(average.parameters()).device)
        inverted = [invert_still(average, generator, face)[:2] for face in shown.split(1)]
        return sheet(shown, *(torch.cat([pair[n] for pair in inverted]) for n in (0, 1)))

    def save(self, average: nn.Module, folder: Path) -> None:
        assert isinstance(average, Inverter)
        save_fresh("encoder", average.base.state_dict(), folder)
        save_fresh("recurrent", average.recurrent.state_dict(), folder)


def invert_still(
    inverter: Inverter, generator: Generator, face: Tensor, steps: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A still shown for a few frames: inversion, inversion without the map, code, map. face: [1, 3, 256, 256]."""
    device = next(inverter.parameters()).device
    ws = refined_code(inverter.base, inverter.refiner, generator, face)
    h, c = inverter.recurrent.empty_state(face.to(device))
    inversion, edit = face, generator(ws)
    for _ in range(steps):
        seen = [image.to(device) for image in (face, face, inversion, edit)]
        dws, noise, h, c = inverter.recurrent(*seen, h, c)
        code = ws.clone()
        code[:, : dws.shape[1]] += dws.cpu()
        inversion = edit = generator(code, noise.cpu())
    return inversion, generator(code), code, noise.cpu()


@torch.no_grad()
def score_stills(inverter: Inverter, faces: Tensor, judge: StillJudge, edits: Tensor) -> dict[str, float]:
    """`StillJudge.scores` at 256 px of held-out stills, of the refined code alone, with the map and without it.

    edits: offsets [N, L, 512]; "kept" is the mean share of their change to the image that the map lets through.
    """
    generator = Generator(next(inverter.parameters()).device)
    inverted = [invert_still(inverter, generator, face) for face in faces.split(1)]
    images = {
        "code": torch.cat(
            [generator(refined_code(inverter.base, inverter.refiner, generator, face)) for face in faces.split(1)]
        ),
        "map": torch.cat([made for made, *_ in inverted]),
        "no_map": torch.cat([bare for _, bare, *_ in inverted]),
    }
    kept = []
    for (made, bare, code, noise), edit in zip(inverted, itertools.cycle(edits), strict=False):
        change, wanted = generator(code + edit, noise) - made, generator(code + edit) - bare
        kept.append(float((change * wanted).sum() / (wanted * wanted).sum()))
    scores = {kind: judge.scores(made, faces) for kind, made in images.items()}
    named = {f"{metric}_{kind}": value for kind, found in scores.items() for metric, value in found.items()}
    return named | {"kept": sum(kept) / len(kept)}


def load_recurrent(folder: Path | None = None) -> RecurrentEncoder:
    """The recurrent encoder: fresh from `folder` where it is, else as it ships. Raises CheckpointError."""
    network = RecurrentEncoder()
    network.load_state_dict(fitting(load_weights("recurrent", folder), network.state_dict(), "recurrent"))
    return network.eval()
