"""`rigid-live likeness`: what Improve likeness does for the people of some clips, on frames that it has not seen.

The likeness is found on the first seconds of a clip, as the editor does, and the loop runs over the rest with and
without it: MSE and ST-LPIPS of the inversion, dlib's distance, how unsteady it is, and how far each slider at 1 moves
its own score, and dlib's distance, from the frame to what is shown. A weaker edit is nearer to the person too: without
the likeness the sliders are scored at `WEAKER` as well.
"""

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engine.bundle import open_bundle
from engine.bundle_build import DEFAULT, bundle_path
from engine.errors import SourceError, UsageError
from engine.likeness import likeness_of
from engine.recurrence import FULL
from engine.runtimes.select import open_networks, select
from models.evaluation.clips import align_clip, clip_names, find_clips, open_tracker
from models.evaluation.identity import FaceEmbedder, distances
from models.evaluation.judges import perceptual_distances
from models.evaluation.report import versions
from models.evaluation.rollout import LoadedBundle, roll_clip
from models.evaluation.scores import squared_errors
from models.perceptual import StLpips
from models.pictures import Pictures
from models.scorers import FaceScorers

log = logging.getLogger(__name__)

CROPS = 8
WEAKER = 0.8
"""A value of the sliders."""
SHORTEST = 8
"""Frames after the fitted ones that a clip must have."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("clips", nargs="+", type=Path, metavar="CLIP|DIR")
    add("--threads", type=int, default=2, help="default: %(default)s")
    add("--fit", type=int, default=75, help="frames at the start that it is found on; default: %(default)s")
    add("--frames", type=int, default=40, help="frames after them that are scored; default: %(default)s")
    add("--set", nargs="+", default=["smile", "age"], metavar="NAME", help="sliders; default: smile age")
    add("--report", type=Path, default=Path("out/likeness.json"), help="default: %(default)s")
    add("--sheets", type=Path, metavar="DIR", help="for pictures: source, inversion and edits, without and with")


def run(args: argparse.Namespace) -> int:
    """Find, score and write the report. Raises the errors of `engine/errors.py`."""
    if args.threads < 1 or args.fit < 1 or args.frames < SHORTEST:
        raise UsageError(f"--threads and --fit are positive, --frames starts at {SHORTEST}")
    torch.set_num_threads(args.threads)
    judges, bundle, runtime = Judges.load(), open_bundle(bundle_path(DEFAULT)), select("auto")
    loaded = LoadedBundle(DEFAULT, bundle, open_networks(bundle, runtime, "cpu", "auto"))
    tracker = open_tracker(args.threads)
    runs: list[dict[str, Any]] = []
    for path, name in clip_names(find_clips(args.clips)).items():
        crops = align_clip(path, tracker, args.fit + args.frames, name).crops
        fit = min(args.fit, len(crops) // 2)
        if len(crops) - fit < SHORTEST:
            raise SourceError(f"{name} shows one person in {len(crops)} frames; at least {2 * SHORTEST} were expected")
        picked = crops[np.linspace(0, fit - 1, CROPS).round().astype(int)]
        began_s = time.monotonic()
        found = likeness_of(picked, bundle, runtime)
        took_s, moved = time.monotonic() - began_s, float(np.sqrt(np.square(found).mean()))
        block = {"clip": name, "fitted_frames": fit, "seconds": took_s, "offset_rms": moved}
        sheet: list[Pictures] = []
        for kind, likeness, value in (("weaker", None, WEAKER), ("without", None, 1.0), ("with", found, 1.0)):
            block[kind] = compare(loaded, crops[fit:], likeness, dict.fromkeys(args.set, value), judges, sheet)
        runs.append(block)
        log.info("%s", block)
        settings = {"threads": args.threads, "frames": args.frames}
        report = {"settings": settings, "versions": versions(), "runs": runs}
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if args.sheets:
            write_sheet(args.sheets / f"{Path(name).stem}.jpg", sheet)
    loaded.networks.close()
    return 0


@dataclass(frozen=True)
class Judges:
    """What scores pictures."""

    distance: StLpips
    embedder: FaceEmbedder
    scorers: FaceScorers

    @classmethod
    def load(cls) -> "Judges":
        """From the asset cache. Raises AssetMissing."""
        return cls(StLpips.load(), FaceEmbedder.load(), FaceScorers.open())


def compare(
    loaded: LoadedBundle,
    crops: Pictures,
    likeness: NDArray[np.float32] | None,
    values: Mapping[str, float],
    judges: Judges,
    sheet: list[Pictures],
) -> dict[str, Any]:
    """Scores of the loop on crops [T, 256, 256, 3] after its first frame, every third of them; each slider alone."""
    rollouts = {name: roll_clip(loaded, crops, {name: value}, FULL, likeness) for name, value in values.items()}
    chosen = slice(1, None, 3)
    wanted, first = crops[chosen], next(iter(rollouts.values()))
    inversions = first.inversions[chosen]
    people, scores = judges.embedder.embed(wanted), judges.scorers.score(wanted)

    def change(name: str, shown: Pictures) -> dict[str, float]:
        """How far a slider moved its own score, in the scorer's unit, and how far it led from the person."""
        response = judges.scorers.score(shown)[name] - scores[name]
        return {"response": float(np.mean(response)), "dlib_l2": float(np.mean(away(shown)))}

    def away(images: Pictures) -> NDArray[np.float32]:
        return distances(people, judges.embedder.embed(images))

    if not sheet:
        sheet.append(wanted)
    sheet += [inversions, *(rollout.shown[chosen] for rollout in rollouts.values())]
    return {
        "mse_x100": float(np.mean(squared_errors(wanted, inversions))),
        "st_lpips": float(np.mean(perceptual_distances(judges.distance, wanted, inversions))),
        "dlib_l2": float(np.mean(away(inversions))),
        "change_between_frames": float(np.abs(np.diff(first.inversions.astype(np.float32), axis=0)).mean()),
        "shown": {name: change(name, rollout.shown[chosen]) for name, rollout in rollouts.items()},
    }


def write_sheet(path: Path, rows: Sequence[Pictures], columns: int = 6) -> None:
    """The rows of pictures [T, S, S, 3] below each other, evenly spread, at half their size."""
    at = np.linspace(0, len(rows[0]) - 1, columns).round().astype(int)
    grid = np.concatenate([np.concatenate(list(row[at, ::2, ::2]), axis=1) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), grid[..., ::-1])
