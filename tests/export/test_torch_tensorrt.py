"""Torch-TensorRT on stand-ins: the torch programs that it is given are real; nothing is compiled, no card is here."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import GraphSpec
from engine.errors import CardFailed, RuntimeUnavailable
from engine.runtimes.base import shape_for
from engine.runtimes.select import select
from export import torch_tensorrt
from export.eager import EagerNetwork, read_graph
from export.torch_tensorrt import TorchTensorRtRuntime, program_of
from tests.engine.conftest import tiny, tiny_folder, tiny_networks
from tests.engine.fake_card import Machine

__all__ = ["tiny", "tiny_folder", "tiny_networks"]


class FakeTorchTensorRt:
    """The package: what it "compiles" is run by torch."""

    __version__ = "2.13.0"

    def __init__(self):
        self.compiled, self.raises = [], None
        self.dynamo = SimpleNamespace(compile=self.compile)

    def compile(self, exported, inputs, disable_tf32, min_block_size):
        assert isinstance(exported, torch.export.ExportedProgram)
        assert (disable_tf32, min_block_size) == (True, 1)
        if self.raises:
            raise self.raises
        self.compiled.append([tuple(tensor.shape) for tensor in inputs])
        return exported.module()


class CupyArray:
    """An array of CuPy: what torch takes is its memory, by DLPack."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.dtype = tensor, tuple(tensor.shape), np.dtype(np.float32)

    def __len__(self):
        return self.shape[0]

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@pytest.fixture(autouse=True)
def torchs_cache(monkeypatch, tmp_path):
    """torch sets this variable itself when it exports a program."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


@pytest.fixture
def library():
    return FakeTorchTensorRt()


@pytest.fixture
def runtime(monkeypatch, library):
    """The runtime on a made-up card, whose arrays are torch's."""

    @contextmanager
    def streams(same):
        yield

    machine = Machine()
    machine.cupy.from_dlpack = lambda tensor: tensor
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda address: address)
    monkeypatch.setattr(torch.cuda, "stream", streams)
    made = TorchTensorRtRuntime(lambda name: library if name == "torch_tensorrt" else machine.load(name))
    here = torch.device("cpu")
    monkeypatch.setattr(torch_tensorrt, "EagerNetwork", lambda graph, spec, device: EagerNetwork(graph, spec, here))
    return made


def inputs_for(spec, batch, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-1, 1, shape_for(spec, name, batch)).astype(np.float32) for name in spec.inputs}


@pytest.mark.parametrize("graph", ["generator", "recurrent", "parser"])
@pytest.mark.parametrize("on_card", [True, False])
def test_a_graph_is_compiled_once_a_batch_size_and_answers_as_onnxruntime_does(
    tiny, tiny_networks, runtime, library, graph, on_card
):
    chosen = select("torch-tensorrt", "cuda", runtimes=(runtime,))
    network = chosen.open(tiny.graph_path(graph), tiny.manifest.graphs[graph], "cuda", "fp32")
    for seed in range(2):
        for batch in (1, 2):
            arrays = inputs_for(network.spec, batch, seed)
            given = {name: CupyArray(torch.from_numpy(array)) if on_card else array for name, array in arrays.items()}
            found, expected = network(**given), getattr(tiny_networks, graph)(**arrays)
            for name, array in expected.items():
                assert isinstance(found[name], torch.Tensor if on_card else np.ndarray)
                np.testing.assert_allclose(np.asarray(found[name]), array, atol=1e-5)
    assert [shapes[0][0] for shapes in library.compiled] == [1, 2]


def test_shapes_and_indices_on_the_way_become_constants(tmp_path):
    """What a graph computes of its input's shape, gathers by and resizes to; a program may not ask tensors for it."""
    ports = {"image": ("B", 4, 8, 6)}, {"out": ("B", 2, 16, 12)}
    constants = {"two": [2], "zero": [0], "pick": [3, 1], "end": [9999]}
    tensors = [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in constants.items()]
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "end", "zero"], ["sides"]),
        helper.make_node("Mul", ["sides", "two"], ["larger"]),
        helper.make_node("Gather", ["image", "pick"], ["picked"], axis=1),
        helper.make_node("Slice", ["shape", "zero", "two", "zero"], ["front"]),
        helper.make_node("Concat", ["front", "larger"], ["sizes"], axis=0),
        helper.make_node("Resize", ["picked", "", "", "sizes"], ["out"], mode="linear"),
    ]
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in side.items()]
        for side in ports
    ]
    graph = helper.make_graph(nodes, "shapes", *sides, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "shapes.onnx"
    path.write_bytes(model.SerializeToString())
    spec = GraphSpec(path.name, *ports)
    network = EagerNetwork(read_graph(path, spec, "fp32"), spec, torch.device("cpu"))
    image = np.random.default_rng(0).standard_normal((2, 4, 8, 6)).astype(np.float32)
    (found,) = program_of(network, 2).module()(torch.from_numpy(image))
    assert found.shape == (2, 2, 16, 12)
    np.testing.assert_allclose(found, network(image=image)["out"], atol=1e-6)


def test_half_precision_stays_where_the_graph_has_it(tiny, runtime, library):
    spec = tiny.manifest.graphs["generator"]
    network = runtime.open(tiny.graph_path("generator"), spec, "cuda", "fp16")
    kinds = {str(node.meta["val"].dtype) for node in program_of(network._network, 1).graph.nodes if "val" in node.meta}
    assert {"torch.float16", "torch.float32"} <= kinds
    assert network(**inputs_for(spec, 1))["image"].dtype == np.float32


def test_what_cannot_be_compiled_or_run_is_one_line(tiny, runtime, library):
    network = runtime.open(tiny.graph_path("parser"), tiny.manifest.graphs["parser"], "cuda", "fp32")
    library.raises = ValueError("no converter for aten.odd\nand where")
    with pytest.raises(
        RuntimeUnavailable, match=r"torch_tensorrt cannot compile parser.onnx: no converter for aten.odd$"
    ):
        network(**inputs_for(network.spec, 1))
    library.raises = None
    network(**inputs_for(network.spec, 1))

    def fail(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")

    network._programs[1] = fail
    with pytest.raises(CardFailed, match=r"out of memory \(CUDA out of memory. Tried\); close"):
        network(**inputs_for(network.spec, 1))


def test_everything_that_is_missing_is_told():
    def load(module):
        raise ModuleNotFoundError(module)

    with pytest.raises(RuntimeUnavailable) as caught:
        select("torch-tensorrt", "cpu", "int8", runtimes=(TorchTensorRtRuntime(load),))
    for part in (
        "cuda only, not on cpu",
        "int8",
        "sees no CUDA",
        "cupy is not installed",
        "torch_tensorrt is not",
    ):
        assert part in str(caught.value)


def test_its_name_says_which_package_it_is(runtime, monkeypatch):
    assert runtime.describe("cuda", "fp16") == "torch_tensorrt 2.13.0 on cuda in fp16"

    def version(name):
        if name != "torch-tensorrt-rtx":
            raise torch_tensorrt.importlib.metadata.PackageNotFoundError
        return "2.13.0"

    monkeypatch.setattr(torch_tensorrt.importlib.metadata, "version", version)
    assert runtime.describe("cuda", "auto").startswith("torch-tensorrt-rtx 2.13.0 on cuda in the bundle's own")
    assert runtime.capture(lambda: None) is None
