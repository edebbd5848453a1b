"""Means over clips, FVD over all windows, numbers frame by frame."""

import json

import numpy as np
import pytest

from models.evaluation.fvd import fvd_scores
from models.evaluation.results import all_blocks, curve_blocks, mean_blocks
from tests.models.evaluation.made_up import candidates, clip_results


def test_one_block_a_clip_and_candidate() -> None:
    blocks = all_blocks(clip_results(2, candidates(["full", "no_nm"])))
    assert [(block["clip"], block["variant"]) for block in blocks] == [
        ("clip0.mp4", "full"),
        ("clip0.mp4", "no_nm"),
        ("clip1.mp4", "full"),
        ("clip1.mp4", "no_nm"),
    ]


def test_means_have_the_fvd_of_all_windows_beside_the_mean() -> None:
    results = clip_results(3, candidates(["full", "no_nm"], ["no_nm"]))
    full, no_nm, retrained = mean_blocks(results)
    assert [block["bundle"] for block in (full, no_nm, retrained)] == ["default", "default", "out/no_nm"]
    assert full["mse_x100"] == pytest.approx(2.0)
    assert retrained["mse_x100"] == pytest.approx(22.0)
    assert full["fvd"] == pytest.approx(np.mean([result.outcomes[0].block["fvd"] for result in results]))
    pooled = fvd_scores([result.outcomes[1].features for result in results])
    assert (no_nm["fvd_pooled"], no_nm["windows_pooled"]) == (pooled["fvd"], 18)


def test_short_clips_have_no_fvd_and_no_gap_in_the_json() -> None:
    (mean,) = mean_blocks(clip_results(2, candidates(["full"]), windows=2))
    assert not [name for name in mean if name.startswith(("fvd", "windows"))]
    (curve, _) = curve_blocks(clip_results(2, candidates(["full"])))
    assert json.loads(json.dumps(curve, allow_nan=False)) == {
        "clip": "clip0.mp4",
        "bundle": "default",
        "variant": "full",
        "ablation": "switched off",
        "first_frame": 1,
        "mse_x100": [1.0] * 10,
        "warp_error": [2.0] * 8 + [None],
        "source_warp_error": [0.75] * 9,
    }
