"""`rigid-live evaluate`: the paper's metrics for clips, bundles and variants, as JSON, tables and an HTML page.

Every variant runs on the same crops. The face masks come from the first bundle's parser, so that bundles compare.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import SourceError
from models.evaluation.candidates import SWITCHED_OFF, Candidate, open_candidates
from models.evaluation.clips import AlignedClip, align_clip, clip_names, find_clips, open_tracker
from models.evaluation.faces import held_out_faces, read_faces, score_faces
from models.evaluation.fvd import SHORTEST_CLIP, fvd_scores
from models.evaluation.judges import Judges
from models.evaluation.metrics import mouth_followed
from models.evaluation.occlusion import score_occlusion
from models.evaluation.page import render_page
from models.evaluation.paired import compare_variants
from models.evaluation.report import Block, versions, write_report
from models.evaluation.results import ClipResult, Outcome, all_blocks, curve_blocks, mean_blocks
from models.evaluation.rollout import LoadedBundle, Rollout, face_masks, roll_clip
from models.evaluation.scores import Reference, score_rollout, take_reference
from models.evaluation.settings import EvaluationSettings, add_arguments, from_arguments
from models.evaluation.tables import all_tables
from models.evaluation.timing import seconds_per_100_frames
from models.evaluation.view import take_view
from models.face_geometry import measure
from models.pictures import Pictures

__all__ = ["add_arguments", "evaluate", "run"]

log = logging.getLogger(__name__)

_RESPONSE_FRAMES = 12
"""Frames of a clip, evenly spread, on which the sliders' responses are measured."""

_SHOWN_FRAMES = 6
"""Frames of a clip, evenly spread, that the page shows."""

_STILL_ATTRIBUTES = ("age", "smile")


def run(args: argparse.Namespace) -> int:
    """Evaluate and write the report; 0 when done.

    Raises the errors of `engine/errors.py`; nothing is written then.
    """
    settings = from_arguments(args)
    report, results = evaluate(settings)
    tables = all_tables(report)
    write_report(settings.report, report, tables, render_page(report, tables, results))
    log.info("%s, and beside it .md and .html", settings.report)
    return 0


def evaluate(settings: EvaluationSettings) -> tuple[dict[str, Any], list[ClipResult]]:
    """The report of all clips, stills, bundles and variants, as JSON types; and the clips' results, for pictures."""
    clips = find_clips(settings.clips)
    stills = read_faces(held_out_faces(settings.faces, settings.stills)) if settings.faces else None
    torch.set_num_threads(settings.threads)
    with open_candidates(settings) as candidates:
        judges = Judges.load(settings.windows, settings.lpips, settings.fast)
        results, skipped = _evaluate_clips(clips, candidates, judges, settings)
        faces, groups = _evaluate_faces(candidates, stills, judges) if stills is not None else ([], [])
    runs = all_blocks(results)
    kept = (settings.bundles, settings.runtime, settings.precision)
    report = {
        "settings": _plain(asdict(settings)),
        "versions": versions(),
        "runs": runs,
        "means": mean_blocks(results),
        "paired": compare_variants([block for block in runs if block["ablation"] == SWITCHED_OFF]),
        "curves": curve_blocks(results),
        "faces": faces,
        "face_groups": groups,
        "occlusion": score_occlusion(settings.occluders, *kept) if settings.occluders else [],
        "skipped": skipped,
    }
    return report, results


def _evaluate_clips(
    clips: Sequence[Path], candidates: Sequence[Candidate], judges: Judges, settings: EvaluationSettings
) -> tuple[list[ClipResult], dict[str, str]]:
    """What was found on each clip; and clips without a face, with the reason.

    Raises the first reason when no clip is left.
    """
    tracker = open_tracker(settings.threads)
    results: list[ClipResult] = []
    reasons: dict[str, SourceError] = {}
    for path, name in clip_names(clips).items():
        try:
            clip = align_clip(path, tracker, settings.frames, name)
            reference = _reference(path, clip, candidates[0].loaded, judges)
        except SourceError as reason:
            reasons[name] = reason
            continue
        if len(reference.crops) < SHORTEST_CLIP:
            log.warning("%s: %d frames are scored, FVD needs %d", name, len(reference.crops), SHORTEST_CLIP)
        shown = np.unique(np.linspace(1, len(clip.crops) - 1, _SHOWN_FRAMES).astype(int))
        outcomes = []
        for candidate in candidates:
            outcomes.append(_evaluate_candidate(path, clip, reference, candidate, shown, judges, settings))
            log.info("%s", outcomes[-1].block)
        first = clip.first_frame
        numbers = [first + int(at) for at in shown]
        results.append(ClipResult(name, numbers, clip.crops[shown], first + 1, reference.errors, outcomes))
    if clips and not results:
        raise next(iter(reasons.values()))
    for reason in reasons.values():
        log.warning("skipped: %s", reason)
    return results, {name: str(reason) for name, reason in reasons.items()}


def _reference(path: Path, clip: AlignedClip, first: LoadedBundle, judges: Judges) -> Reference:
    return take_reference(clip.crops, face_masks(first, clip.crops), take_view(path, clip, first), judges)


def _evaluate_candidate(
    path: Path,
    clip: AlignedClip,
    reference: Reference,
    candidate: Candidate,
    shown: np.ndarray,
    judges: Judges,
    settings: EvaluationSettings,
) -> Outcome:
    rollout = roll_clip(candidate.loaded, clip.crops, settings.values, candidate.switches)
    scored = score_rollout(reference, rollout, judges)
    block = {
        "clip": clip.name,
        "bundle": candidate.loaded.label,
        "variant": candidate.variant,
        "ablation": candidate.ablation,
        "frames_in": clip.frames_in,
        "frames_scored": len(reference.crops),
        **scored.scores.named(judges.distance_name),
        "source_warp_error": reference.warp_error,
        "source_warp_error_frame": reference.view_error,
        **fvd_scores([scored.features]),
        **_responses(clip.crops, rollout, settings.values, judges),
        **_mouth(clip.crops, rollout, judges),
        "seconds_per_100_frames": seconds_per_100_frames(path, candidate.loaded, settings.values, candidate.switches),
    }
    return Outcome(candidate, block, scored.curves, scored.features, rollout.inversions[shown], rollout.edits[shown])


def _responses(crops: Pictures, rollout: Rollout, values: Mapping[str, float], judges: Judges) -> dict[str, float]:
    """How far the edit moved the score of each attribute that has one, against the source; in the scorer's unit."""
    last = len(crops) - 1
    at = np.unique(np.linspace(1, last, min(_RESPONSE_FRAMES, last)).astype(int))
    before, after = judges.scorers.score(crops[at]), judges.scorers.score(rollout.edits[at])
    return {f"response_{name}": float(np.mean(after[name] - before[name])) for name in values if name in before}


def _mouth(crops: Pictures, rollout: Rollout, judges: Judges) -> dict[str, float]:
    """`mouth_followed` of what the viewer sees, where the source's mouth moves."""
    before, after = (measure(judges.scorers.landmarks(pictures)[0]).mouth_open for pictures in (crops, rollout.shown))
    followed = mouth_followed(before[1:], after[1:])
    return {} if followed is None else {"mouth_followed": followed}


def _evaluate_faces(
    candidates: Sequence[Candidate], stills: Pictures, judges: Judges
) -> tuple[list[Block], list[Block]]:
    """A block for each bundle on the held-out stills, and one for each group of people among them."""
    faces: list[Block] = []
    groups: list[Block] = []
    bundles = {c.loaded.label: c.loaded for c in candidates if c.ablation == SWITCHED_OFF}
    for loaded in bundles.values():
        attributes = [name for name in _STILL_ATTRIBUTES if name in loaded.bundle.directions]
        scores = score_faces(loaded, stills, judges, attributes)
        block: dict[str, Any] = {"bundle": loaded.label, "stills": scores.stills}
        for name, inversion in scores.inversion.items():
            block |= {f"{metric}_{name}": value for metric, value in inversion.named(judges.distance_name).items()}
        for attribute, moved in scores.responses.items():
            block |= {f"{attribute}_{name}": value for name, value in moved.items()}
        log.info("%s", block)
        faces.append(block)
        for group, (count, inversion) in scores.groups.items():
            named = inversion.named(judges.distance_name)
            groups.append({"bundle": loaded.label, "group": group, "stills": count, **named})
    return faces, groups


def _plain(value: Any) -> Any:
    """The value with paths as texts and tuples as lists, all the way down."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
