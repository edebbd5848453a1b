"""Third-party weights leave a graph as references and come back bit for bit when the bundle is built."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engine import assets, bundle_build
from engine.assets import Asset
from engine.bundle_build import inline_assets
from engine.errors import BundleError
from export.pinned import refer_to_asset, refer_to_graph

RNG = np.random.default_rng(7)
THEIRS = RNG.standard_normal((16, 16)).astype(np.float32)
OURS = RNG.standard_normal((16, 16)).astype(np.float32)
SMALL = np.arange(4, dtype=np.float32)
ORDER = RNG.permutation(16)


@pytest.fixture
def graph(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """theirs + ours + small, with `theirs` at an odd offset of a pinned file, which holds `small` as well."""
    pinned = b"\x01\x02\x03" + THEIRS.tobytes() + SMALL.tobytes()
    row = Asset(
        name="weights",
        package="tiny-weights",
        version="1.0",
        archive_sha256="0" * 64,
        member="tiny_weights/weights.bin",
        sha256=hashlib.sha256(pinned).hexdigest(),
        licence="CC0-1.0",
        lineage="made up",
        group="run",
    )
    for module in (assets, bundle_build):
        monkeypatch.setattr(module, "ASSETS", (row,))
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(pinned)
    return write_graph(tmp_path / "graph.onnx")


def write_graph(path: Path) -> Path:
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (16, 16))
    nodes = [helper.make_node("MatMul", ["theirs", "ours"], ["m"]), helper.make_node("Mul", ["m", "small"], ["y"])]
    # `theirs` as a list of numbers, `ours` as raw bytes: both forms occur in files.
    theirs = helper.make_tensor("theirs", onnx.TensorProto.FLOAT, THEIRS.shape, THEIRS.ravel().tolist())
    tensors = [theirs, numpy_helper.from_array(OURS, "ours"), numpy_helper.from_array(SMALL, "small")]
    model = helper.make_model(helper.make_graph(nodes, "two", [], [output], tensors), ir_version=9)
    onnx.save(model, str(path))
    return path


def test_their_bytes_leave_the_file_and_ours_stay(graph: Path) -> None:
    inline = refer_to_asset(graph, "weights")
    assert inline == ("ours",)
    content = graph.read_bytes()
    assert THEIRS.tobytes() not in content
    assert OURS.tobytes() in content
    assert SMALL.tobytes() in content


def test_building_brings_them_back_bit_for_bit(graph: Path, tmp_path: Path) -> None:
    refer_to_asset(graph, "weights")
    inline_assets(graph, tmp_path / "built.onnx")
    tensors = onnx.load(str(tmp_path / "built.onnx")).graph.initializer
    built = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    for name, expected in {"theirs": THEIRS, "ours": OURS, "small": SMALL}.items():
        np.testing.assert_array_equal(built[name], expected)


def test_what_another_graph_holds_is_a_reference_into_that(graph: Path, tmp_path: Path) -> None:
    holder, twin = tmp_path / "recipe" / "holder.onnx", tmp_path / "recipe" / "twin.onnx"
    holder.parent.mkdir()
    for path in (holder, twin):
        path.write_bytes(graph.read_bytes())
    assert refer_to_graph(twin, holder) == ()
    assert OURS.tobytes() not in twin.read_bytes()
    inline_assets(twin, tmp_path / "built.onnx")
    built = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "built.onnx")).graph.initializer}
    np.testing.assert_array_equal(built["ours"], OURS)
    holder.unlink()
    with pytest.raises(BundleError, match=r"holder\.onnx"):
        inline_assets(twin, tmp_path / "built.onnx")


def test_referring_twice_changes_nothing(graph: Path) -> None:
    refer_to_asset(graph, "weights")
    once = graph.read_bytes()
    assert refer_to_asset(graph, "weights") == ("ours",)
    assert graph.read_bytes() == once


def test_rows_and_columns_in_another_order_are_references_too(graph: Path, tmp_path: Path) -> None:
    taken = {"rows": THEIRS[ORDER], "columns": THEIRS[:, ORDER], "both": THEIRS[ORDER][:, ORDER]}
    model = onnx.load(str(graph))
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in taken.items())
    model.graph.node.extend(helper.make_node("MatMul", [name, "ours"], [f"y_{name}"]) for name in taken)
    onnx.save(model, str(graph))
    assert refer_to_asset(graph, "weights", [ORDER]) == ("ours",)
    content = graph.read_bytes()
    assert not any(values.tobytes() in content for values in taken.values())
    inline_assets(graph, tmp_path / "built.onnx")
    built = onnx.load(str(tmp_path / "built.onnx"))
    onnx.checker.check_model(built)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in built.graph.initializer}
    for name, values in taken.items():
        np.testing.assert_array_equal(weights[name], values)
    assert {node.op_type for node in built.graph.node} == {"MatMul", "Mul"}
    assert weights.keys() == {"theirs", "ours", "small", *taken}


def test_another_order_than_those_named_stays_inline(graph: Path) -> None:
    model = onnx.load(str(graph))
    model.graph.initializer.append(numpy_helper.from_array(THEIRS[ORDER], "rows"))
    onnx.save(model, str(graph))
    assert refer_to_asset(graph, "weights") == ("ours", "rows")
