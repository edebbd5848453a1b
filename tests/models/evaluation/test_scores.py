"""The scores of rollouts that are perfect, dark or still, with seeded judges."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.errors import SourceError
from models.evaluation.fvd import WindowReader, fvd_scores
from models.evaluation.judges import Judges
from models.evaluation.rollout import Rollout
from models.evaluation.scores import Motion, Reference, Scored, score_rollout, squared_errors, take_reference
from models.evaluation.view import FaceView
from models.flow import SpyNet
from models.perceptual import StLpips

FRAMES, SIZE = 7, 64


class Means:
    """An embedder whose embedding is the picture at 4 x 4, around its mean colour."""

    def embed(self, crops: np.ndarray) -> np.ndarray:
        small = crops.reshape(len(crops), 4, SIZE // 4, 4, SIZE // 4, 3).mean(axis=(2, 4)).reshape(len(crops), -1)
        return small.astype(np.float32) - 20.0


class Still:
    """A flow network that sees no motion."""

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.new_zeros(len(a), 2, *a.shape[2:])


@pytest.fixture(scope="module")
def judges() -> Judges:
    torch.manual_seed(0)
    distance = StLpips()
    for head in distance.heads:
        head.weight.abs_()
    return Judges(distance, Still(), Means(), None, WindowReader(lambda window: window[:, 0, :4, 0, 0], limit=8))


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """A patch of noise that gets a little brighter in every frame."""
    noise = np.random.default_rng(0).integers(50, 200, (1, SIZE, SIZE, 3))
    return (noise + 2 * np.arange(FRAMES).reshape(-1, 1, 1, 1)).astype(np.uint8)


def view_of(crops: np.ndarray) -> FaceView:
    """Frames that are their own crops; the face takes the left three quarters, its mask the left half."""
    faces, mask = np.ones((len(crops), SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    faces[..., 3 * SIZE // 4 :] = 0
    mask[:, : SIZE // 2] = 1
    return FaceView(crops[..., ::-1], (np.eye(2, 3),) * len(crops), faces, [mask] * len(crops))


@pytest.fixture(scope="module")
def reference(crops: np.ndarray, judges: Judges) -> Reference:
    return take_reference(crops, np.ones((FRAMES, SIZE, SIZE), np.float32), view_of(crops), judges)


def test_the_reference_leaves_the_anchors_frame_out(reference: Reference, crops: np.ndarray) -> None:
    np.testing.assert_array_equal(reference.crops, crops[1:])
    assert reference.motion.forward.shape == (FRAMES - 2, 2, SIZE, SIZE)
    assert reference.motion.trusted.shape == (FRAMES - 2, SIZE, SIZE)
    # No motion, and two levels brighter from frame to frame.
    assert reference.motion.trusted.all()
    assert reference.errors == pytest.approx(np.full(FRAMES - 2, 4.0), rel=1e-5)
    assert reference.warp_error == pytest.approx(4.0, rel=1e-5)
    assert reference.view_error == pytest.approx(4.0, rel=1e-5)
    np.testing.assert_array_equal(reference.view.rgb, crops[1:])
    np.testing.assert_allclose(np.linalg.norm(reference.identities, axis=1), 1.0, rtol=1e-5)


def test_a_clip_whose_flow_is_nowhere_trusted_is_refused(crops: np.ndarray, judges: Judges) -> None:
    with pytest.raises(SourceError, match="flow"):
        take_reference(crops, np.zeros((FRAMES, SIZE, SIZE), np.float32), view_of(crops), judges)


def test_a_perfect_rollout(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    scores = score_rollout(reference, Rollout(crops, crops, crops), judges).scores
    assert scores.mse_x100 == 0.0
    assert scores.perceptual == 0.0
    assert scores.warp_error == reference.warp_error
    assert scores.warp_error_frame == reference.view_error
    assert scores.tl_id == pytest.approx(1.0)
    assert scores.tg_id == pytest.approx(1.0)


def test_the_first_frame_of_a_rollout_does_not_count(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    spoilt = crops.copy()
    spoilt[0] = 0
    scored = score_rollout(reference, Rollout(spoilt, spoilt, spoilt), judges)
    assert scored.scores.mse_x100 == 0.0
    np.testing.assert_array_equal(scored.curves.mse_x100, np.zeros(FRAMES - 1))
    np.testing.assert_array_equal(scored.curves.warp_error, reference.errors)


def test_a_brighter_inversion_has_its_own_error(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    scores = score_rollout(reference, Rollout(crops + np.uint8(10), crops, crops), judges).scores
    assert scores.mse_x100 == pytest.approx(100 * (10 / 127.5) ** 2, rel=1e-4)
    assert scores.perceptual > 0
    assert scores.warp_error == pytest.approx(reference.warp_error, rel=1e-6)
    assert scores.tl_id == pytest.approx(1.0)


def test_an_edit_that_changes_the_person_loses_identity(
    reference: Reference, crops: np.ndarray, judges: Judges
) -> None:
    other = crops.copy()
    other[::2, :32] = 0
    scores = score_rollout(reference, Rollout(crops, other, other), judges).scores
    assert scores.tl_id < 0.97
    assert scores.tl_id < scores.tg_id < 0.99


def test_squared_errors_are_one_a_picture(crops: np.ndarray) -> None:
    darker = crops - np.arange(FRAMES, dtype=np.uint8).reshape(-1, 1, 1, 1)
    expected = 100 * (np.arange(FRAMES) / 127.5) ** 2
    np.testing.assert_allclose(squared_errors(crops, darker), expected, rtol=1e-4)


def test_errors_frame_by_frame(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    """One frame of the inversion is 10 levels darker: its own error, and the two pairs that it belongs to."""
    darker = crops.copy()
    darker[3] -= np.uint8(10)
    scored = score_rollout(reference, Rollout(darker, crops, crops), judges)
    expected = np.zeros(FRAMES - 1)
    expected[2] = 100 * (10 / 127.5) ** 2
    np.testing.assert_allclose(scored.curves.mse_x100, expected, rtol=1e-4)
    # Frames brighten by 2: down by 8 into the dark one, up by 12 out of it.
    np.testing.assert_allclose(scored.curves.warp_error, [4, 64, 144, 4, 4], rtol=1e-5)
    assert scored.scores.warp_error == pytest.approx(np.mean([4, 64, 144, 4, 4]), rel=1e-5)


def test_on_frames_only_the_mask_takes_the_inversion(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    """The mask is half of the frame, the face rectangle three quarters: two thirds of it flicker with the inversion."""
    darker = crops.copy()
    darker[1::2] -= np.uint8(10)
    scores = score_rollout(reference, Rollout(darker, crops, crops), judges).scores
    # From a dark frame to a bright one 12, back 8: three pairs of the one, two of the other.
    flicker = (3 * 144 + 2 * 64) / 5
    assert scores.warp_error == pytest.approx(flicker, rel=1e-5)
    assert scores.warp_error_frame == pytest.approx((2 * flicker + 4) / 3, rel=0.03)


def test_what_is_shown_has_an_error_of_its_own(reference: Reference, crops: np.ndarray, judges: Judges) -> None:
    flickering = crops.copy()
    flickering[1::2] -= np.uint8(10)
    scores = score_rollout(reference, Rollout(crops, crops, flickering), judges).scores
    assert scores.warp_error == reference.warp_error
    assert scores.warp_error_shown == pytest.approx((3 * 144 + 2 * 64) / 5, rel=1e-5)


def test_the_perceptual_distance_goes_by_its_judges_name(
    reference: Reference, crops: np.ndarray, judges: Judges
) -> None:
    scores = score_rollout(reference, Rollout(crops, crops, crops), judges).scores
    assert "st_lpips" in scores.named(judges.distance_name)
    assert "perceptual" not in scores.named("lpips")
    assert list(scores.named("lpips")) == [
        "mse_x100",
        "lpips",
        "warp_error",
        "warp_error_frame",
        "warp_error_shown",
        "tl_id",
        "tg_id",
    ]


def scored_long(judges: Judges, darker: int) -> Scored:
    noise = np.random.default_rng(1).integers(50, 200, (21, SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.ones((21, SIZE, SIZE), np.float32)
    judges = replace(judges, distance=lambda a, b: (a - b).abs().mean())
    source = take_reference(noise, masks, view_of(noise), judges)
    return score_rollout(source, Rollout(noise - np.uint8(darker), noise, noise), judges)


def test_features_of_the_same_windows(judges: Judges) -> None:
    """Twenty scored frames make five windows; a shift of every feature is its square in each of the four."""
    features = scored_long(judges, darker=10).features
    assert features.source.shape == features.inversion.shape == features.edit.shape == (5, 4)
    scores = fvd_scores([features])
    assert scores["fvd"] == pytest.approx(4 * (10 / 127.5) ** 2, rel=1e-2)
    assert scores["fvd_edit"] == pytest.approx(0, abs=1e-9)


def test_warp_error_of_a_known_motion_through_the_real_flow(pinned: Callable[[str], Path], judges: Judges) -> None:
    """A picture that moves by (3, -2) pixels a frame; the inversion flickers by 5 levels, so each pair is off by 10."""
    flow = SpyNet.load(pinned("spynet"))
    scene = (np.random.default_rng(3).integers(60, 180, (24, 24, 3))).astype(np.uint8)
    scene = cv2.resize(scene, (192, 192), interpolation=cv2.INTER_CUBIC)
    video = np.stack([scene[30 + 2 * t : 158 + 2 * t, 30 - 3 * t : 158 - 3 * t] for t in range(6)])
    masks = np.zeros((6, 128, 128), np.float32)
    masks[:, 16:-16, 16:-16] = 1
    motion = Motion.of(video, masks, replace(judges, flow=flow))
    shift = motion.forward[:, :, 32:96, 32:96].mean(dim=(0, 2, 3))
    assert shift.tolist() == pytest.approx([3, -2], abs=0.15)
    own = motion.errors(video).mean()
    assert own < 5
    flickering = video + np.where(np.arange(6) % 2, 5, -5).astype(np.int8)[:, None, None, None]
    assert motion.errors(flickering.astype(np.uint8)).mean() == pytest.approx(100 + own, rel=0.03)
