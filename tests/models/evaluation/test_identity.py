"""dlib's embedding on aligned stills: one person stays near, two people do not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.faces import held_out_faces, read_faces
from models.evaluation.identity import SAME_PERSON, FaceEmbedder, distances, unit


def test_unit_and_distances_by_hand() -> None:
    a, b = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32), np.array([[0.0, 0.0], [0.0, 2.5]], np.float32)
    np.testing.assert_allclose(unit(a), [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(distances(a, b), [5.0, 0.5])


def test_people_are_told_apart(clips: Path, pinned: Callable[[str], Path]) -> None:
    for name in ("dlib_face", "dlib_landmarks5"):
        pinned(name)
    crops = read_faces(held_out_faces(clips.parent, 4))
    embedder = FaceEmbedder.load()
    seen = embedder.embed(crops)
    assert seen.shape == (4, 128)
    darker = embedder.embed((crops * 0.8).astype(np.uint8))
    moved = embedder.embed(np.roll(crops, 4, axis=2))
    assert distances(seen, darker).max() < SAME_PERSON / 2
    assert distances(seen, moved).max() < SAME_PERSON / 2
    assert np.median([distances(seen, np.roll(seen, n, axis=0)) for n in (1, 2, 3)]) > SAME_PERSON


@pytest.mark.parametrize("shape", [(1, 128, 128, 3), (1, 3, 256, 256)])
def test_other_shapes_are_our_bugs(shape: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        FaceEmbedder(None, None).embed(np.zeros(shape, np.uint8))
