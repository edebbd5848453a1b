"""What is drawn before faces: every kind lies before the face, and only where its alpha says."""

import numpy as np
import pytest

from models.training import occluders

PAINTS = occluders.Paints(
    skin=lambda rng: np.full((256, 256, 3), (200, 100, 50), np.uint8),
    thing=lambda rng: np.full((256, 256, 3), (50, 100, 200), np.uint8),
)
KINDS = {**occluders.TRAINED, **occluders.HELD_OUT}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_covers_some_of_the_face_and_never_all(kind):
    shares = []
    for seed in range(12):
        occluder = occluders.draw_occluder(np.random.default_rng(seed), {kind: KINDS[kind]}, PAINTS)
        assert (occluder.alpha.shape, occluder.alpha.dtype) == ((256, 256), np.float32)
        assert 0.0 <= occluder.alpha.min()
        assert occluder.alpha.max() <= 1.0
        shares.append(float(occluder.alpha[60:220, 50:206].mean()))
    assert 0.02 < np.mean(shares) < 0.8


def test_no_kind_is_both_trained_and_held_out():
    assert not occluders.TRAINED.keys() & occluders.HELD_OUT.keys()
    assert not set(occluders.TRAINED.values()) & set(occluders.HELD_OUT.values())


def test_a_hand_has_the_colour_of_skin_up_to_its_edge():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bare = occluders.Paints(PAINTS.skin, PAINTS.skin)
        occluder = occluders.draw_occluder(rng, {"hand": occluders.TRAINED["hand"]}, bare)
        shown = occluder.paint[occluder.alpha > 0.05].astype(float)
        assert shown.min() > 10  # nothing of the black around it in the soft edge
        assert (shown[:, 0] > shown[:, 2]).all()


def test_beside_an_occluder_only_its_shadow_changes_the_crop():
    crop = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    alpha = np.zeros((256, 256), np.float32)
    alpha[100:150, 100:150] = 1.0
    occluder = occluders.Occluder(np.full_like(crop, 90), alpha)
    shadowed = 0
    for seed in range(10):
        covered = occluders.lay_over(crop, occluder, np.random.default_rng(seed))
        assert (covered[100:150, 100:150] == 90).all()
        beside = alpha == 0
        assert (covered[beside] <= crop[beside]).all()  # a shadow makes nothing brighter
        shadowed += not np.array_equal(covered[beside], crop[beside])
    assert 0 < shadowed < 10


def test_what_moves_is_smeared_along_a_line():
    alpha = np.zeros((256, 256), np.float32)
    alpha[100:150, 100:150] = 1.0
    occluder = occluders.Occluder(np.full((256, 256, 3), 90, np.uint8), alpha)
    made = [occluders.smeared(occluder, np.random.default_rng(seed)) for seed in range(40)]
    moved = [other for other in made if other is not occluder]
    assert 2 <= len(moved) <= 16
    for other in moved:
        assert (other.paint == 90).all()
        assert other.alpha.sum() == pytest.approx(alpha.sum(), rel=1e-3)
        assert other.alpha[125, 125] == pytest.approx(1.0)
        soft = (other.alpha > 0.01) & (other.alpha < 0.99)
        assert 100 < soft.sum() < 4 * 50 * 20


def test_a_hand_has_the_faces_own_colour_more_often_than_not():
    lender = np.full((256, 256, 3), (10, 200, 10), np.uint8)
    rng = np.random.default_rng(0)
    paints = occluders.paints_from(lender, np.ones((256, 256), bool), np.array([200.0, 120.0, 90.0]))
    own = [np.argmax(paints.skin(rng).mean((0, 1))) == 0 for _ in range(60)]
    assert 0.5 < np.mean(own) < 0.8
