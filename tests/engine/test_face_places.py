"""Parts of a face lie where FFHQ's alignment puts them."""

import numpy as np

from engine.face_places import EYES, MOUTH, at_features, within_face


def test_eyes_are_where_ffhq_has_them():
    eyes = at_features(256, EYES, like=np.ones(1))
    assert eyes.dtype == np.float32
    assert eyes[120, 98] == eyes[120, 158] == 1.0
    assert eyes[112, 98] > 0.5  # a lid
    assert eyes[:, 127].max() < eyes[120, 115]  # less between them
    assert not eyes[:101].any()  # brows
    assert not eyes[140:].any()
    np.testing.assert_allclose(eyes, eyes[:, ::-1], atol=1e-5)


def test_a_mouth_is_where_ffhq_has_it():
    mouth = at_features(256, MOUTH, like=np.ones(1))
    assert mouth[188, 128] == 1.0
    assert min(mouth[188, 112], mouth[188, 144]) > 0.5
    assert not mouth[:167].any()
    assert not mouth[210:].any()


def test_a_face_ends_where_ffhq_has_its_outline():
    within = within_face(32, like=np.ones(1))
    assert within.dtype == np.float32
    assert within[19, 16] == within[11, 16] == within[26, 16] == 1.0  # nose, brow, below the lips
    assert within[3].max() == within[:, 4].max() == within[:, 27].max() == 0.0  # hair, ears
    np.testing.assert_array_equal(within, within[:, ::-1])
    assert ((within > 0.0) & (within < 1.0)).any()
