"""Drawn faces with open mouths: what came to look like a thing where a face was is the face."""

import numpy as np
import pytest

from models.parsing import CLASSES
from models.training import open_mouths
from models.training import parsing_samples as samples

SKIN, HAIR, CLOTH, OCCLUDER = (CLASSES.index(name) for name in ("skin", "hair", "cloth", "occluder"))


def seen(regions):
    """Probabilities [K, 64, 64] from (rows, class, probability) in turn; skin elsewhere."""
    chances = np.zeros((len(CLASSES), 64, 64), np.float32)
    chances[SKIN] = 1.0
    for rows, kind, chance in regions:
        chances[:, rows] = (1.0 - chance) / (len(CLASSES) - 1)
        chances[kind, rows] = chance
    return chances


def test_a_thing_where_skin_was_is_skin():
    label = open_mouths.label_of_open(seen([]), seen([(slice(40, 50), OCCLUDER, 0.9)]))
    assert (label == SKIN).all()


def test_a_thing_where_something_else_was_is_unknown():
    hair = (slice(0, 10), HAIR, 0.95)
    label = open_mouths.label_of_open(seen([hair]), seen([(slice(0, 10), OCCLUDER, 0.9)]))
    assert (label[:10] == samples.UNKNOWN).all()
    assert (label[10:] == SKIN).all()


def test_around_what_was_a_thing_before_nothing_is_known():
    hand = (slice(30, 40), OCCLUDER, 0.4)
    label = open_mouths.label_of_open(seen([hand]), seen([hand]))
    reach = open_mouths.BEYOND_PX // 2
    assert (label[30 - reach : 40 + reach] == samples.UNKNOWN).all()
    assert (label[: 30 - reach] == SKIN).all()


def test_what_is_sure_after_counts():
    label = open_mouths.label_of_open(seen([]), seen([(slice(50, 60), CLOTH, 0.9), (slice(60, 64), CLOTH, 0.5)]))
    assert (label[50:60] == CLOTH).all()
    assert (label[60:] == samples.UNKNOWN).all()


def test_faces_and_labels_are_whole_and_repeat(monkeypatch: pytest.MonkeyPatch):
    def pairs(seed):
        rng = np.random.default_rng(seed)
        return lambda: tuple(rng.integers(0, 255, (2, 256, 256, 3), np.uint8))

    def parse(crops):
        answer = np.zeros((len(crops), len(CLASSES), 128, 128), np.float32)
        answer[:, SKIN] = 9.0
        return answer

    monkeypatch.setattr(open_mouths, "_pairs", pairs)
    crops, labels = open_mouths.open_mouths(3, parse, seed=2)
    assert crops.shape == (3, 256, 256, 3)
    assert labels.shape == (3, 256, 256)
    assert (labels == SKIN).all()
    np.testing.assert_array_equal(crops, open_mouths.open_mouths(3, parse, seed=2)[0])
