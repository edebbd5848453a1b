"""Training of the small classifiers: labels from annotations, and the ridge on features with a known answer."""

import numpy as np
import pytest

from models.attribute_classifiers import BLOCKS, FEATURES, LinearHeads
from models.training.attributes import (
    LabelledFaces,
    area_under_roc,
    ffhq_labels,
    fit,
    held_out_scores,
    mask_labels,
    omi_labels,
)
from models.training.splits import Split


def annotation(glasses: str = "NoGlasses", invisible: bool = False) -> dict[str, object]:
    colours = {"blond": 0.9, "black": 0.1, "brown": 0.4, "gray": 0.3}
    return {
        "glasses": glasses,
        "smile": 0.7,
        "facialHair": {"moustache": 0.3, "beard": 0.6, "sideburns": 0.0},
        "makeup": {"eyeMakeup": True, "lipMakeup": False},
        "hair": {
            "bald": 0.2,
            "invisible": invisible,
            "hairColor": [{"color": name, "confidence": value} for name, value in colours.items()],
        },
    }


def test_ffhq_annotation_becomes_labels() -> None:
    labels = ffhq_labels(annotation("ReadingGlasses"))
    assert labels == pytest.approx(
        {
            "eyeglasses": 1.0,
            "beard": 0.3,
            "makeup": 0.5,
            "happy": 0.7,
            "bald": 0.2,
            "hair_colour": 0.8,
            "grey_hair": 0.3,
        }
    )
    assert ffhq_labels(annotation())["eyeglasses"] == 0.0


def test_hidden_hair_has_no_labels() -> None:
    assert not {"bald", "hair_colour", "grey_hair"} & set(ffhq_labels(annotation(invisible=True)))


def test_a_mask_tells_of_glasses_and_of_the_hair_it_covers() -> None:
    image = np.full((40, 40, 3), 51, dtype=np.uint8)
    mask = np.zeros((40, 40), dtype=np.uint8)
    assert mask_labels(image, mask) == {"eyeglasses": 0.0}
    mask[:10], mask[20:22] = 13, 3
    assert mask_labels(image, mask) == pytest.approx({"eyeglasses": 1.0, "hair_colour": 0.2})


def test_ratings_become_shares_and_gaps_stay_gaps() -> None:
    assert omi_labels({"weight": "38.0", "long-haired": "", "skin-color": "15.5"}) == pytest.approx(
        {"chubby": 0.38, "skin_colour": 0.155}
    )


def labelled_faces(count: int = 240) -> LabelledFaces:
    """Random features; `known` is a linear function of a few trunk features and missing on every fourth face."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, FEATURES)).astype(np.float32)
    features[:, : BLOCKS[0] : 64] += 2.0 * rng.normal(size=(count, 1)).astype(np.float32)
    labels = features[:, : BLOCKS[0] : 64].mean(axis=1).astype(np.float64)
    labels = (labels - labels.mean()) / labels.std()
    labels[::4] = np.nan
    parts = np.array([Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.VALIDATION, Split.TEST])[np.arange(count) % 5]
    return LabelledFaces(features, labels[:, None], ("known",), parts.astype(str))


def test_the_ridge_finds_a_linear_attribute_and_its_file_scores_the_same(tmp_path) -> None:
    faces = labelled_faces()
    heads = fit(faces)
    table = held_out_scores(heads, faces, Split.TEST)
    assert table["known"]["faces"] == 36
    assert table["known"]["correlation"] > 0.9
    heads.save(tmp_path / "weights" / "heads.npz")
    stored = LinearHeads.load(tmp_path / "weights" / "heads.npz")
    assert stored.names == ("known",)
    assert stored.score(faces.features)["known"] == pytest.approx(heads.score(faces.features)["known"], abs=0.02)
    assert stored.fingerprint == LinearHeads.load(tmp_path / "weights" / "heads.npz").fingerprint


def test_area_under_roc_counts_ordered_pairs() -> None:
    positive = np.array([True, True, False, False])
    assert area_under_roc(np.array([3.0, 2.0, 1.0, 0.0]), positive) == 1.0
    assert area_under_roc(np.array([0.0, 1.0, 2.0, 3.0]), positive) == 0.0
    assert area_under_roc(np.array([1.0, 1.0, 1.0, 1.0]), positive) == 0.5
    assert area_under_roc(np.array([3.0, 1.0, 2.0, 0.0]), positive) == 0.75
