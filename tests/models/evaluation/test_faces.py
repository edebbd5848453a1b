"""Scores on stills, with the tiny bundle and judges that only look at brightness."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.bundle import open_bundle
from engine.errors import SourceError
from engine.recurrence import VARIANTS
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks
from models.evaluation.faces import held_out_faces, read_faces, score_faces
from models.evaluation.judges import Judges
from models.evaluation.rollout import LoadedBundle, settle_stills
from models.perceptual import StLpips
from tests.engine import tiny_bundle
from tests.engine.fakes import picture


class Brightness:
    """Stands for the embedder and for the scorers: an "age" of the mean level, an embedding of the mean colour."""

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return crops.mean(axis=(1, 2)).astype(np.float32) / 255

    def score(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        return {"age": crops.mean(axis=(1, 2, 3)), "gender": crops.mean(axis=(1, 2, 3)) - 128}

    def landmarks(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All points in the middle, further right in a brighter crop, but for an eye 50 px from there."""
        points = np.full((len(crops), 468, 3), 128.0, np.float32)
        points[:, 33, 0] = 78.0
        return points + crops.mean(axis=(1, 2, 3))[:, None, None], np.ones(len(crops), np.float32)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedBundle]:
    bundle = open_bundle(tiny_bundle.build(Path(tmp_path_factory.mktemp("faces")) / "tiny"))
    networks = open_networks(bundle, OnnxRuntime(threads=1), "cpu", "fp32")
    yield LoadedBundle("tiny", bundle, networks)
    networks.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine images, the nth of which is everywhere at level 10 n, and a text."""
    for n in range(9):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((300, 300, 3), (10 * n, 0, 20 * n), np.uint8))
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_responses_are_measured_with_and_without_the_map(loaded: LoadedBundle) -> None:
    torch.manual_seed(0)
    crops = np.stack([picture(n, 256, 256) for n in range(3)])
    judge = Brightness()
    scores = score_faces(loaded, crops, Judges(StLpips(), None, judge, judge, None), ["age"], steps=3)
    assert scores.stills == 3
    for name, variant in (("with_map", "full"), ("without_map", "no_nm")):
        neutral = settle_stills(loaded, crops, {}, VARIANTS[variant], steps=3)
        edited = settle_stills(loaded, crops, {"age": 1.0}, VARIANTS[variant], steps=3)
        moved = edited.edits.mean(axis=(1, 2, 3)) - neutral.inversions.mean(axis=(1, 2, 3))
        assert scores.responses["age"][name] == pytest.approx(moved.mean())
        error = np.square((neutral.inversions.astype(float) - crops) / 127.5).mean() * 100
        assert scores.inversion[name].mse_x100 == pytest.approx(error, rel=1e-4)
        darker = np.abs(neutral.inversions.mean(axis=(1, 2, 3)) - crops.mean(axis=(1, 2, 3)))
        assert scores.inversion[name].nme == pytest.approx(100.0 * 2**0.5 / 50.0 * darker.mean(), rel=1e-3)
        names = ["mse_x100", "st_lpips", "dlib_l2", "nme", "same_person"]
        assert list(scores.inversion[name].named("st_lpips")) == names
    for group, (count, inversion) in scores.groups.items():
        assert 0 < count <= 3, group
        assert (inversion == scores.inversion["with_map"]) == (count == 3)
    assert sum(count for group, (count, _) in scores.groups.items() if group.startswith("age")) == 3
    moved_by = scores.responses["age"]
    assert moved_by["with_map"] != moved_by["without_map"]
    assert moved_by["kept"] == pytest.approx(moved_by["with_map"] / moved_by["without_map"])


def test_a_limit_takes_stills_from_the_whole_folder(folder: Path) -> None:
    assert [path.stem for path in held_out_faces(folder, 3)] == ["0", "4", "8"]
    assert len(held_out_faces(folder, 100)) == 9


def test_only_test_people_are_taken_from_the_data_folder(clips: Path) -> None:
    found = held_out_faces(clips.parent, 10_000)
    assert found
    assert all(path.stem >= "00800" for path in found)


def test_stills_come_as_rgb_at_256_px(folder: Path) -> None:
    crops = read_faces(held_out_faces(folder, 9))
    assert crops.shape == (9, 256, 256, 3)
    assert crops[3, 100, 100].tolist() == [60, 0, 30]


def test_folders_without_images_and_broken_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image"):
        held_out_faces(tmp_path, 5)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(SourceError, match=r"broken\.png"):
        read_faces(held_out_faces(tmp_path, 5))
