"""The runtimes agree, say why when they cannot, and refuse what is not the promised graph."""

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest

from engine.bundle import open_bundle, read_manifest
from engine.errors import BundleError, RuntimeUnavailable
from engine.runtimes import openvino
from engine.runtimes.base import shape_for
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.openvino import OpenVinoRuntime
from engine.runtimes.select import built_in, open_networks, select
from export.bundle import write_manifest
from tests.engine.tiny_bundle import CHANNELS, build

GRAPHS = ("generator", "encoder_anchor", "encoder", "recurrent", "parser", "refiner")
RUNTIMES = [OpenVinoRuntime(threads=1), OnnxRuntime(threads=1)]


def inputs_for(spec, batch, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-1, 1, shape_for(spec, name, batch)).astype(np.float32) for name in spec.inputs}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_openvino_and_onnxruntime_agree(tiny, batch):
    first, second = (open_networks(tiny, runtime, precision="fp32") for runtime in RUNTIMES)
    for graph in GRAPHS:
        arrays = inputs_for(tiny.manifest.graphs[graph], batch)
        one, other = getattr(first, graph)(**arrays), getattr(second, graph)(**arrays)
        assert one.keys() == other.keys() == tiny.manifest.graphs[graph].outputs.keys()
        for name in one:
            assert one[name].dtype == np.float32
            np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    first.close()
    second.close()


def test_many_channels_lie_last_in_memory_and_nobody_sees_it(tiny, monkeypatch):
    monkeypatch.setattr("engine.runtimes.openvino.MANY_CHANNELS", CHANNELS)
    first, second = (open_networks(tiny, runtime, precision="fp32") for runtime in RUNTIMES)
    arrays = inputs_for(tiny.manifest.graphs["recurrent"], 2)
    one, other = first.recurrent(**arrays), second.recurrent(**arrays)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    assert one["noise"].transpose(0, 2, 3, 1).flags.c_contiguous
    codes = inputs_for(tiny.manifest.graphs["generator"], 2)["ws"]
    for noise in (one["noise"], np.ascontiguousarray(one["noise"])):
        images = [networks.generator(ws=codes, noise=noise)["image"] for networks in (first, second)]
        np.testing.assert_allclose(*images, atol=1e-5)


def test_openvino_compiles_for_one_image_alone_when_somebody_first_waits_for_one(tiny, monkeypatch):
    streams = []

    class Counted(openvino._Compiled):
        def __init__(self, graph, options, count):
            streams.append(count)
            super().__init__(graph, options, count)

    monkeypatch.setattr(openvino, "_Compiled", Counted)
    network = RUNTIMES[0].open(tiny.graph_path("encoder"), tiny.manifest.graphs["encoder"], "cpu", "fp32")
    crop = inputs_for(network.spec, 1)["crop"]
    beside = network.begin(crop=crop)()["ws"]
    np.testing.assert_allclose(network(crop=np.concatenate([crop, crop]))["ws"], beside.repeat(2, axis=0), atol=1e-6)
    assert streams == [2]
    for _ in range(2):
        np.testing.assert_allclose(network(crop=crop)["ws"], beside, atol=1e-6)
    assert streams == [2, 1]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_an_answer_belongs_to_the_caller(tiny, runtime):
    network = runtime.open(tiny.graph_path("recurrent"), tiny.manifest.graphs["recurrent"], "cpu", "fp32")
    arrays = inputs_for(network.spec, 1)
    before = {name: array.copy() for name, array in arrays.items()}
    answer = network(**arrays)
    kept = {name: array.copy() for name, array in answer.items()}
    network(**inputs_for(network.spec, 1, seed=1))
    for name, array in answer.items():
        np.testing.assert_array_equal(array, kept[name])
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_views_go_in_as_well_as_arrays(tiny, runtime):
    network = runtime.open(tiny.graph_path("parser"), tiny.manifest.graphs["parser"], "cpu", "fp32")
    crop = inputs_for(network.spec, 1)["crop"]
    np.testing.assert_array_equal(
        network(crop=crop[:, :, :, ::-1])["logits"], network(crop=np.ascontiguousarray(crop[..., ::-1]))["logits"]
    )


def test_one_file_for_both_encoders_is_loaded_once(tmp_path):
    bundle = open_bundle(build(tmp_path / "b", one_encoder=True))
    networks = open_networks(bundle, RUNTIMES[1])
    assert networks.encoder is networks.encoder_anchor
    networks.close()


def test_bf16_stays_close_where_the_processor_has_it(tiny):
    runtime = OpenVinoRuntime(threads=1)
    if runtime.obstacles("cpu", "bf16"):
        pytest.skip("this processor has no bf16")
    exact, rough = (open_networks(tiny, runtime, precision=precision) for precision in ("fp32", "bf16"))
    arrays = inputs_for(tiny.manifest.graphs["generator"], 2)
    difference = np.abs(exact.generator(**arrays)["image"] - rough.generator(**arrays)["image"])
    assert 0.0 < difference.mean() < 1.5e-2


@pytest.fixture
def with_int8(tmp_path):
    """The tiny bundle, whose generator in int8 is another generator, so that one sees which one runs."""
    folder, other = build(tmp_path / "b"), build(tmp_path / "other", seed=1)
    shutil.copyfile(other / "generator.onnx", folder / "generator.int8.onnx")
    manifest = read_manifest(folder)
    graphs = {**manifest.graphs, "generator": replace(manifest.graphs["generator"], int8="generator.int8.onnx")}
    write_manifest(folder, replace(manifest, graphs=graphs), ["generator.int8.onnx"])
    return open_bundle(folder), open_bundle(other)


def drawn(bundle, runtime, precision):
    networks = open_networks(bundle, runtime, precision=precision)
    image = networks.generator(**inputs_for(bundle.manifest.graphs["generator"], 2))["image"]
    networks.close()
    return image


def test_int8_is_a_file_of_its_own(with_int8):
    runtime, (bundle, other) = OpenVinoRuntime(threads=1), with_int8
    plain, quick = drawn(bundle, runtime, "fp32"), drawn(bundle, runtime, "int8")
    np.testing.assert_allclose(quick, drawn(other, runtime, runtime._float), atol=1e-6)
    assert np.abs(plain - quick).mean() > 0.1


@pytest.mark.parametrize("amx", [False, True])
def test_auto_is_int8_where_that_is_faster(with_int8, monkeypatch, amx):
    monkeypatch.setattr("engine.runtimes.openvino._has_amx", lambda: amx)
    monkeypatch.setattr("engine.runtimes.openvino._is_x86", lambda: True)
    runtime, (bundle, _) = OpenVinoRuntime(threads=1), with_int8
    if runtime.obstacles("cpu", "int8"):
        pytest.skip("this processor has no int8")
    precision = runtime._float if amx else "int8"
    np.testing.assert_array_equal(drawn(bundle, runtime, "auto"), drawn(bundle, runtime, precision))
    assert ("in int8 or" in runtime.describe("cpu", "auto")) is not amx


def test_int8_by_name_needs_graphs_in_int8(tiny):
    with pytest.raises(BundleError, match="no graphs in int8"):
        open_networks(tiny, OpenVinoRuntime(threads=1), precision="int8")


def test_the_choice_is_said_aloud(caplog):
    with caplog.at_level(logging.INFO):
        assert select("onnxruntime").name == "onnxruntime"
    assert "onnxruntime" in caplog.text
    assert "fp32" in caplog.text


def test_auto_takes_the_first_that_can():
    assert select("auto").name == built_in()[0].name
    assert select("auto", runtimes=(Unusable(), OnnxRuntime())).name == "onnxruntime"


class Unusable(OnnxRuntime):
    name = "broken"

    def obstacles(self, device, precision):
        return ("its first part is missing", "so is its second")


def test_every_reason_is_listed():
    with pytest.raises(RuntimeUnavailable) as caught:
        select("auto", "cuda", "fp16")
    for part in ("openvino: it runs on cpu", "openvino: it computes", "onnxruntime: its cuda", "tensorrt: "):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("tensorrt", "cuda only, not on cpu; tensorrt: "), ("eager", "torch"), ("quantum", "no runtime of this name")],
)
def test_a_named_runtime_is_never_replaced(name, reason):
    with pytest.raises(RuntimeUnavailable, match=reason):
        select(name)


def test_a_runtime_that_the_caller_brings_is_chosen_by_name():
    with pytest.raises(RuntimeUnavailable, match="so is its second"):
        select("broken", runtimes=(Unusable(),))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
class TestRefusals:
    def test_not_onnx(self, runtime, tiny, tmp_path):
        path = tmp_path / "x.onnx"
        path.write_bytes(b"not a network")
        with pytest.raises(BundleError, match=r"x\.onnx cannot be read as ONNX"):
            runtime.open(path, tiny.manifest.graphs["parser"], "cpu", "fp32")

    def test_another_graph(self, runtime, tiny):
        with pytest.raises(BundleError, match="the manifest promises"):
            runtime.open(tiny.graph_path("parser"), tiny.manifest.graphs["generator"], "cpu", "fp32")


@pytest.mark.parametrize("name", ["generator.onnx", "directions.npz"])
def test_a_flipped_byte_is_found(tiny_folder, tmp_path, name):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        open_bundle(folder)


def test_a_wrong_call_is_our_own_mistake(tiny_networks):
    spec = tiny_networks.parser.spec
    with pytest.raises(AssertionError):
        tiny_networks.parser(image=np.zeros(shape_for(spec, "crop", 1), np.float32))
    with pytest.raises(AssertionError):
        tiny_networks.parser(crop=np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(AssertionError):
        tiny_networks.parser(crop=np.zeros(shape_for(spec, "crop", 1)))


def test_close_closes_a_shared_network_once(tiny_networks):
    class Counted:
        spec, closed = None, 0

        def close(self):
            self.closed += 1

    shared = Counted()
    replace(
        tiny_networks,
        encoder=shared,
        encoder_anchor=shared,
        generator=Counted(),
        recurrent=Counted(),
        parser=Counted(),
        refiner=Counted(),
    ).close()
    assert shared.closed == 1
