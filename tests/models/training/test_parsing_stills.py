"""Photographs without masks: what the table of features says is worn decides over what the parser sees."""

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.parsing import CLASSES
from models.training import parsing_samples as samples
from models.training import parsing_stills as stills
from models.training.splits import Split, load_splits

BACKGROUND, SKIN, HAIR, HAT, OCCLUDER = (
    CLASSES.index(name) for name in ("background", "skin", "hair", "hat", "occluder")
)
CROP = np.zeros((256, 256, 3), np.uint8)


def parser(**logits: float):
    """Sees skin below, and above what `logits` say."""

    def parse(crops):
        answer = np.zeros((len(crops), len(CLASSES), 128, 128), np.float32)
        answer[:, SKIN, 64:] = 8.0
        for name, logit in logits.items():
            answer[:, CLASSES.index(name), :64] = logit
        return answer

    return parse


def test_what_nobody_wears_is_not_labelled():
    label = stills.label_of(CROP, (), parser(hat=8.0, hair=6.0))
    assert (label[:120] == HAIR).all()
    assert (label[136:] == SKIN).all()


def test_what_is_worn_is_believed_sooner():
    label = stills.label_of(CROP, ("hat",), parser(hat=6.5, hair=7.0))
    assert (label[:120] == HAT).all()


def test_a_photograph_whose_hat_is_not_found_is_left_out():
    assert stills.label_of(CROP, ("hat",), parser(hair=9.0)) is None


def test_where_the_parser_is_unsure_nothing_is_known():
    label = stills.label_of(CROP, (), parser(hair=5.0, background=5.0))
    assert (label[:120] == samples.UNKNOWN).all()


def test_no_photograph_is_said_to_be_occluded():
    label = stills.label_of(CROP, (), parser(occluder=9.0, background=7.0))
    assert (label[:120] == BACKGROUND).all()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two photographs of training people and one of a test person, all with hats."""
    rule = load_splits().rules["faces/ffhq256"]
    stems = ["00000", "00001", rule.test_from]
    for folder in ("faces/ffhq256", "faces/ffhq128", "labels"):
        (tmp_path / folder).mkdir(parents=True)
    for stem in stems:
        cv2.imwrite(str(tmp_path / "faces" / "ffhq256" / f"{stem}.jpg"), CROP)
    rows = [{"id": int(stem), "a": {"accessories": [{"type": "headwear", "confidence": 1.0}]}} for stem in stems]
    rows[1]["a"] = []  # the table could not describe this one
    with gzip.open(tmp_path / stills.FEATURES, "wt") as table:
        table.write("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_only_people_of_the_training_part_whom_the_table_describes_are_taken(data):
    assert len(load_splits().faces(data, Split.TEST, ("faces/ffhq256",))) == 1
    crops, labels = stills.labelled_stills(data, parser(hat=9.0))
    assert crops.shape == (1, 256, 256, 3)
    assert (labels[0, :120] == HAT).all()
