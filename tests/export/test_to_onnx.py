"""Torch -> ONNX: names, the free batch axis, equality with torch, and the halved file."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from engine.bundle_build import inline_assets
from engine.openvino_core import openvino_core
from export.to_onnx import compress, export_graph


class TwoStep(nn.Module):
    """A small recurrent cell: two inputs, two outputs, a batch norm to fold and a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3 + 8, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.out = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, crop: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.norm(self.mix(torch.cat([crop, h], 1))))
        h_out = torch.tanh(self.out(hidden))
        return nn.functional.interpolate(h_out, scale_factor=2.0, mode="bilinear"), h_out


@pytest.fixture(scope="module")
def cell() -> TwoStep:
    torch.manual_seed(0)
    cell = TwoStep()
    cell.train()(torch.randn(4, 3, 8, 8), torch.randn(4, 8, 8, 8))  # running statistics that are not 0 and 1
    return cell


@pytest.fixture(scope="module")
def cell_file(cell: TwoStep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "new" / "cell.onnx"
    export_graph(cell, path, {"crop": torch.zeros(2, 3, 8, 8), "h": torch.zeros(2, 8, 8, 8)}, ["noise", "h_out"])
    return path


def feeds(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    return {name: rng.standard_normal((batch, c, 8, 8)).astype(np.float32) for name, c in (("crop", 3), ("h", 8))}


def run_onnxruntime(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["noise", "h_out"], inputs)


def run_openvino(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled(inputs)
    return [result[name] for name in ("noise", "h_out")]


def test_names_and_shapes(cell_file):
    graph = onnx.load(cell_file).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "crop": ["B", 3, 8, 8],
        "h": ["B", 8, 8, 8],
        "noise": ["B", 8, 16, 16],
        "h_out": ["B", 8, 8, 8],
    }


def test_batch_norm_is_folded(cell_file):
    assert not [node for node in onnx.load(cell_file).graph.node if node.op_type == "BatchNormalization"]


def test_file_tells_nothing_about_the_exporting_machine(cell_file):
    content = cell_file.read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize("run", [run_onnxruntime, run_openvino])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_torch_at_any_batch(cell, cell_file, run, batch):
    inputs = feeds(batch)
    with torch.inference_mode():
        expected = cell.eval()(*(torch.from_numpy(value) for value in inputs.values()))
    for found, wanted in zip(run(cell_file, inputs), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_modes_of_the_parts_are_put_back(tmp_path):
    module = TwoStep().train()
    module.norm.eval()
    export_graph(
        module, tmp_path / "m.onnx", {"crop": torch.zeros(2, 3, 8, 8), "h": torch.zeros(2, 8, 8, 8)}, ["noise", "h_out"]
    )
    assert (module.training, module.norm.training) == (True, False)


def test_one_example_may_stand_for_two_inputs(tmp_path):
    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a.clamp(-1, 1) - b.clamp(-1, 1)

    example = torch.zeros(2, 3)
    export_graph(Difference(), tmp_path / "d.onnx", {"a": example, "b": example}, ["y"])
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    ones = np.ones((1, 3), np.float32)
    (found,) = session.run(["y"], {"a": 5 * ones, "b": 0.25 * ones})
    assert found.tolist() == [[0.75, 0.75, 0.75]]


@pytest.mark.parametrize("batches", [(1, 1), (2, 3)])
def test_refuses_a_batch_that_cannot_be_free(tmp_path, batches):
    inputs = {"crop": torch.zeros(batches[0], 3, 8, 8), "h": torch.zeros(batches[1], 8, 8, 8)}
    with pytest.raises(ValueError, match="batch"):
        export_graph(TwoStep(), tmp_path / "cell.onnx", inputs, ["noise", "h_out"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", [run_onnxruntime, run_openvino])
def test_compressed_equals_torch_with_rounded_weights(cell, cell_file, tmp_path, run):
    path = tmp_path / "cell.onnx"
    path.write_bytes(cell_file.read_bytes())
    compress(path)
    rounded = 0
    model = onnx.load(cell_file)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 1024:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
            rounded += 1
    assert rounded == 2
    onnx.save(model, tmp_path / "rounded.onnx")
    inputs = feeds(2)
    for found, wanted in zip(run(path, inputs), run(tmp_path / "rounded.onnx", inputs), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    exact = run(cell_file, inputs)
    assert 0 < np.abs(run(path, inputs)[1] - exact[1]).max() < 5e-3


def test_compressed_file_is_half_and_stays_so(cell_file, tmp_path):
    path = tmp_path / "cell.onnx"
    path.write_bytes(cell_file.read_bytes())
    compress(path)
    assert path.stat().st_size < 0.6 * cell_file.stat().st_size
    once = path.read_bytes()
    compress(path)
    assert path.read_bytes() == once
    onnx.checker.check_model(path, full_check=True)


def test_large_matrices_become_int8_when_asked(tmp_path):
    """Within a percent of what is usual in the row, in a column half way between its own and the largest; in a quarter
    of the bytes."""
    rng = np.random.default_rng(0)
    rows, columns = np.logspace(-3, 3, 1024)[:, None], np.logspace(2, -2, 512)
    weights = (rng.uniform(-1, 1, (1024, 512)) * rows * columns).astype(np.float32)
    path = tmp_path / "large.onnx"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 1024), ("y", 512))]
    tensors = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    compress(path, quantize=True)
    once = path.read_bytes()
    assert len(once) < 1.02 * weights.size + 4 * 1536
    onnx.checker.check_model(path, full_check=True)
    compress(path, quantize=True)
    assert path.read_bytes() == once
    inline_assets(path, tmp_path / "built.onnx")
    built = onnx.load(tmp_path / "built.onnx")
    assert [node.op_type for node in built.graph.node] == ["MatMul"]
    (tensor,) = built.graph.initializer
    dequantised = numpy_helper.to_array(tensor)
    usual = rows * np.sqrt(columns * columns.max())
    assert 0.002 < np.abs((dequantised - weights) / usual).max() < 0.008
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for row in (0, 500, 1023):
        x = np.zeros((1, 1024), np.float32)
        x[0, row] = 1.0
        np.testing.assert_allclose(session.run(["y"], {"x": x})[0][0], dequantised[row], rtol=1e-5)


def weighted_graph(path: Path, weight: TensorProto) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, 32]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_weights_beyond_float16_stay(tmp_path, value):
    path = tmp_path / "large.onnx"
    weights = np.ones((32, 32), np.float32)
    weights[3, 4] = value
    weighted_graph(path, numpy_helper.from_array(weights, "w"))
    compress(path)
    (tensor,) = onnx.load(path).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), weights)


def test_references_into_other_files_stay(tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.ones((32, 32), np.float32).tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[32, 32], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "4096")):
        tensor.external_data.add(key=key, value=value)
    path = tmp_path / "external.onnx"
    weighted_graph(path, tensor)
    compress(path)
    assert onnx.load(path, load_external_data=False).graph.initializer[0] == tensor
