"""The scores of rollouts that are perfect, dark or still, with seeded judges."""

import numpy as np
import pytest
import torch

from engine.errors import SourceError
from models.evaluation.rollout import Rollout
from models.evaluation.scores import Judges, Reference, score_rollout, squared_errors, take_reference
from models.flow import SpyNet
from models.perceptual import StLpips

FRAMES, SIZE = 7, 64


class Means:
    """An embedder whose embedding is the picture at 4 x 4, around its mean colour."""

    def embed(self, crops: np.ndarray) -> np.ndarray:
        small = crops.reshape(len(crops), 4, SIZE // 4, 4, SIZE // 4, 3).mean(axis=(2, 4)).reshape(len(crops), -1)
        return small.astype(np.float32) - 20.0


@pytest.fixture(scope="module")
def judges() -> Judges:
    torch.manual_seed(0)
    distance = StLpips()
    for head in distance.heads:
        head.weight.abs_()
    still = SpyNet()
    for weight in still.parameters():
        weight.zero_()
    return Judges(distance, still, Means(), scorers=None)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """A patch of noise that gets a little brighter in every frame."""
    noise = np.random.default_rng(0).integers(50, 200, (1, SIZE, SIZE, 3))
    return (noise + 2 * np.arange(FRAMES).reshape(-1, 1, 1, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def reference(crops: np.ndarray, judges: Judges) -> Reference:
    return take_reference(crops, np.ones((FRAMES, SIZE, SIZE), np.float32), judges)


def test_the_reference_leaves_the_anchors_frame_out(reference: Reference, crops: np.ndarray) -> None:
    np.testing.assert_array_equal(reference.crops, crops[1:])
    assert reference.forward.shape == (FRAMES - 2, 2, SIZE, SIZE)
    assert reference.trusted.shape == (FRAMES - 2, SIZE, SIZE)
    # No motion, and two levels brighter from frame to frame.
    assert reference.trusted.all()
    assert reference.warp_error == pytest.approx(4.0, rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(reference.identities, axis=1), 1.0, rtol=1e-5)


def test_a_clip_whose_flow_is_nowhere_trusted_is_refused(crops: np.ndarray, judges: Judges) -> None:
    with pytest.raises(SourceError, match="flow"):
        take_reference(crops, np.zeros((FRAMES, SIZE, SIZE), np.float32), judges)


def test_a_perfect_rollout(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    scores = score_rollout(reference, Rollout(crops, crops), judges)
    assert scores.mse_x100 == 0.0
    assert scores.st_lpips == 0.0
    assert scores.warp_error == reference.warp_error
    assert scores.tl_id == pytest.approx(1.0)
    assert scores.tg_id == pytest.approx(1.0)


def test_the_first_frame_of_a_rollout_does_not_count(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    spoilt = crops.copy()
    spoilt[0] = 0
    assert score_rollout(reference, Rollout(spoilt, spoilt), judges).mse_x100 == 0.0


def test_a_brighter_inversion_has_its_own_error(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    scores = score_rollout(reference, Rollout(crops + np.uint8(10), crops), judges)
    assert scores.mse_x100 == pytest.approx(100 * (10 / 127.5) ** 2, rel=1e-4)
    assert scores.st_lpips > 0
    assert scores.warp_error == pytest.approx(reference.warp_error, rel=1e-6)
    assert scores.tl_id == pytest.approx(1.0)


def test_an_edit_that_changes_the_person_loses_identity(
    reference: Reference, crops: np.ndarray, judges: Judges
) -> None:
    other = crops.copy()
    other[::2, :32] = 0
    scores = score_rollout(reference, Rollout(crops, other), judges)
    assert scores.tl_id < 0.97
    assert scores.tl_id < scores.tg_id < 0.99


def test_squared_errors_are_one_a_picture(crops: np.ndarray) -> None:
    darker = crops - np.arange(FRAMES, dtype=np.uint8).reshape(-1, 1, 1, 1)
    expected = 100 * (np.arange(FRAMES) / 127.5) ** 2
    np.testing.assert_allclose(squared_errors(crops, darker), expected, rtol=1e-4)
