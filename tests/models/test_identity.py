"""dlib's network in torch: the same numbers as dlib's own, and a distance that gradients pass through."""

from collections.abc import Callable
from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from engine.errors import CheckpointError
from models.evaluation.faces import held_out_faces, read_faces
from models.evaluation.identity import FaceEmbedder
from models.identity import CHIP_PX, FaceIdentity, identity_distance
from models.training.samples import image_tensor

Pinned = Callable[[str], Path]


@pytest.fixture
def faces(clips: Path) -> np.ndarray:
    """Aligned crops of two people, uint8 [2, 256, 256, 3]."""
    return read_faces(held_out_faces(clips.parent, 2))


def test_its_embeddings_are_dlibs(pinned: Pinned):
    judge = dlib.face_recognition_model_v1(str(pinned("dlib_face")))
    network = FaceIdentity.load(pinned("dlib_face"))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (CHIP_PX, CHIP_PX, 3), np.uint8)
    ramp = np.add.outer(np.arange(CHIP_PX), np.arange(CHIP_PX))[..., None] * np.array([0.8, 0.3, 0.5])
    for chip in (noise, ramp.astype(np.uint8)):
        image = torch.from_numpy(chip).permute(2, 0, 1)[None] / 127.5 - 1.0
        ours = network.of_chips(image)[0].numpy()
        np.testing.assert_allclose(ours, np.array(judge.compute_face_descriptor(chip)), atol=2e-6)


def test_a_constant_place_in_the_crop_is_near_dlibs_alignment(pinned: Pinned, faces: np.ndarray):
    """As near as two pictures of one person never are."""
    pinned("dlib_landmarks5")
    network = FaceIdentity.load(pinned("dlib_face"))
    theirs = FaceEmbedder.load().embed(faces)
    ours = network(image_tensor(faces)).numpy()
    assert np.linalg.norm(ours - theirs, axis=1).max() < 0.3
    assert np.linalg.norm(theirs[0] - theirs[1]) > 0.6


def test_the_distance_draws_a_face_towards_the_other(pinned: Pinned, faces: np.ndarray):
    pinned("dlib_face")
    distance = identity_distance(torch.device("cpu"))
    made, real = (image_tensor(face[None]).requires_grad_() for face in faces)
    assert distance(real, real).item() == pytest.approx(0.0, abs=1e-6)
    before = distance(made, real)
    before.sum().backward()
    assert real.grad is None
    assert made.grad is not None
    assert distance(made - made.grad.sign() / 127.5, real).item() < 0.9 * before.item()


def test_another_file_is_refused(tmp_path: Path, pinned: Pinned):
    other = tmp_path / "other.dat"
    other.write_bytes(b"\x01\x02 nothing of the kind")
    with pytest.raises(CheckpointError, match="does not hold dlib's face recognition network"):
        FaceIdentity.load(other)
    other.write_bytes(pinned("dlib_face").read_bytes()[:1_000_000])
    with pytest.raises(CheckpointError, match="cut off"):
        FaceIdentity.load(other)
