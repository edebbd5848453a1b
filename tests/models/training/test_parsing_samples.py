"""Crops and class maps stay aligned through the augmentation, and damage is labelled as it should be."""

import cv2
import numpy as np
import pytest
import torch

from models.parsing import CLASSES
from models.training import parsing_samples as samples


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[:256, :256]
    return ((xs - x) ** 2 + (ys - y) ** 2 < radius**2).astype(np.uint8)


def test_pairs_are_read_as_rgb_and_class_indices(tmp_path):
    image = np.zeros((256, 256, 3), np.uint8)
    image[..., 2] = 200  # red, OpenCV's order
    mask = np.full((256, 256), 17, np.uint8)  # neck
    mask[:128] = 13  # hair
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    crops, labels = samples.load_pairs([(tmp_path / "a.png", tmp_path / "m.png")])
    assert crops[0, 0, 0].tolist() == [200, 0, 0]
    assert (labels[0, 0, 0], labels[0, 255, 0]) == (2, 5)


def test_unreadable_pair_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        samples.load_pairs([(tmp_path / "absent.jpg", tmp_path / "absent.png")])


def test_moved_label_lies_where_the_moved_crop_does(rng):
    label = disc(100, 150, 60)
    crop = np.repeat(label[..., None] * np.uint8(255), 3, 2)
    for _ in range(20):
        moved, small = samples._warp(crop, label, samples.random_affine(rng))
        halved = cv2.resize(moved, (128, 128), interpolation=cv2.INTER_AREA)[..., 0]
        certain = (halved < 20) | (halved > 235)
        assert np.array_equal(small[certain], (halved > 127)[certain])
        assert certain.mean() > 0.9


def test_plain_label_covers_two_by_two_crop_pixels():
    label = np.repeat(np.repeat(np.arange(128 * 128).reshape(128, 128) % 7, 2, 0), 2, 1).astype(np.uint8)
    crop = np.zeros((256, 256, 3), np.uint8)
    same, small = samples.plain_sample(crop, label)
    assert np.array_equal(small, label[::2, ::2])
    assert np.array_equal(same, crop)


def test_occluded_pixels_become_occluder_and_no_others_change(rng, monkeypatch):
    monkeypatch.setattr(samples.occluders, "_MOVING", 0.0)
    crop, label = np.full((256, 256, 3), 128, np.uint8), np.ones((128, 128), np.uint8)
    hidden = []
    for _ in range(30):
        covered, after = samples.occlude(crop, label, np.zeros_like(crop), np.ones((256, 256), np.uint8), rng)
        brighter = cv2.resize(covered.max(2), (128, 128)) > 128  # what is not is in its shadow, perhaps
        inside = after == samples.OCCLUDER
        assert (after[~inside] == 1).all()
        far = cv2.dilate(inside.astype(np.uint8), np.ones((11, 11), np.uint8)) == 0
        assert not brighter[far].any()
        hidden.append(float(inside.mean()))
    assert np.mean(hidden) > 0.02


def test_hat_and_glasses_are_put_on_where_they_were(rng):
    crop, label = np.full((256, 256, 3), 60, np.uint8), np.ones((256, 256), np.uint8)
    lender, lent = np.full((256, 256, 3), 250, np.uint8), np.zeros((256, 256), np.uint8)
    hat = CLASSES.index("hat")
    lent[:80] = hat
    dressed, worn = samples.put_on(crop, label, lender, lent, rng)
    assert 60 * 256 < (worn == hat).sum() < 100 * 256
    assert (worn[120:] == 1).all()
    assert dressed[:50, 20:230].min() > 60
    assert np.abs(dressed[120:].astype(int) - 60).max() <= 1
    again, same = samples.put_on(dressed, worn, lender, lent, rng)
    assert again is dressed
    assert same is worn


def test_augmentation_keeps_types_and_sizes_and_inputs(rng):
    crops = rng.integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    labels = rng.integers(0, 7, (3, 256, 256), dtype=np.uint8)
    before = crops.copy(), labels.copy()
    for index in range(30):
        crop, label = samples.augmented_sample(crops, labels, index % 3, rng)
        assert (crop.shape, crop.dtype, label.shape, label.dtype) == ((256, 256, 3), np.uint8, (128, 128), np.uint8)
        assert set(np.unique(label)) <= {*range(7), samples.OCCLUDER}
    assert np.array_equal(crops, before[0])
    assert np.array_equal(labels, before[1])


def test_network_input_is_channels_first_in_minus_one_to_one():
    crop = np.zeros((256, 256, 3), np.uint8)
    crop[..., 0] = 255
    img = samples.to_network([crop])
    assert img.shape == (1, 3, 256, 256)
    assert img.dtype == torch.float32
    assert img[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
