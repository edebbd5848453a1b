"""The eager runtime is onnxruntime's equal on every graph we have, and says what it cannot do."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from engine.bundle import GraphSpec
from engine.errors import BundleError, ExportError, RuntimeUnavailable
from engine.recurrence import advance
from engine.runtimes.base import shape_for
from engine.runtimes.select import open_networks, select
from export.eager import EagerRuntime
from export.onnx_ops import OPERATORS
from tests.engine.conftest import tiny, tiny_folder, tiny_networks

__all__ = ["tiny", "tiny_folder", "tiny_networks"]


def crop(t):
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    return np.stack([np.sin(3 * x + y + t), np.cos(4 * y), x * y])[None].astype(np.float32)


def roll(networks, bundle, steps=4):
    offset = np.stack([bundle.directions["smile"].direction])
    state, made = None, []
    for t in range(steps):
        state, inversion, edit = advance(networks, state, crop(t), offset)
        made += [inversion, edit, state.h, state.c, networks.parser(crop=edit)["logits"]]
    return made


def test_the_loop_equals_onnxruntimes(tiny, tiny_networks):
    networks = open_networks(tiny, select("eager", runtimes=(EagerRuntime(),)))
    for found, expected in zip(roll(networks, tiny), roll(tiny_networks, tiny), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)
    networks.close()


def test_an_answer_belongs_to_the_caller(tiny):
    spec = tiny.manifest.graphs["recurrent"]
    network = EagerRuntime().open(tiny.graph_path("recurrent"), spec, "cpu", "fp32")
    arrays = {name: np.full(shape_for(spec, name, 2), 0.1, np.float32) for name in spec.inputs}
    first = network(**arrays)
    kept = {name: array.copy() for name, array in first.items()}
    for array in arrays.values():
        array[:] = 9.0
    network(**arrays)
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])


def test_halves_are_rounded_after_every_operator(tmp_path):
    """1 + 2^-12 is 1 in fp16: summed in float32 and rounded once at the end it would not be lost a thousand times."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 1]) for name in ("x", "y")]
    small = helper.make_tensor("small", TensorProto.FLOAT16, [], [2.0**-12])
    nodes = [helper.make_node("Cast", ["x"], ["t0"], to=TensorProto.FLOAT16)]
    nodes += [helper.make_node("Add", [f"t{n}", "small"], [f"t{n + 1}"]) for n in range(8)]
    nodes.append(helper.make_node("Cast", ["t8"], ["y"], to=TensorProto.FLOAT))
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [small])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "g.onnx")
    network = EagerRuntime().open(
        tmp_path / "g.onnx", GraphSpec("g.onnx", {"x": ("B", 1)}, {"y": ("B", 1)}), "cpu", "auto"
    )
    assert network(x=np.ones((1, 1), np.float32))["y"].item() == 1.0


def test_obstacles_name_the_device_and_the_precision():
    with pytest.raises(RuntimeUnavailable, match="not in int8"):
        select("eager", precision="int8", runtimes=(EagerRuntime(),))


def test_refusals(tiny, tmp_path):
    spec = tiny.manifest.graphs["parser"]
    (tmp_path / "x.onnx").write_bytes(b"not a network")
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        EagerRuntime().open(tmp_path / "x.onnx", spec, "cpu", "fp32")
    with pytest.raises(BundleError, match="the manifest promises"):
        EagerRuntime().open(tiny.graph_path("generator"), spec, "cpu", "fp32")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 1]) for name in ("crop", "logits")]
    graph = helper.make_graph([helper.make_node("Erf", ["crop"], ["logits"])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph), tmp_path / "erf.onnx")
    with pytest.raises(BundleError, match="does not know: Erf"):
        EagerRuntime().open(tmp_path / "erf.onnx", spec, "cpu", "fp32")


@pytest.mark.parametrize("pads", [(0, 0, 1, 2, 0, 0, 3, 4), (0, 2, 0, 0, 0, 3, 0, 0), (0, 1, 0, 2, 0, 0, 1, 0)])
def test_zeros_are_put_around_any_axis(pads):
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4) + 1.0
    (made,) = OPERATORS["Pad"]((torch.from_numpy(x), torch.tensor(pads)), {})
    np.testing.assert_array_equal(made.numpy(), np.pad(x, list(zip(pads[:4], pads[4:], strict=True))))


def test_channels_are_not_continued_by_what_is_there():
    with pytest.raises(ExportError, match="a pad of batch or channels"):
        OPERATORS["Pad"]((torch.ones(1, 2, 3, 4), torch.tensor((0, 1, 0, 0, 0, 0, 0, 0))), {"mode": b"edge"})
