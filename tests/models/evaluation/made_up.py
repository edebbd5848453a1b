"""Results of an evaluation that never took place."""

from collections.abc import Sequence

import numpy as np

from engine.recurrence import FULL
from models.evaluation.candidates import RETRAINED_WITHOUT, SWITCHED_OFF, Candidate
from models.evaluation.fvd import ClipFeatures, fvd_scores
from models.evaluation.paired import compare_variants
from models.evaluation.results import ClipResult, Outcome, all_blocks, curve_blocks, mean_blocks
from models.evaluation.rollout import LoadedBundle
from models.evaluation.scores import Curves

SHOWN = (1, 4, 9)


def candidates(variants: Sequence[str], retrained: Sequence[str] = ()) -> list[Candidate]:
    """The variants of the bundle `default`, and bundles that lack a part."""
    default = LoadedBundle("default", None, None)
    return [
        *[Candidate(default, variant, FULL, SWITCHED_OFF, variant) for variant in variants],
        *[
            Candidate(LoadedBundle(f"out/{part}", None, None), part, FULL, RETRAINED_WITHOUT, f"{part}, retrained")
            for part in retrained
        ],
    ]


def clip_results(
    clips: int, competitors: Sequence[Candidate], distance: str = "st_lpips", windows: int = 6
) -> list[ClipResult]:
    """Clip n's MSE under candidate k is 1 + n + 10 k, its other numbers follow from that."""
    results = []
    for n in range(clips):
        rng = np.random.default_rng(n)
        source = rng.integers(0, 256, (len(SHOWN), 256, 256, 3)).astype(np.uint8)
        outcomes = []
        for k, candidate in enumerate(competitors):
            mse = 1.0 + n + 10 * k
            features = ClipFeatures(*(rng.normal(size=(windows, 5)) + shift for shift in (0, k, k + 1)))
            block = {
                "clip": f"clip{n}.mp4",
                "bundle": candidate.loaded.label,
                "variant": candidate.variant,
                "ablation": candidate.ablation,
                "frames_scored": 10,
                "mse_x100": mse,
                distance: mse / 100,
                "warp_error": 2 * mse,
                "warp_error_frame": mse / 2,
                "warp_error_shown": mse / 3,
                "tl_id": 0.99,
                "tg_id": 0.98,
                "source_warp_error": 0.75,
                "source_warp_error_frame": 0.5,
                **fvd_scores([features]),
                "seconds_per_100_frames": 9.0,
            }
            curves = Curves(np.full(10, mse), np.append(np.full(8, 2 * mse), np.nan))
            outcomes.append(Outcome(candidate, block, curves, features, source, 255 - source))
        results.append(ClipResult(f"clip{n}.mp4", SHOWN, source, 1, np.full(9, 0.75), outcomes))
    return results


def report_of(results: Sequence[ClipResult]) -> dict[str, object]:
    """The report that the command makes of results, with settings of no interest."""
    runs = all_blocks(results)
    return {
        "settings": {"values": {"smile": 1.0}, "frames": 11, "fast": True},
        "versions": {"python": "3"},
        "runs": runs,
        "means": mean_blocks(results),
        "paired": compare_variants([block for block in runs if block["ablation"] == SWITCHED_OFF]),
        "curves": curve_blocks(results),
        "faces": [],
        "face_groups": [],
        "occlusion": [],
        "skipped": {},
    }
