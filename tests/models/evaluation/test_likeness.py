"""The score of Improve likeness: with what was found the loop is nearer, on frames that it was not found on."""

import numpy as np
import pytest

from engine.bundle import open_bundle
from engine.runtimes.select import open_networks, select
from models.evaluation import likeness
from models.evaluation.rollout import LoadedBundle
from models.pictures import pictures_from
from tests.engine.tiny_bundle import DIM, ROWS, build
from tests.models.evaluation.test_ceiling import Embedder
from tests.models.waves import random_trunk

FRAMES = 5


class Scorers:
    """Takes the mean brightness for every attribute."""

    def score(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        return {"smile": pictures.mean(axis=(1, 2, 3))}


@pytest.fixture
def loaded(tmp_path):
    bundle = open_bundle(build(tmp_path / "tiny"))
    opened = LoadedBundle("tiny", bundle, open_networks(bundle, select("onnxruntime")))
    yield opened
    opened.networks.close()


def test_with_the_likeness_the_loop_comes_nearer(loaded, tmp_path) -> None:
    lacking = np.random.default_rng(1).standard_normal((ROWS, DIM)).astype(np.float32)
    coarse = np.random.default_rng(2).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    seen = coarse.repeat(32, axis=-1).repeat(32, axis=-2)
    networks = loaded.networks
    nothing = np.zeros((1, *networks.generator.spec.inputs["noise"][1:]), np.float32)
    own = networks.generator(ws=networks.encoder_anchor(crop=seen)["ws"] + lacking, noise=nothing)["image"]
    crops = np.repeat(pictures_from(own), FRAMES, axis=0)
    # What is lacking once the encoder has seen the person as drawn, whatever that changes.
    likeness_of = networks.encoder_anchor(crop=seen)["ws"] + lacking - networks.encoder_anchor(crop=own)["ws"]
    judges = likeness.Judges(random_trunk(), Embedder(), Scorers())
    sheet: list[np.ndarray] = []
    without = likeness.compare(loaded, crops, None, {"smile": 1.0}, judges, sheet)
    found = likeness.compare(loaded, crops, likeness_of[0], {"smile": 1.0}, judges, sheet)
    assert found["mse_x100"] < without["mse_x100"]
    assert found["shown"]["smile"].keys() == {"response", "dlib_l2"}
    assert [len(row) for row in sheet] == [2] * 5  # source, and twice inversion and what is shown, of every third frame
    likeness.write_sheet(tmp_path / "new" / "sheet.jpg", sheet, columns=2)
    assert (tmp_path / "new" / "sheet.jpg").stat().st_size > 0
