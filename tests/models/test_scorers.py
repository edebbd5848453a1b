"""Scores of real aligned faces against their labels, and the geometry of the chips behind them."""

import gzip
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.assets import is_cached
from engine.geometry import transform_points
from models.scorers import FaceScorers, chip_from_crop, face_chips
from models.training.splits import load_splits

FACES = 60


def eye_and_nose_points() -> np.ndarray:
    """468 points of which only those that place a chip are set: eyes level, 60 px apart."""
    points = np.zeros((468, 3), dtype=np.float32)
    points[[263, 362, 33, 133, 2], :2] = [[170, 110], [146, 112], [88, 108], [111, 111], [128, 150]]
    return points


def test_a_chip_is_dlibs_chip() -> None:
    # dlib's get_face_chip_details for these five points, size 64, padding 0.2: a 150.75 px square around
    # (129.16, 139.47), turned by 0.02378 rad.
    affine = chip_from_crop(eye_and_nose_points(), 64)
    assert 64 / np.hypot(affine[0, 0], affine[1, 0]) == pytest.approx(150.75, abs=0.1)
    assert np.arctan2(affine[1, 0], affine[0, 0]) == pytest.approx(-0.02378, abs=1e-3)
    centre = transform_points(affine, np.array([[129.16, 139.47]]))
    assert centre[0] == pytest.approx([32.0, 32.0], abs=0.1)


def test_chip_values_are_centred_rgb_planes() -> None:
    crop = np.zeros((1, 256, 256, 3), dtype=np.uint8)
    crop[..., 0] = 255
    chips = face_chips(crop, eye_and_nose_points()[None], 32)
    assert chips.shape == (1, 3, 32, 32)
    assert chips[0, :, 16, 16] == pytest.approx([(255 - 122.782) / 256, -117.001 / 256, -104.298 / 256], abs=1e-4)


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, list[dict]]:
    """Held-out FFHQ faces, uint8 RGB [N, 256, 256, 3], with their machine annotations."""
    root = os.environ.get("RIGID_TEST_DATA")
    if not root:
        pytest.skip("RIGID_TEST_DATA is not set")
    paths = {int(path.stem): path for path in load_splits().faces(Path(root), "test", ("faces/ffhq256",))}
    annotations = {}
    with gzip.open(Path(root) / "labels" / "ffhq_features_all70k.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            if row["id"] in paths and row["a"]:
                annotations[row["id"]] = row["a"]
            if len(annotations) == FACES:
                break
    crops = np.stack([cv2.imread(str(paths[index]))[..., ::-1] for index in annotations])
    return crops, list(annotations.values())


@pytest.mark.slow
def test_scores_follow_the_labels_of_held_out_faces(labelled: tuple[np.ndarray, list[dict]]) -> None:
    if not all(is_cached(name) for name in ("age", "gender", "face_mesh", "iris", "emotions", "st_lpips_alex")):
        pytest.skip("the scorers' networks: at least one is not in the cache")
    crops, annotations = labelled
    scores = FaceScorers.open().score(crops)

    def correlation(name: str, labels: list[float]) -> float:
        return float(np.corrcoef(scores[name], labels)[0, 1])

    assert correlation("age", [row["age"] for row in annotations]) > 0.8
    assert correlation("yaw", [row["headPose"]["yaw"] for row in annotations]) > 0.9
    assert correlation("pitch", [row["headPose"]["pitch"] for row in annotations]) > 0.7
    assert correlation("smile", [row["smile"] for row in annotations]) > 0.55
    # Almost nobody in the photographs is labelled angry or sad; those who do not smile look it more than those who do.
    assert correlation("sad", [row["smile"] for row in annotations]) < -0.4
    assert correlation("angry", [row["smile"] for row in annotations]) < -0.4
    assert correlation("surprised", [row["emotion"]["surprise"] for row in annotations]) > 0.1
    assert correlation("beard", [row["facialHair"]["beard"] for row in annotations]) > 0.5
    grown_up = [row["age"] > 14 for row in annotations]
    male = np.array([row["gender"] == "male" for row in annotations])
    assert ((scores["gender"] > 0) == male)[grown_up].mean() > 0.9
    glasses = np.array([row["glasses"] != "NoGlasses" for row in annotations])
    assert scores["eyeglasses"][glasses].mean() > scores["eyeglasses"][~glasses].mean() + 1.0
    dark = np.array([row["glasses"] == "Sunglasses" for row in annotations])
    assert scores["eye_light"][dark].mean() < scores["eye_light"][~dark].mean() - 0.5
    assert scores["face"].min() > 0.9
