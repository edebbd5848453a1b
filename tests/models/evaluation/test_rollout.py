"""The loop over crops, on the tiny seeded bundle."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.bundle import open_bundle
from engine.directions import edit_reach
from engine.geometry import translation
from engine.recurrence import VARIANTS, advance
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks
from engine.steadying import grey_crop, motion_between, steadied
from models.evaluation.rollout import (
    LoadedBundle,
    face_masks,
    images_from,
    pictures_from,
    roll_clip,
    settle_stills,
)
from tests.engine import tiny_bundle
from tests.engine.fakes import picture
from tests.engine.test_session import ClothOnAFace


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedBundle]:
    bundle = open_bundle(tiny_bundle.build(Path(tmp_path_factory.mktemp("rollout")) / "tiny"))
    networks = open_networks(bundle, OnnxRuntime(threads=1), "cpu", "fp32")
    yield LoadedBundle("tiny", bundle, networks)
    networks.close()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Five smooth pictures, uint8 [5, 256, 256, 3]."""
    return np.stack([picture(n, 256, 256) for n in range(5)])


def test_pictures_survive_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    images = images_from(levels)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(pictures_from(images), levels)
    np.testing.assert_array_equal(pictures_from(images * 2)[0, 15, 15], (255, 255, 255))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rollout_is_the_loop_step_by_step(loaded: LoadedBundle, crops: np.ndarray, variant: str) -> None:
    values = {"smile": 0.5}
    rollout = roll_clip(loaded, crops, values, VARIANTS[variant])
    state, steady = None, None
    greys = [grey_crop(crop[..., ::-1], translation(0.0, 0.0)) for crop in crops]
    for t in range(len(crops)):
        if t and variant not in ("paper", "per_frame", "unsteadied"):
            steady = partial(partial, steadied, motions=[motion_between(greys[t - 1], greys[t])])
        crop, offset = images_from(crops[t : t + 1]), loaded.offset(values)
        reach = edit_reach(loaded.bundle.directions, [values], 256)
        state, inversion, edit = advance(
            loaded.networks, state, crop, offset, VARIANTS[variant], steady=steady, reach=reach
        )
        np.testing.assert_array_equal(rollout.inversions[t], pictures_from(inversion)[0])
        np.testing.assert_array_equal(rollout.edits[t], pictures_from(edit)[0])
    assert not np.array_equal(rollout.inversions, rollout.edits)


def test_stills_in_a_batch_are_stills_alone(loaded: LoadedBundle, crops: np.ndarray) -> None:
    switches = VARIANTS["full"]
    together = settle_stills(loaded, crops, {"age": 1.0}, switches, steps=3, batch=4)
    for n in range(len(crops)):
        alone = roll_clip(loaded, crops[n : n + 1].repeat(3, axis=0), {"age": 1.0}, switches)
        # One level of rounding: a batch may add in another order.
        assert np.abs(together.inversions[n].astype(int) - alone.inversions[-1]).max() <= 1
        assert np.abs(together.edits[n].astype(int) - alone.edits[-1]).max() <= 1


def test_what_is_taken_off_in_a_session_is_taken_off_here(loaded: LoadedBundle, crops: np.ndarray) -> None:
    """Of the tiny bundle's age below 0, that is cloth. A little of it, so that the map has a say in the edit."""
    parser = ClothOnAFace(loaded.networks.parser.spec)
    dressed = replace(loaded, networks=replace(loaded.networks, parser=parser))
    off = roll_clip(dressed, crops, {"age": -0.3}, VARIANTS["full"])
    paper = roll_clip(dressed, crops, {"age": -0.3}, replace(VARIANTS["full"], residual=False))
    assert not np.array_equal(off.edits[0], paper.edits[0])
    stills = settle_stills(dressed, crops[:1], {"age": -0.3}, VARIANTS["full"], steps=1)
    np.testing.assert_array_equal(stills.edits[0], off.edits[0])


def test_face_masks_are_the_parsers(loaded: LoadedBundle, crops: np.ndarray) -> None:
    masks = face_masks(loaded, crops)
    assert masks.shape == (5, 256, 256)
    assert set(np.unique(masks)) == {0.0, 1.0}
    # The tiny parser calls an ellipse of 0.6 by 0.8 skin.
    assert (masks[:, 128, 128] == 1).all()
    assert (masks[:, :8] == 0).all()
    assert masks.mean() == pytest.approx(np.pi * 0.6 * 0.8 / 4, abs=0.05)
