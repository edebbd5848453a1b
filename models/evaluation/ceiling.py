"""`rigid-live ceiling`: what the light generator can reconstruct at all, by optimisation on held-out faces.

Adam moves the W+ code of each face from where the encoder put it, alone and together with a noise map. That is what
inversion could reach with any encoder. MSE and ST-LPIPS are what is minimised, so they are bounds and flatter; dlib's
distance is a judge that the optimisation does not see. The report is written after every face, and a report of the
same settings is gone on with.
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.bundle import open_bundle
from engine.bundle_build import DEFAULT, bundle_path
from engine.errors import UsageError
from engine.runtimes.base import Networks
from engine.runtimes.select import open_networks, select
from models.checkpoints.published import load_light_generator
from models.evaluation.faces import held_out_faces, read_faces
from models.evaluation.identity import FaceEmbedder, distances
from models.evaluation.report import versions
from models.mobile_stylegan import NOISE_RESOLUTION, MobileStyleGan
from models.perceptual import StLpips
from models.pictures import images_from, pictures_from

log = logging.getLogger(__name__)

Scores = dict[str, float]

CODE_RATE = 0.06
"""Adam's step for codes; the codes of faces are spread by 0.42 around their mean."""

MAP_RATE = 0.02
"""Adam's step for noise maps."""

BETAS = (0.9, 0.99)
WARM_STEPS = 5
COOLING = 0.3
"""The last share of an optimisation, in which the steps shrink to nothing."""


class Seen(NamedTuple):
    """A crop [B, 3, 256, 256] and the trunk's stages for it."""

    crop: Tensor
    stages: list[Tensor]


@dataclass(frozen=True)
class Painter:
    """Draws codes and says how far the image is from a crop; all networks are frozen.

    They run in bf16, channels last, the codes stay float32: on a processor with AMX about half the time of float32.
    """

    generator: MobileStyleGan
    trunk: StLpips
    dtype: torch.dtype = torch.bfloat16

    @classmethod
    def open(cls) -> Self:
        """The light generator and ST-LPIPS. Raises AssetMissing, CheckpointError."""
        networks = load_light_generator(), StLpips.load()
        return cls(*(net.to(torch.bfloat16).to(memory_format=torch.channels_last) for net in networks))

    @torch.no_grad()
    def see(self, crops: Tensor) -> Seen:
        """What `distance` needs of crops RGB [-1, 1] [B, 3, 256, 256]."""
        return Seen(crops, self.trunk.features(crops.to(self.dtype)))

    def draw(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images [B, 3, 256, 256] of codes [B, L, 512] with maps [B, C, 32, 32] or without."""
        image: Tensor = self.generator(ws.to(self.dtype), None if noise is None else noise.to(self.dtype))
        return image

    def distance(self, seen: Seen, image: Tensor) -> Tensor:
        """Mean of ST-LPIPS and squared error, at the size of the crop: what is optimised at 128 px looks right at 128
        px only (60 steps on a held-out face: 0.14 at 256 px, against 0.03)."""
        unlike = self.trunk.distance(self.trunk.features(image), seen.stages)
        return unlike.float().mean() + F.mse_loss(image.float(), seen.crop)


def descend(
    groups: Sequence[tuple[Tensor, float]], loss: Callable[[], Tensor], steps: int, progress: Callable[[int], None]
) -> None:
    """So many steps of Adam on tensors, each with its step size; they are changed in place.

    progress: called after each step with how many were taken.
    """
    tensors = [tensor for tensor, _ in groups]
    adam = torch.optim.Adam([{"params": [tensor]} for tensor in tensors], betas=BETAS)
    for step in range(steps):
        strength = min(1.0, (step + 1) / WARM_STEPS, (steps - step) / (COOLING * steps))
        slopes = torch.autograd.grad(loss(), tensors)
        for (tensor, rate), slope, group in zip(groups, slopes, adam.param_groups, strict=True):
            tensor.grad, group["lr"] = slope, rate * strength
        adam.step()
        progress(step + 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--faces", type=Path, required=True, metavar="DIR", help="the data folder, or a folder of aligned faces")
    add("--stills", type=int, default=50, help="faces at most; default: %(default)s")
    add("--steps", type=int, default=500, help="of Adam, 0.3 s each on one core; default: %(default)s")
    add("--threads", type=int, default=2, help="default: %(default)s")
    add("--report", type=Path, default=Path("out/ceiling.json"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Optimise and write the report. Raises the errors of `engine/errors.py`."""
    if args.stills < 1 or args.steps < 1 or args.threads < 1:
        raise UsageError("--stills, --steps and --threads start at 1")
    torch.set_num_threads(args.threads)
    paths = held_out_faces(args.faces, args.stills)
    crops = torch.from_numpy(images_from(read_faces(paths)))
    bundle = open_bundle(bundle_path(DEFAULT))
    networks = open_networks(bundle, select("auto"), "cpu", "auto")
    judges = Judges(load_light_generator(), StLpips.load(), FaceEmbedder.load())
    painter = Painter.open()
    settings = {"steps": args.steps, "code_rate": CODE_RATE, "map_rate": MAP_RATE}
    runs = runs_so_far(args.report, settings)
    known = {run["face"] for run in runs}
    for path, crop in zip(paths, crops, strict=True):
        if path.name in known:
            continue
        runs.append({"face": path.name, **reconstruct(crop[None], networks, painter, judges, args.steps)})
        log.info("%s", runs[-1])
        report = {"settings": settings, "versions": versions(), "means": means(runs), "runs": runs}
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    networks.close()
    return 0


def runs_so_far(report: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The faces that a report has already; raises UsageError for one of other settings, which is not written over."""
    if not report.exists():
        return []
    try:
        written = json.loads(report.read_text(encoding="utf-8"))
        made_with, runs = written["settings"], list(written["runs"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{report} is not a report of `rigid-live ceiling`: {error}") from error
    if made_with != settings:
        raise UsageError(f"{report} was made with {made_with}, not {settings}; move it away, or name another file")
    return runs


class Judges:
    """Scores one image against a crop, in float32."""

    def __init__(self, generator: MobileStyleGan, trunk: StLpips, embedder: FaceEmbedder) -> None:
        self._generator, self._trunk, self._embedder = generator, trunk, embedder

    @torch.no_grad()
    def scores(self, crop: Tensor, ws: Tensor, noise: Tensor | None) -> Scores:
        """Of code [1, L, 512] and map [1, C, 32, 32] for a crop [1, 3, 256, 256]; the image is rounded to 8 bits."""
        picture, wanted = (pictures_from(image.numpy()) for image in (self._generator(ws, noise), crop))
        image = torch.from_numpy(images_from(picture))
        away = distances(self._embedder.embed(wanted), self._embedder.embed(picture))
        return {
            "mse_x100": 100.0 * float((image - crop).square().mean()),
            "st_lpips": float(self._trunk(image, crop)),
            "dlib_l2": float(away[0]),
        }


def reconstruct(crop: Tensor, networks: Networks, painter: Painter, judges: Judges, steps: int) -> dict[str, Any]:
    """Scores of the encoder's code, and of the code alone and with a map on the way, for a crop [1, 3, 256, 256]."""
    start = torch.from_numpy(networks.encoder_anchor(crop=crop.numpy())["ws"])
    channels = int(networks.generator.spec.inputs["noise"][1])
    nothing = torch.zeros(1, channels, NOISE_RESOLUTION, NOISE_RESOLUTION)
    maps = {"code": None, "code_and_map": nothing.requires_grad_()}
    found = {kind: optimise(crop, start, noise, painter, judges, steps) for kind, noise in maps.items()}
    return {"encoder": judges.scores(crop, start, None), **found}


def optimise(
    crop: Tensor, start: Tensor, noise: Tensor | None, painter: Painter, judges: Judges, steps: int
) -> dict[str, Scores]:
    """Scores after an eighth, a quarter, half and all of the steps, by their number; and how far the code went.

    The code begins at `start` [1, L, 512]. noise: a map to begin with, which is changed in place, or None for no map.
    """
    ws, seen = start.clone().requires_grad_(), painter.see(crop)
    marks = {max(1, steps // part) for part in (8, 4, 2, 1)}
    scores: dict[str, Scores] = {}

    def progress(done: int) -> None:
        if done in marks:
            scores[str(done)] = judges.scores(crop, ws, noise)

    groups = [(ws, CODE_RATE)] if noise is None else [(ws, CODE_RATE), (noise, MAP_RATE)]
    descend(groups, lambda: painter.distance(seen, painter.draw(ws, noise)), steps, progress)
    return {**scores, "moved": {"rms": float((ws.detach() - start).square().mean().sqrt())}}


def means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over the faces of every number, in the form that one face's has."""
    return {key: _mean([run[key] for run in runs]) for key in runs[0] if key != "face"}


def _mean(values: Sequence[Any]) -> Any:
    return means(values) if isinstance(values[0], Mapping) else float(np.mean(values))
