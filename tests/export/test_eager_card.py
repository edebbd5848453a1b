"""The eager runtime on a card, with stand-ins for torch's CUDA graphs and for CuPy: nothing here runs on a card."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from engine.bundle import read_manifest
from engine.bundle_build import recipe_folder
from engine.errors import CardFailed
from engine.graphs import plain
from engine.runtimes.base import shape_for
from export.eager import EagerNetwork, EagerRuntime, _CardNetwork
from tests.engine.conftest import tiny, tiny_folder, tiny_networks
from tests.engine.kernels.remote import RemoteArray

__all__ = ["tiny", "tiny_folder", "tiny_networks"]


class Stream:
    ptr = 77

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class Graph:
    """A CUDA graph of the stand-in: runs again what was run while it was captured, into the same memory."""

    capturing = None
    made = 0
    whole = None
    """While a whole step is captured, the runs in it; of a graph, those that it holds."""

    def __init__(self):
        self.run, self.replays = None, 0
        Graph.made += 1

    def replay(self):
        assert Graph.whole is None, "a graph cannot hold another one's launch"
        self.replays += 1
        if self.whole is not None:
            for again in self.whole:
                again()
            return
        original, inputs, outputs = self.run
        for name, tensor in original(inputs).items():
            outputs[name].copy_(tensor)


@pytest.fixture
def card(monkeypatch):
    """torch and CuPy as on a card."""

    @contextmanager
    def capture(graph):
        Graph.capturing = graph
        yield
        Graph.capturing = None

    run = _CardNetwork.run

    def watched(self, inputs):
        outputs = {name: tensor.clone() for name, tensor in run(self, inputs).items()}
        if Graph.whole is not None:
            Graph.whole.append(lambda: run(self, inputs))
        if Graph.capturing is not None:
            Graph.capturing.run = (lambda again: run(self, again)), inputs, outputs
        return outputs

    @contextmanager
    def streams(same):
        yield

    @contextmanager
    def capture_whole(graph, pool=None, stream=None, capture_error_mode="global"):
        if pool is None:
            assert capture_error_mode == "thread_local"
            with capture(graph):
                yield
            return
        assert (pool, stream, capture_error_mode) == ("pool", 77, "relaxed")
        graph.whole = Graph.whole = []
        yield
        Graph.whole = None

    Graph.made, Graph.whole = 0, None
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: Graph.whole is not None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(_CardNetwork, "run", watched)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture_whole)
    monkeypatch.setattr(torch.cuda, "stream", streams)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda address: address)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    # CuPy writes to what torch shares with it; NumPy would not.
    cupy = SimpleNamespace(from_dlpack=lambda tensor: RemoteArray(tensor.numpy()))
    monkeypatch.setattr("importlib.import_module", lambda name: {"cupy": cupy}[name])


def opened(bundle, graph):
    spec = bundle.manifest.graphs[graph]
    return _CardNetwork(plain(onnx.load(bundle.graph_path(graph))), spec, torch.device("cpu"), Stream())


def inputs_for(spec, batch, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-1, 1, shape_for(spec, name, batch)).astype(np.float32) for name in spec.inputs}


@pytest.mark.parametrize("graph", ["generator", "recurrent", "parser"])
@pytest.mark.parametrize("on_card", [True, False])
def test_one_graph_a_batch_size_answers_as_onnxruntime_does(tiny, tiny_networks, card, graph, on_card):
    network, same = opened(tiny, graph), getattr(tiny_networks, graph)
    kept = []
    for seed in range(3):
        for batch in (1, 2):
            arrays = inputs_for(network.spec, batch, seed)
            given = {name: RemoteArray(array) if on_card else array for name, array in arrays.items()}
            found, expected = network(**given), same(**arrays)
            kept += [(found[name], array) for name, array in expected.items()]
    assert Graph.made == 2
    for array, expected in kept:  # an answer belongs to the caller: later calls do not change it
        assert isinstance(array, RemoteArray) == on_card
        np.testing.assert_allclose(array.content if on_card else array, expected, atol=1e-5)


def test_a_graph_of_a_whole_step_holds_the_operators_themselves(tiny, card, monkeypatch):
    """Not the launch of a network's own graph, which CUDA does not capture."""
    network, runtime = opened(tiny, "parser"), EagerRuntime()
    monkeypatch.setattr(EagerRuntime, "stream", Stream())
    crop = RemoteArray(inputs_for(network.spec, 1, 0)["crop"])
    network(crop=crop)
    runs = []
    run = type(network).run
    monkeypatch.setattr(type(network), "run", lambda self, inputs: runs.append(1) or run(self, inputs))
    replay = runtime.capture(lambda: network(crop=crop))
    assert (Graph.made, len(runs)) == (2, 1)
    replay()
    assert Graph.whole is None


def test_the_host_asks_nothing_of_the_card_while_a_graph_is_captured():
    """On torch's meta device no tensor has a value that could be read; the shipped parser enlarges pictures."""
    recipe, device = recipe_folder("default"), torch.device("meta")
    spec = read_manifest(recipe).graphs["parser"]
    network = EagerNetwork(plain(onnx.load(recipe / spec.file)), spec, device)
    answers = network.run({port: torch.zeros(shape_for(spec, port, 2), device=device) for port in spec.inputs})
    assert {port: tuple(answer.shape) for port, answer in answers.items()} == {
        port: shape_for(spec, port, 2) for port in spec.outputs
    }


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
            r"out of memory \(CUDA out of memory. Tried\); close",
        ),
        (torch.AcceleratorError("CUDA error: an illegal access\nmore"), "failed: CUDA error: an illegal access$"),
    ],
)
def test_a_card_that_fails_is_told(tiny, card, monkeypatch, error, message):
    network = opened(tiny, "parser")
    arrays = inputs_for(network.spec, 1, 0)
    network(**arrays)

    def fail(graph):
        raise error

    monkeypatch.setattr(Graph, "replay", fail)
    with pytest.raises(CardFailed, match=message):
        network(**arrays)
