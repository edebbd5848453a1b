"""The baseline computes what the session computes, in the paper's order: everything, and one picture at a time."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.bench.baseline import open_baseline, paper_structure
from engine.bundle import open_bundle
from engine.errors import RuntimeUnavailable
from engine.recurrence import VARIANTS, advance
from engine.runtimes.base import Networks
from engine.runtimes.select import open_networks, select
from tests.engine import tiny_bundle

PARTS = ("generator", "encoder_anchor", "encoder", "recurrent", "parser")


class Counting:
    """A network that counts the pictures of each call."""

    def __init__(self, network: object, name: str, calls: Counter) -> None:
        self.spec = network.spec
        self.close = network.close
        self._network, self._name, self._calls = network, name, calls

    def __call__(self, **arrays: np.ndarray) -> dict:
        self._calls[self._name, len(next(iter(arrays.values())))] += 1
        return self._network(**arrays)


@pytest.fixture
def counted(tmp_path: Path) -> tuple[Networks, Counter]:
    calls: Counter = Counter()
    networks = open_networks(open_bundle(tiny_bundle.build(tmp_path / "tiny")), select("onnxruntime"))
    parts = {name: Counting(getattr(networks, name), name, calls) for name in PARTS}
    return Networks(**parts, former_rows=networks.former_rows), calls


def test_it_runs_on_the_device_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor it would make every card look a hundred times as fast as it is; so no card is an error."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeUnavailable, match=r"--runtime eager --device cuda .* sees no CUDA device"):
        open_baseline(1, "cuda")


def test_every_network_sees_one_picture_at_a_time_and_the_encoder_all_its_heads(
    counted: tuple[Networks, Counter],
) -> None:
    networks, calls = counted
    rng = np.random.default_rng(0)
    crops = rng.uniform(-1, 1, (2, 1, 3, tiny_bundle.SIZE, tiny_bundle.SIZE)).astype(np.float32)
    offset = rng.standard_normal((1, tiny_bundle.ROWS, tiny_bundle.DIM)).astype(np.float32)
    ours, theirs = None, None
    all_heads = replace(networks, encoder=networks.encoder_anchor)
    for crop in crops:
        ours, *our_images = advance(all_heads, ours, crop, offset, VARIANTS["paper"])
    calls.clear()
    paper = paper_structure(networks)
    for crop in crops:
        theirs, *their_images = advance(paper, theirs, crop, offset, VARIANTS["paper"])
    for ours_image, their_image in zip(our_images, their_images, strict=True):
        np.testing.assert_allclose(their_image, ours_image, atol=1e-5)
    assert calls == {("encoder_anchor", 1): 2, ("recurrent", 1): 1, ("generator", 1): 4}
    paper.parser(crop=np.concatenate([crops[0], crops[1]]))
    assert calls["parser", 1] == 2
