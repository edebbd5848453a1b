"""The report's tables: the paper's layout first, then everything that was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.evaluation.candidates import RETRAINED_WITHOUT, SWITCHED_OFF
from models.evaluation.occlusion import UNEDITED_LEVELS
from models.evaluation.paired import LEAST_CLIPS, LEVEL, RESAMPLES
from models.evaluation.report import Block, Table

_METHODS = {
    "no_tcc": "w/o TCC",
    "no_nm": "w/o NM",
    "no_lfd": "w/o LFD",
    "no_ibfcc": "w/o L_ibfcc",
    "no_tc": "w/o L_tc",
    "per_frame": "frame by frame",
    "whole_rate": "every inversion generated",
    "paper": "the paper's rules",
    "unsteadied": "not held steady",
    "full": "full",
}
"""Variants as the paper names them, in the order of its ablation table."""

_PERCEPTUAL = {
    "lpips": ("LPIPS", "LPIPS v0.1, AlexNet"),
    "st_lpips": ("ST-LPIPS", "ST-LPIPS with its AlexNet trunk, not the LPIPS of the paper's tables"),
}
_GROUPS = (("", 1), ("inversion", 4), ("editing", 3))

_BEFORE = (
    f"Shares of pixels, all frames together, smile and age at 1: of things before the face, those that change by at "
    f"most {UNEDITED_LEVELS} of 255 levels; the same over the tracked mesh; and of the mesh beside them, those that "
    f"change by more. The pasted things are of kinds and textures held out from training; hands were marked by eye."
)

_METRICS = {"mse_x100": "MSE x100", "warp_error": "WE", "warp_error_shown": "WE, shown"}


def all_tables(report: Mapping[str, Any]) -> list[Table]:
    """Every table of a report, from what its JSON holds."""
    skipped = [{"clip": clip, "reason": reason} for clip, reason in report["skipped"].items()]
    of_clips = [*_ablation_tables(report), _paired_table(report["paired"])] if report["runs"] else []
    others = (
        Table("Means over clips", report["means"], "`_pooled`: FVD over the windows of all clips as one sample."),
        Table("Clips", report["runs"], "`source_` is the source's own warp error; `response_` in the scorer's unit."),
        Table("Still faces", report["faces"]),
        Table(
            "Still faces by group",
            report["face_groups"],
            "Apparent age, gender and skin tone (typology angle), as networks and pixels say; with the map.",
        ),
        Table("Before the face", report["occlusion"], _BEFORE),
        Table("Skipped", skipped),
    )
    return [*of_clips, *(table for table in others if table.rows)]


def _ablation_tables(report: Mapping[str, Any]) -> list[Table]:
    """Table 3 of the paper: one for each bundle whose parts are switched, and one of trainings, maybe empty."""
    means, clips = report["means"], len({run["clip"] for run in report["runs"]})
    switched = [block for block in means if block["ablation"] == SWITCHED_OFF]
    retrained = [block for block in means if block["ablation"] == RETRAINED_WITHOUT]
    tables = []
    for bundle in dict.fromkeys(block["bundle"] for block in switched):
        blocks = [block for block in switched if block["bundle"] == bundle]
        title = f"Ablation: switched off (bundle {bundle})"
        note = f"One training, its parts removed at run time. {_legend(blocks[0], clips)}"
        tables.append(Table(title, _paper_rows(blocks), note, _GROUPS, leading=True))
    title = "Ablation: retrained without"
    if not retrained:
        note = "No bundle was given that was trained without a part (`--retrained no_nm=DIR`)."
        return [*tables, Table(title, (), note, leading=True)]
    note = f"One training a row; they compare if all had equal minutes. {_legend(retrained[0], clips)}"
    return [*tables, Table(title, _paper_rows(_with_full(retrained, switched)), note, _GROUPS, leading=True)]


def _with_full(retrained: Sequence[Block], switched: Sequence[Block]) -> Sequence[Block]:
    """The trainings and, where none of them is the full method, the first bundle in its place."""
    if any(block["variant"] == "full" for block in retrained):
        return retrained
    return [*retrained, *[block for block in switched if block["variant"] == "full"][:1]]


def _paper_rows(blocks: Sequence[Block]) -> list[Block]:
    order = list(_METHODS)
    return [_paper_row(block) for block in sorted(blocks, key=lambda block: order.index(block["variant"]))]


def _paper_row(block: Block) -> Block:
    """A row of the paper's Table 3: four numbers of the inversion, three of the edit."""
    perceptual = _perceptual_of(block)
    method = _METHODS[block["variant"]]
    return {
        "method": method if block["ablation"] == SWITCHED_OFF else f"{method} ({block['bundle']})",
        "MSE x100": block["mse_x100"],
        _PERCEPTUAL[perceptual][0]: block[perceptual],
        "WE": block["warp_error"],
        "FVD": block.get("fvd_pooled", "-"),
        "TL-ID": block["tl_id"],
        "TG-ID": block["tg_id"],
        "FVD, editing": block.get("fvd_edit_pooled", "-"),
    }


def _perceptual_of(block: Block) -> str:
    return next(name for name in _PERCEPTUAL if name in block)


def _legend(block: Block, clips: int) -> str:
    """What the numbers are, what they cannot be compared with, and the floors that they stand on."""
    parts = [
        f"Means over {clips} clip{'s' if clips != 1 else ''}, without each clip's first frame",
        "MSE on aligned crops in [-1, 1]",
        _PERCEPTUAL[_perceptual_of(block)][1],
        f"WE on crops inside the face, SPyNet flow, 0-255 squared (the source's own: {block['source_warp_error']:.4g})",
    ]
    if "windows_pooled" not in block:
        return "; ".join([*parts, "no clip is long enough for an FVD"]) + "."
    count = block["windows_pooled"]
    fvd = (
        f"FVD on aligned crops over the N = {count} windows of all clips (real against real, each clip's first half of "
        f"windows against its second, N = {count // 2}: {block['fvd_floor_pooled']:.4g})"
    )
    return "; ".join([*parts, fvd]) + "."


def _paired_table(blocks: Sequence[Block]) -> Table:
    note = (
        f"a - b on the same clips, smaller is better; {LEVEL:.0%} percentile bootstrap over the clips, {RESAMPLES:,} "
        f"resamples. A verdict wants zero outside the interval, and {LEAST_CLIPS} clips: with fewer it is too narrow."
    )
    if not blocks:
        note = "Nothing to compare: two clips and the variants full and per_frame or no_nm were expected."
    return Table("Paired differences", [_paired_row(block) for block in blocks], note, leading=True)


def _paired_row(block: Block) -> Block:
    return {
        "bundle": block["bundle"],
        "metric": _METRICS[block["metric"]],
        "a": block["a"],
        "b": block["b"],
        "mean of a": block["mean_a"],
        "mean of b": block["mean_b"],
        "a - b": block["mean_difference"],
        "interval": f"[{block['low']:.4g}, {block['high']:.4g}]",
        "clips where a is better": f"{block['clips_a_better']} of {block['clips']}",
        "verdict": block["verdict"],
    }
