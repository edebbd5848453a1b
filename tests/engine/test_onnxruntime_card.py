"""ONNX Runtime on a card, on stand-ins for CuPy and for a provider: no card is needed, and none computes here."""

import numpy as np
import onnxruntime
import pytest

from engine.errors import CardFailed, RuntimeUnavailable
from engine.runtimes.base import shape_for
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks, select
from tests.engine.fake_card import CardArray, Machine, Stream, at

CUDA, TENSORRT, RTX = (f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "NvTensorRTRTX"))


class Binding:
    """Addresses by name, as the package takes them."""

    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_input(self, name, device, device_id, kind, shape, address):
        assert (device, device_id, kind) == ("cuda", 0, np.float32)
        self.inputs[name] = at(address, shape)

    def bind_output(self, name, device, device_id, kind, shape, address):
        assert (device, device_id, kind) == ("cuda", 0, np.float32)
        self.outputs[name] = at(address, shape)


def with_providers(monkeypatch, *names):
    """onnxruntime as if it had been built with these; returns what sessions are asked for."""
    asked = []

    class Session(onnxruntime.InferenceSession):
        fails = False

        def __init__(self, model, options, providers):
            asked.append(providers)
            super().__init__(model, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [names[0]] if names else ["CPUExecutionProvider"]

        def io_binding(self):
            return Binding()

        def run_with_iobinding(self, binding):
            if Session.fails:
                raise RuntimeError("CUDA failure 2: out of memory\nand where")
            made = self.run(list(binding.outputs), {name: array.copy() for name, array in binding.inputs.items()})
            for place, array in zip(binding.outputs.values(), made, strict=True):
                place[...] = array

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return asked


@pytest.mark.parametrize(
    ("there", "best"), [((CUDA,), CUDA), ((TENSORRT, CUDA), TENSORRT), ((RTX, TENSORRT, CUDA), RTX)]
)
def test_the_best_provider_of_a_card_is_taken_on_our_stream(tiny, monkeypatch, there, best):
    asked = with_providers(monkeypatch, *there)
    runtime = select("onnxruntime", "cuda", runtimes=(OnnxRuntime(load=Machine().load),))
    assert best in runtime.describe("cuda", "auto")
    runtime.open(tiny.graph_path("parser"), tiny.manifest.graphs["parser"], "cuda", "auto")
    assert [[name for name, _ in providers] for providers in asked] == [[best, "CPUExecutionProvider"]]
    assert asked[0][0][1]["user_compute_stream"] == str(Stream.ptr)
    assert runtime.stream is runtime.stream


def test_arrays_on_the_card_are_bound_by_name(tiny, tiny_networks, monkeypatch):
    expected = {}
    for graph in ("generator", "recurrent", "parser"):
        spec, rng = tiny.manifest.graphs[graph], np.random.default_rng(1)
        arrays = {name: rng.uniform(-1, 1, shape_for(spec, name, 2)).astype(np.float32) for name in spec.inputs}
        expected[graph] = arrays, getattr(tiny_networks, graph)(**arrays)
    with_providers(monkeypatch, CUDA)
    machine = Machine()
    networks = open_networks(tiny, OnnxRuntime(load=machine.load), "cuda")
    for graph, (arrays, answer) in expected.items():
        views = {name: array.view(CardArray) for name, array in arrays.items()}
        found = getattr(networks, graph)(**views)
        for name, array in found.items():
            assert isinstance(array, CardArray)
            np.testing.assert_allclose(array, answer[name], atol=1e-6)
        assert isinstance(next(iter(getattr(networks, graph)(**arrays).values())), np.ndarray)
    assert (machine.cupy.uploads, machine.cupy.downloads) == (0, 0)


def test_a_card_that_fails_is_told(tiny, monkeypatch):
    with_providers(monkeypatch, CUDA)
    machine = Machine()
    network = open_networks(tiny, OnnxRuntime(load=machine.load), "cuda").parser
    crop = np.zeros((1, 3, 256, 256), np.float32).view(CardArray)
    onnxruntime.InferenceSession.fails = True
    with pytest.raises(CardFailed, match=r"onnxruntime failed on the card: CUDA failure 2: out of memory$"):
        network(crop=crop)
    machine.cupy.full = True
    with pytest.raises(CardFailed, match="the graphics card is out of memory"):
        network(crop=crop)


def test_a_provider_that_does_not_load_is_told(tiny, monkeypatch):
    """The package itself would go on with the processor."""
    with_providers(monkeypatch, "CPUExecutionProvider", CUDA)
    with pytest.raises(RuntimeUnavailable, match="has CUDAExecutionProvider, but it does not load"):
        OnnxRuntime(load=Machine().load).open(tiny.graph_path("parser"), tiny.manifest.graphs["parser"], "cuda", "auto")


def test_without_a_provider_and_without_cupy_both_are_named(monkeypatch):
    with_providers(monkeypatch)

    def load(module):
        raise ModuleNotFoundError(module)

    with pytest.raises(RuntimeUnavailable, match=r"its cuda providers are missing .*gpu-ort.* cupy is not installed"):
        select("onnxruntime", "cuda", runtimes=(OnnxRuntime(load=load),))
