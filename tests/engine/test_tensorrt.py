"""The logic of the tensorrt runtime on stand-ins: no card is needed, so nothing here shows that engines compute.

The stand-ins are those of `fake_card.py`: the "engines" are the tiny bundle's ONNX files.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from engine.assets import sha256_of
from engine.bundle import MANIFEST, manifest_document, open_bundle
from engine.errors import BundleError, CardFailed, RuntimeUnavailable
from engine.fingerprint import EngineRecord, Fingerprint, Port, read_fingerprint, write_fingerprint
from engine.recurrence import advance
from engine.runtimes.base import shape_for
from engine.runtimes.select import open_networks, select
from engine.runtimes.tensorrt import TensorRtRuntime
from tests.engine.fake_card import VERSION, CardArray, CudaError, Machine
from tests.engine.tiny_bundle import build


@pytest.fixture
def engines(tmp_path):
    """The tiny bundle as if it had been exported: its ONNX files as engines, with their fingerprint."""
    folder = build(tmp_path / "tiny", refined=True)
    manifest = open_bundle(folder).manifest
    graphs, records = {}, {}
    for name, spec in manifest.graphs.items():
        path = (folder / spec.file).rename(folder / f"{name}.engine")
        graphs[name] = replace(spec, file=path.name)
        ports = [{key: Port("FLOAT", (-1, 1)) for key in side} for side in (spec.inputs, spec.outputs)]
        size, digest = path.stat().st_size, sha256_of(path)
        records[path.name] = EngineRecord("ab", 9, *ports, (1, 2, 3), size, digest)
    write_fingerprint(folder, Fingerprint("tensorrt_rtx", VERSION, ("8.0", "8.9"), "fp16", "cd", records))
    files = {p.name: sha256_of(p) for p in folder.iterdir() if p.name != MANIFEST}
    document = manifest_document(replace(manifest, graphs=graphs, files=files))
    (folder / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    return open_bundle(folder)


def inputs_for(spec, batch, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-1, 1, shape_for(spec, name, batch)).astype(np.float32) for name in spec.inputs}


def opened(machine, engines, graph="recurrent", precision="auto"):
    spec = engines.manifest.graphs[graph]
    return machine.runtime.open(engines.graph_path(graph), spec, "cuda", precision)


def test_the_loop_equals_onnxruntimes(engines, tiny_networks, empty_cache):
    machine = Machine()
    chosen = select("tensorrt", "cuda", runtimes=(machine.runtime,))
    networks = open_networks(engines, chosen, "cuda")
    offset, states = np.full((1, 12, 8), 0.3, np.float32), [None, None]
    for step in range(6):
        crop = inputs_for(networks.parser.spec, 1, seed=step)["crop"]
        (states[0], *found), (states[1], *expected) = (
            advance(each, state, crop, offset) for each, state in zip((networks, tiny_networks), states, strict=True)
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    networks.close()


def test_arrays_on_the_card_are_neither_copied_nor_moved(engines, tiny_networks, empty_cache):
    machine = Machine()
    network = opened(machine, engines)
    arrays = {name: array.view(CardArray) for name, array in inputs_for(network.spec, 2).items()}
    answer = network(**arrays)
    expected = tiny_networks.recurrent(**{name: np.array(array) for name, array in arrays.items()})
    for name, array in answer.items():
        assert isinstance(array, CardArray)
        np.testing.assert_allclose(array, expected[name], atol=1e-6)
    assert (machine.cupy.uploads, machine.cupy.downloads) == (0, 0)


def test_a_cuda_graph_for_each_shape_and_set_of_buffers(engines, empty_cache):
    machine = Machine(pool=2)
    network = opened(machine, engines, "parser")
    arrays = {batch: inputs_for(network.spec, batch)["crop"].view(CardArray) for batch in (1, 2)}
    expected = {batch: np.array(network(crop=array)["logits"]) for batch, array in arrays.items()}
    for _ in range(9):
        for batch, array in arrays.items():
            np.testing.assert_array_equal(network(crop=array)["logits"], expected[batch])
    (stream,) = machine.cupy.streams
    assert machine.library.contexts == 2
    # Two blocks of the pool for each batch size: as many graphs, each from the second call with its buffers on.
    assert len(stream.captures) == 4
    assert sorted(capture.launches for capture in stream.captures) == [4, 4, 4, 4]


def test_a_graph_of_a_whole_step_holds_the_runs_of_its_networks(engines, tiny_networks, empty_cache):
    machine = Machine(pool=1)
    networks = open_networks(engines, machine.runtime, "cuda")
    crop = inputs_for(networks.parser.spec, 1)["crop"].view(CardArray)
    answers = {}

    def work():
        answers["ws"] = networks.encoder(crop=crop)["ws"]
        answers["logits"] = networks.parser(crop=crop)["logits"]

    for _ in range(3):  # a graph of their own, which the larger one cannot hold
        work()
    (stream,) = machine.cupy.streams
    assert len(stream.captures) == 2
    replay = machine.runtime.capture(work)
    assert len(stream.captures) == 3
    for seed in (5, 6):
        crop[...] = inputs_for(networks.parser.spec, 1, seed)["crop"]
        replay()
        np.testing.assert_allclose(answers["ws"], tiny_networks.encoder(crop=np.array(crop))["ws"], atol=1e-6)
        np.testing.assert_allclose(answers["logits"], tiny_networks.parser(crop=np.array(crop))["logits"], atol=1e-5)
    assert stream.captures[-1].launches == 2


def test_a_whole_step_is_not_captured_where_a_network_cannot_be(engines, empty_cache):
    machine = Machine(capturable=False)
    network = opened(machine, engines, "parser")
    crop = inputs_for(network.spec, 1)["crop"].view(CardArray)
    network(crop=crop)
    assert machine.runtime.capture(lambda: network(crop=crop)) is None
    assert not machine.cupy.streams[0].captures


def test_a_run_that_fails_while_captured_ends_the_capture(engines, empty_cache):
    machine = Machine()
    network = opened(machine, engines, "parser")
    crop = inputs_for(network.spec, 1)["crop"].view(CardArray)
    network(crop=crop)
    machine.library.fails = True
    with pytest.raises(CardFailed, match="failed on the card"):
        machine.runtime.capture(lambda: network(crop=crop))
    machine.library.fails = False

    def capture():
        raise CudaError("cudaErrorStreamCaptureUnsupported\nmore")

    with pytest.raises(CardFailed, match=r"the graphics card failed: cudaErrorStreamCaptureUnsupported$"):
        machine.runtime.capture(capture)
    assert np.isfinite(network(crop=crop)["logits"]).all()


def test_graphs_do_not_pile_up(engines, empty_cache):
    machine = Machine(pool=1000)
    network = opened(machine, engines, "parser")
    crop = inputs_for(network.spec, 1)["crop"].view(CardArray)
    for _ in range(80):
        network(crop=crop)
    assert len(network._graphs) <= 64


def test_what_cannot_be_captured_is_enqueued(engines, tiny_networks, empty_cache):
    machine = Machine(capturable=False, pool=1)
    network = opened(machine, engines, "parser")
    crop = inputs_for(network.spec, 1)["crop"]
    for _ in range(4):
        np.testing.assert_allclose(network(crop=crop)["logits"], tiny_networks.parser(crop=crop)["logits"], atol=1e-5)
    assert not machine.cupy.streams[0].captures


def test_the_cards_own_kernels_are_kept(engines, empty_cache):
    first = Machine()
    network = opened(first, engines, "parser")
    network(crop=inputs_for(network.spec, 1)["crop"])
    network.close()
    (kept,) = (empty_cache / "tensorrt").iterdir()
    assert kept.read_bytes() == b"kernels"
    again, other = Machine(), Machine(capability=(8, 6))
    opened(again, engines, "parser")
    opened(other, engines, "parser")
    assert (first.library.jit, again.library.jit, other.library.jit) == ([], [b"kernels"], [])


class TestRefusals:
    def test_no_card_no_cupy_no_library_are_all_told(self):
        def load(module):
            raise ModuleNotFoundError(module)

        with pytest.raises(RuntimeUnavailable) as caught:
            select("tensorrt", "cpu", "auto", runtimes=(TensorRtRuntime(load),))
        for part in ("cuda only, not on cpu", "cupy is not installed", "tensorrt_rtx nor tensorrt"):
            assert part in str(caught.value)

    def test_a_driver_that_is_too_old(self):
        machine = Machine()

        def fail():
            raise CudaError("cudaErrorInsufficientDriver")

        machine.cupy.cuda.runtime.getDeviceCount = fail
        assert any("InsufficientDriver" in reason for reason in machine.runtime.obstacles("cuda", "auto"))
        machine.cupy.cuda.runtime.getDeviceCount = lambda: 0
        assert machine.runtime.obstacles("cuda", "auto") == ("there is no NVIDIA card in this machine",)

    def test_a_bundle_without_engines(self, tiny):
        with pytest.raises(BundleError, match=r"holds no engines .* rigid-live export BUNDLE --to tensorrt"):
            opened(Machine(), tiny)

    def test_engines_are_not_for_other_runtimes(self, engines):
        with pytest.raises(BundleError, match=r"holds TensorRT engines, which openvino cannot run; use --runtime"):
            open_networks(engines, select("openvino"))

    def test_an_older_card(self, engines):
        with pytest.raises(RuntimeUnavailable, match=r"compute capability 8.0, 8.9, but this card has 7.5"):
            opened(Machine(capability=(7, 5)), engines)

    def test_a_card_that_the_library_refuses(self, engines):
        with pytest.raises(RuntimeUnavailable, match=r"does not run on Test Card: UNSUPPORTED_CC"):
            opened(Machine(capability=(9, 0), validity="invalid"), engines)

    def test_another_version(self, engines):
        machine = Machine()
        machine.library.__version__ = "2.0"
        with pytest.raises(RuntimeUnavailable, match=r"built by tensorrt_rtx 1.7.1, but 2.0 is installed; build"):
            opened(machine, engines)

    def test_another_library(self, engines):
        write_fingerprint(engines.folder, replace(read_fingerprint(engines.folder), library="tensorrt"))
        with pytest.raises(RuntimeUnavailable, match="needs the package tensorrt, which"):
            opened(Machine(), engines)

    def test_another_precision(self, engines):
        with pytest.raises(RuntimeUnavailable, match="computes in fp16, not in fp32"):
            opened(Machine(), engines, precision="fp32")

    def test_a_truncated_engine(self, engines):
        path = engines.graph_path("recurrent")
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleError, match=r"bytes, but \d+ were built"):
            opened(Machine(), engines)

    def test_a_changed_engine(self, engines):
        path = engines.graph_path("recurrent")
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        with pytest.raises(BundleError, match="its sha256 differs"):
            opened(Machine(), engines)

    def test_an_engine_of_another_graph(self, engines):
        path = engines.graph_path("parser")
        fingerprint = read_fingerprint(engines.folder)
        blob = engines.graph_path("generator").read_bytes()
        path.write_bytes(blob)
        other = replace(fingerprint.engines[path.name], size_bytes=len(blob), sha256=hashlib.sha256(blob).hexdigest())
        write_fingerprint(engines.folder, replace(fingerprint, engines={**fingerprint.engines, path.name: other}))
        with pytest.raises(BundleError, match="the manifest promises"):
            opened(Machine(), engines, "parser")

    def test_a_batch_that_was_not_built_for(self, engines, empty_cache):
        network = opened(Machine(), engines, "parser")
        with pytest.raises(RuntimeUnavailable, match="takes 3 images at once, not 4"):
            network(**inputs_for(network.spec, 4))

    def test_out_of_memory_and_a_failing_card_are_told(self, engines, empty_cache):
        machine = Machine()
        network = opened(machine, engines, "parser")
        machine.cupy.full = True
        with pytest.raises(CardFailed, match="out of memory"):
            network(**inputs_for(network.spec, 1))
        machine.cupy.full, machine.library.fails = False, True
        with pytest.raises(CardFailed, match="failed on the card"):
            network(**inputs_for(network.spec, 1))
        machine.library.fails = False
        assert np.isfinite(network(**inputs_for(network.spec, 1))["logits"]).all()

    def test_an_engine_that_the_library_cannot_load(self, engines):
        machine = Machine()
        machine.library.broken = True
        with pytest.raises(
            RuntimeUnavailable, match=r"cannot be loaded: no kernel image for this device; build"
        ) as told:
            opened(machine, engines)
        assert "\n" not in str(told.value)

    def test_an_engine_that_gets_no_memory_and_then_does(self, engines, empty_cache):
        machine = Machine()
        network = opened(machine, engines, "parser")
        machine.library.full = True
        with pytest.raises(CardFailed, match=r"parser.engine gets no memory on the card; close other programs"):
            network(**inputs_for(network.spec, 1))
        machine.library.full = False
        assert np.isfinite(network(**inputs_for(network.spec, 1))["logits"]).all()
