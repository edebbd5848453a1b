"""Features of crops, and the classifiers that ship."""

import json

import numpy as np
import pytest
import torch

from models.attribute_classifiers import BLOCKS, FEATURES, WEIGHTS_FILE, LinearHeads, features_of
from models.perceptual import StLpips

SHIPPED = {"eyeglasses", "beard", "chubby", "hair_colour", "skin_colour", "makeup"}


@pytest.fixture(scope="module")
def trunk() -> StLpips:
    torch.manual_seed(0)
    return StLpips("alex")


def gradient_crop(size: int) -> np.ndarray:
    """A smooth crop, uint8 RGB [1, size, size, 3]: red grows to the right, green downwards."""
    ramp = np.linspace(0, 255, size)
    crop = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.full((size, size), 90.0)), axis=-1)
    return crop.round().astype(np.uint8)[None]


def test_features_hold_the_trunk_and_a_thumbnail(trunk: StLpips) -> None:
    features = features_of(gradient_crop(256), trunk)
    assert features.shape == (1, FEATURES)
    assert features.dtype == np.float32
    # Pooled directions of unit length are never longer than one at any place of the grid.
    directions = features[0, : BLOCKS[0]].reshape(-1, 64)
    assert np.linalg.norm(directions, axis=0).max() <= 1.0 + 1e-4
    thumbnail = features[0, BLOCKS[0] :].reshape(3, 16, 16)
    assert np.all(np.diff(thumbnail[0], axis=1) > 0)
    assert np.all(np.diff(thumbnail[1], axis=0) > 0)
    assert thumbnail[2] == pytest.approx(np.full((16, 16), 90 / 127.5 - 1), abs=0.01)


def test_a_smaller_crop_is_resampled(trunk: StLpips) -> None:
    large, small = (features_of(gradient_crop(size), trunk) for size in (256, 128))
    assert np.corrcoef(large[0], small[0])[0, 1] > 0.99


def test_crops_are_independent_of_their_batch(trunk: StLpips) -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    together = features_of(crops, trunk)
    assert together[2] == pytest.approx(features_of(crops[2:], trunk)[0], abs=1e-4)


def test_the_shipped_heads_are_small_and_their_held_out_scores_are_recorded() -> None:
    heads = LinearHeads.load()
    assert set(heads.names) >= SHIPPED
    assert heads.weights.shape == (FEATURES, len(heads.names))
    assert np.isfinite(heads.weights).all()
    assert WEIGHTS_FILE.stat().st_size < 1 << 20
    held_out = json.loads(WEIGHTS_FILE.with_suffix(".json").read_text())["held_out"]
    assert set(held_out) == set(heads.names)
    assert all(row["auc"] > 0.8 for row in held_out.values())
