"""The paper's networks as a bundle: a narrow one through every step, and the whole one at full size."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from app.cli import main
from engine.bundle import Bundle, open_bundle
from engine.recurrence import advance
from engine.runtimes.select import open_networks, select
from export.paper_bundle import ATTRIBUTES, SEED, build
from export.to_onnx import export_graph, fold_constants
from models.bisenet import BiSeNetConfig
from models.config import Preset
from models.e4e import E4eConfig
from models.recurrent import ConvSpec, RecurrentConfig
from models.stylegan2 import NoiseStrength, StyleGan2, StyleGan2Config
from models.visibility import VisibleNetConfig

NARROW = Preset(
    name="narrow-256",
    generator=StyleGan2Config(latent_dim=16, widest=16, budget=1024),
    encoder=E4eConfig(latent_dim=16, stem=4, widths=(4, 8, 8, 16), units=(1, 1, 1, 1)),
    recurrent=RecurrentConfig(
        latent_dim=16,
        map_channels=16,
        pool=1,
        unshuffle=1,
        convs=(ConvSpec(4, kernel=1), *(ConvSpec(channels, stride=2) for channels in (8, 8, 16, 16, 16, 16))),
        blur=True,
        hidden=8,
        rank=None,
        activated=True,
        map_width=None,
    ),
    parser=BiSeNetConfig(size=128, widths=(8, 8, 16, 16)),
    visible=VisibleNetConfig(),
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "narrow-256"
    before = torch.random.get_rng_state()
    build(folder, "narrow, 1", NARROW)
    assert torch.equal(torch.random.get_rng_state(), before)
    return open_bundle(folder)


def moving_crop(t: int) -> NDArray[np.float32]:
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    return np.stack([np.sin(3 * x + y + t), np.cos(4 * y), x * y])[None].astype(np.float32)


def roll(bundle: Bundle, runtime: str, steps: int = 3) -> list[NDArray[np.float32]]:
    """Inversions and edits of a few steps."""
    manifest, made, state = bundle.manifest, [], None
    offset = np.ones((1, manifest.latent_rows, 1), np.float32) * bundle.directions["smile"].direction
    networks = open_networks(bundle, select(runtime, "cpu", "fp32"), "cpu", "fp32")
    for t in range(steps):
        state, inversion, edit = advance(networks, state, moving_crop(t), offset.astype(np.float32))
        made += [inversion, edit]
    networks.close()
    return made


def test_manifest_says_that_the_weights_are_random(narrow: Bundle) -> None:
    manifest = narrow.manifest
    assert all("random weights" in line for line in manifest.lineage.values())
    assert {"generator", "encoder", "recurrent", "parser"} <= manifest.lineage.keys()
    assert "random weights" in manifest.licence
    assert (manifest.name, manifest.recipe) == ("narrow-256", "narrow, 1")


def test_directions_are_seeded_unit_vectors(narrow: Bundle) -> None:
    assert set(narrow.directions) == set(ATTRIBUTES) == {"age", "gender", "smile"}
    first = np.random.default_rng(SEED).standard_normal(16)
    for direction in narrow.directions.values():
        assert np.linalg.norm(direction.direction, axis=1) == pytest.approx(np.ones(14), abs=1e-5)
    assert narrow.directions["age"].direction[13] == pytest.approx(first / np.linalg.norm(first), abs=1e-6)


def test_both_runtimes_give_the_same_finite_images(narrow: Bundle) -> None:
    found, others = roll(narrow, "onnxruntime"), roll(narrow, "openvino")
    for image, other in zip(found, others, strict=True):
        assert np.isfinite(image).all()
        assert 0.05 < image.std() < 20
        np.testing.assert_allclose(image, other, atol=1e-3)
    assert not np.allclose(found[-2], found[-1])
    assert not np.allclose(found[0], found[2])


def test_the_encoder_gives_the_anchors_former_rows(narrow: Bundle) -> None:
    networks = open_networks(narrow, select("onnxruntime"))
    former, anchor = networks.encoder(crop=moving_crop(0))["ws"], networks.encoder_anchor(crop=moving_crop(0))["ws"]
    networks.close()
    assert (former.shape, anchor.shape) == ((1, 10, 16), (1, 14, 16))
    np.testing.assert_allclose(former, anchor[:, :10], atol=1e-6)


def test_every_graphs_convolutions_have_constant_weights(narrow: Bundle) -> None:
    """Stored as they are, or as float16 with a cast that runtimes fold."""
    for name in narrow.manifest.graphs:
        graph = onnx.load(narrow.graph_path(name)).graph
        constants = {tensor.name for tensor in graph.initializer}
        constants |= {node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] in constants}
        convs = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
        assert convs
        assert all(node.input[1] in constants for node in convs), name


def test_exported_generator_equals_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = StyleGan2(StyleGan2Config(resolution=32, latent_dim=16, widest=16, budget=512)).eval()
    for part in network.modules():
        if isinstance(part, NoiseStrength):
            torch.nn.init.constant_(part.weight, 0.3)
    path = tmp_path / "generator.onnx"
    export_graph(network, path, {"ws": torch.zeros(2, 8, 16), "noise": torch.zeros(2, 16, 32, 32)}, ["image"])
    fold_constants(path)
    graph = onnx.load(path).graph
    assert not any(tensor.name.startswith("style.") for tensor in graph.initializer)
    assert {"Transpose", "ReduceSum"}.isdisjoint(node.op_type for node in graph.node)
    ws, noise = torch.randn(3, 8, 16), torch.randn(3, 16, 32, 32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["image"], {"ws": ws.numpy(), "noise": noise.numpy()})
    with torch.no_grad():
        expected = network(ws, noise).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, without any pinned file; emptied afterwards, for its size."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("RIGID_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_program_runs_at_the_papers_size(own_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Built on first use, a gigabyte; found again on the second."""
    words = ["run", "--bundle", "paper-256", "--sink", "null", "--set", "smile=0.5", "--frames"]
    assert main([*words, "3"]) == 0
    assert "3 frames in, 3 out" in capfd.readouterr().out
    folder = own_cache / "bundles" / "paper-256"
    opened = open_bundle(folder)
    assert (opened.manifest.latent_rows, opened.manifest.former_rows) == (14, 10)
    assert opened.manifest.h == opened.manifest.c == (512, 4, 4)
    assert max(path.stat().st_size for path in folder.iterdir()) < 2**31
    built = (folder / "manifest.json").stat().st_mtime_ns
    assert main([*words, "1"]) == 0
    assert (folder / "manifest.json").stat().st_mtime_ns == built
    assert [path.name for path in folder.parent.iterdir()] == ["paper-256"]
