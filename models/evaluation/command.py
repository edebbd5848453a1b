"""`rigid-live evaluate`: the paper's metrics for clips, bundles and variants, as JSON and a Markdown table.

Every variant runs on the same crops. The face masks come from the first bundle's parser, so that bundles compare.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.bundle import open_bundle
from engine.bundle_build import bundle_path
from engine.errors import SourceError, UnknownAttribute, UsageError
from engine.frames import Controls
from engine.recurrence import VARIANTS
from engine.runtimes.select import open_networks, select
from models.evaluation.clips import AlignedClip, align_clip, find_clips, open_tracker
from models.evaluation.faces import held_out_faces, read_faces, score_faces
from models.evaluation.report import Block, means, versions, write_report
from models.evaluation.rollout import LoadedBundle, Rollout, face_masks, roll_clip
from models.evaluation.scores import Judges, Reference, score_rollout, take_reference
from models.evaluation.timing import seconds_per_100_frames

log = logging.getLogger(__name__)

_RESPONSE_FRAMES = 12
"""Frames of a clip, evenly spread, on which the sliders' responses are measured."""

_STILL_ATTRIBUTES = ("age", "smile")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated; the names are those of the command line.

    values: the edit. frames: of each clip, at most. faces: a folder of aligned stills, or None; stills: how many of
    them at most. threads: for the metrics' networks. fast: those in bfloat16.
    """

    clips: tuple[Path, ...]
    bundles: tuple[str, ...]
    values: Mapping[str, float]
    variants: tuple[str, ...]
    frames: int
    faces: Path | None
    stills: int
    runtime: str
    precision: str
    threads: int
    fast: bool
    report: Path

    def __post_init__(self) -> None:
        Controls(self.values)
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or not self.variants:
            raise UsageError(f"--variants names {', '.join(unknown) or 'nothing'}; there are {', '.join(VARIANTS)}")
        if not self.clips and self.faces is None:
            raise UsageError("nothing to evaluate; a clip, a folder of clips or --faces was expected")
        if self.frames < 4 or self.stills < 1 or self.threads < 1:
            raise UsageError("--frames starts at 4, --stills and --threads at 1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; `run` takes what the parser returns."""
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP|DIR", help="clips, or folders of clips")
    parser.add_argument("--bundle", action="append", metavar="NAME|DIR", help="repeatable; default: default")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="the edit")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated; default: %(default)s")
    parser.add_argument("--frames", type=int, default=100, help="of each clip at most; default: %(default)s")
    parser.add_argument("--faces", type=Path, metavar="DIR", help="also score these FFHQ-aligned stills")
    parser.add_argument("--stills", type=int, default=50, help="stills at most; default: %(default)s")
    parser.add_argument("--runtime", default="auto", help="default: %(default)s")
    parser.add_argument("--precision", default="auto", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of the metrics' networks; default: %(default)s")
    parser.add_argument("--fast", action="store_true", help="ST-LPIPS and flow in bfloat16: scores move in digit 3")
    parser.add_argument("--report", type=Path, default=Path("out/evaluation.json"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Evaluate and write the report; 0 when done.

    Raises the errors of `engine/errors.py`; nothing is written then.
    """
    settings = EvaluationSettings(
        clips=tuple(args.clips),
        bundles=tuple(args.bundle or ["default"]),
        values=_values(args.set),
        variants=tuple(args.variants.split(",")),
        frames=args.frames,
        faces=args.faces,
        stills=args.stills,
        runtime=args.runtime,
        precision=args.precision,
        threads=args.threads,
        fast=args.fast,
        report=args.report,
    )
    report = evaluate(settings)
    tables = {"Means over clips": report["means"], "Clips": report["runs"], "Still faces": report["faces"]}
    write_report(settings.report, report, tables)
    return 0


def evaluate(settings: EvaluationSettings) -> dict[str, Any]:
    """The report of all clips, stills, bundles and variants, as JSON types."""
    clips = find_clips(settings.clips)
    torch.set_num_threads(settings.threads)
    with ExitStack() as opened:
        bundles = [_open(name, settings) for name in dict.fromkeys(settings.bundles)]
        for loaded in bundles:
            opened.callback(loaded.networks.close)
            _check_attributes(loaded, settings.values)
        judges = Judges.load(settings.fast)
        runs, skipped = _evaluate_clips(clips, bundles, judges, settings)
        faces = list(_evaluate_faces(bundles, judges, settings)) if settings.faces else []
    return {
        "settings": _plain(asdict(settings)),
        "versions": versions(),
        "runs": runs,
        "means": means(runs, ("bundle", "variant")),
        "faces": faces,
        "skipped": skipped,
    }


def _evaluate_clips(
    clips: Sequence[Path], bundles: Sequence[LoadedBundle], judges: Judges, settings: EvaluationSettings
) -> tuple[list[Block], dict[str, str]]:
    """A block for each clip, bundle and variant; and clips without a face, with the reason.

    Raises the first reason when no clip is left.
    """
    tracker = open_tracker(settings.threads)
    runs: list[Block] = []
    reasons: dict[str, SourceError] = {}
    for path in clips:
        try:
            clip = align_clip(path, tracker, settings.frames)
            reference = take_reference(clip.crops, face_masks(bundles[0], clip.crops), judges)
        except SourceError as reason:
            log.warning("skipped: %s", reason)
            reasons[path.name] = reason
            continue
        for loaded in bundles:
            for variant in settings.variants:
                block = _evaluate_variant(path, clip, reference, loaded, variant, judges, settings)
                log.info("%s", block)
                runs.append(block)
    if clips and not runs:
        raise next(iter(reasons.values()))
    return runs, {name: str(reason) for name, reason in reasons.items()}


def _evaluate_variant(
    path: Path,
    clip: AlignedClip,
    reference: Reference,
    loaded: LoadedBundle,
    variant: str,
    judges: Judges,
    settings: EvaluationSettings,
) -> Block:
    rollout = roll_clip(loaded, clip.crops, settings.values, VARIANTS[variant])
    return {
        "clip": clip.name,
        "bundle": loaded.label,
        "variant": variant,
        "frames_in": clip.frames_in,
        "frames_scored": len(reference.crops),
        **asdict(score_rollout(reference, rollout, judges)),
        "source_warp_error": reference.warp_error,
        **_responses(clip, rollout, settings.values, judges),
        "seconds_per_100_frames": seconds_per_100_frames(path, loaded, settings.values, VARIANTS[variant]),
    }


def _responses(clip: AlignedClip, rollout: Rollout, values: Mapping[str, float], judges: Judges) -> dict[str, float]:
    """How far the edit moved the score of each attribute that has one, against the source; in the scorer's unit."""
    last = len(clip.crops) - 1
    at = np.unique(np.linspace(1, last, min(_RESPONSE_FRAMES, last)).astype(int))
    before, after = judges.scorers.score(clip.crops[at]), judges.scorers.score(rollout.edits[at])
    return {f"response_{name}": float(np.mean(after[name] - before[name])) for name in values if name in before}


def _evaluate_faces(bundles: Sequence[LoadedBundle], judges: Judges, settings: EvaluationSettings) -> Iterator[Block]:
    """A block for each bundle on the held-out stills."""
    assert settings.faces is not None
    crops = read_faces(held_out_faces(settings.faces, settings.stills))
    for loaded in bundles:
        attributes = [name for name in _STILL_ATTRIBUTES if name in loaded.bundle.directions]
        scores = score_faces(loaded, crops, judges, attributes)
        block: dict[str, Any] = {"bundle": loaded.label, "stills": scores.stills}
        for name, inversion in scores.inversion.items():
            block |= {f"{metric}_{name}": value for metric, value in asdict(inversion).items()}
        for attribute, moved in scores.responses.items():
            block |= {f"{attribute}_{name}": value for name, value in moved.items()}
        log.info("%s", block)
        yield block


def _open(name: str, settings: EvaluationSettings) -> LoadedBundle:
    bundle = open_bundle(bundle_path(name))
    runtime = select(settings.runtime, "cpu", settings.precision)
    return LoadedBundle(name, bundle, open_networks(bundle, runtime, "cpu", settings.precision))


def _check_attributes(loaded: LoadedBundle, values: Mapping[str, float]) -> None:
    known = loaded.bundle.directions
    for name in values:
        if name not in known:
            raise UnknownAttribute(f"bundle {loaded.label} has no attribute {name!r}; it has {', '.join(known)}")


def _values(assignments: Sequence[str]) -> dict[str, float]:
    """`NAME=VALUE` texts as numbers by name; raises UsageError for another form."""
    values = {}
    for text in assignments:
        name, _, number = text.partition("=")
        try:
            values[name] = float(number)
        except ValueError:
            raise UsageError(f"--set {text}: NAME=VALUE was expected, for example smile=0.8") from None
    return values


def _plain(value: Any) -> Any:
    """The value with paths as texts and tuples as lists, all the way down."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
