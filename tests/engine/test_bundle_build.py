"""The default bundle is built from a recipe and pinned weights: complete, once, and whole or not at all."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine import assets, bundle_build, int8
from engine.assets import Asset
from engine.bundle import open_bundle, read_manifest
from engine.bundle_build import build_default_bundle, bundle_path, hash_recipe
from engine.errors import AssetMissing, BundleError
from engine.int8 import Reach, write_reaches
from export.bundle import write_manifest
from tests.blank_bundle import constant_graph, write_blank_bundle

WEIGHTS = np.arange(64, dtype=np.float32)
OFFSET, COUNT = 40, 8


def point_outside(model: onnx.ModelProto, location: str, offset: int, length: int) -> None:
    """Turns the model's one tensor into a reference to bytes of another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))


def refer_to(recipe: Path, location: str, offset: int = OFFSET, length: int = 4 * COUNT) -> None:
    """Makes the recipe's generator refer to a pinned file, and its manifest agree."""
    model = constant_graph(np.zeros(COUNT, np.float32))
    point_outside(model, location, offset, length)
    (recipe / "generator.onnx").write_bytes(model.SerializeToString())
    write_manifest(recipe, read_manifest(recipe))


@pytest.fixture
def recipe(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose generator takes 8 numbers from a pinned file, that file in the cache, and both in use."""
    folder = tmp_path / "recipe"
    write_blank_bundle(folder)
    refer_to(folder, "weights.bin")
    row = Asset(
        name="weights",
        package="tiny-weights",
        version="1.0",
        archive_sha256="0" * 64,
        member="tiny_weights/weights.bin",
        sha256=hashlib.sha256(WEIGHTS.tobytes()).hexdigest(),
        licence="CC0-1.0",
        lineage="made up",
        group="run",
    )
    for module in (assets, bundle_build):
        monkeypatch.setattr(module, "ASSETS", (row,))
    monkeypatch.setattr(bundle_build, "recipe_folder", lambda name: folder)
    row.path.parent.mkdir(parents=True)
    row.path.write_bytes(WEIGHTS.tobytes())
    return folder


def built_weights(built: Path) -> np.ndarray:
    return numpy_helper.to_array(onnx.load(str(built / "generator.onnx")).graph.initializer[0])


def test_the_built_bundle_is_complete(recipe: Path) -> None:
    built = build_default_bundle()
    opened = open_bundle(built)
    assert opened.manifest.recipe == hash_recipe(recipe)
    start = OFFSET // 4
    np.testing.assert_array_equal(built_weights(built), WEIGHTS[start : start + COUNT])
    assert (built / "parser.onnx").read_bytes() == (recipe / "parser.onnx").read_bytes()
    assert sorted(path.name for path in built.parent.iterdir()) == ["default"]


def test_a_fresh_bundle_is_left_alone(recipe: Path) -> None:
    before = (build_default_bundle() / "generator.onnx").stat().st_mtime_ns
    assert (build_default_bundle() / "generator.onnx").stat().st_mtime_ns == before
    assert (bundle_path("default") / "generator.onnx").stat().st_mtime_ns == before


def test_a_new_recipe_is_built_anew(recipe: Path) -> None:
    bundle_path("default")
    refer_to(recipe, "weights.bin", offset=0)
    np.testing.assert_array_equal(built_weights(bundle_path("default")), WEIGHTS[:COUNT])


def test_a_damaged_built_bundle_is_built_anew(recipe: Path) -> None:
    (build_default_bundle() / "generator.onnx").write_bytes(b"damaged")
    open_bundle(build_default_bundle())


def test_a_fresh_bundle_needs_no_assets(recipe: Path) -> None:
    built = build_default_bundle()
    assets.ASSETS[0].path.unlink()
    assert bundle_path("default") == built


def test_missing_weights_name_both_commands(recipe: Path, empty_cache: Path) -> None:
    assets.ASSETS[0].path.unlink()
    with pytest.raises(AssetMissing, match=r"assets pull.*assets build"):
        bundle_path("default")
    assert not (empty_cache / "bundles" / "default").exists()


@pytest.mark.parametrize(
    ("location", "offset", "message"),
    [("elsewhere.bin", 0, "none of the pinned files"), ("weights.bin", 1000, "cannot be read")],
)
def test_a_recipe_with_a_wrong_reference_is_refused(
    recipe: Path, empty_cache: Path, location: str, offset: int, message: str
) -> None:
    refer_to(recipe, location, offset)
    with pytest.raises(BundleError, match=message):
        build_default_bundle()
    assert list((empty_cache / "bundles").iterdir()) == []


def test_a_failed_build_keeps_the_older_bundle(recipe: Path) -> None:
    built = build_default_bundle()
    refer_to(recipe, "elsewhere.bin")
    with pytest.raises(BundleError):
        build_default_bundle()
    open_bundle(built)


def test_a_damaged_recipe_is_refused(recipe: Path) -> None:
    (recipe / "parser.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"parser\.onnx has sha256"):
        build_default_bundle()


def test_a_bundle_that_was_built_before_is_known_by_its_name(empty_cache: Path) -> None:
    folder = empty_cache / "bundles" / "paper-256"
    folder.parent.mkdir(parents=True)
    write_blank_bundle(folder)
    assert bundle_path("paper-256") == folder
    for name in ("other", "../bundles/paper-256", "."):
        with pytest.raises(BundleError):
            open_bundle(bundle_path(name))


def test_a_folder_is_its_own_bundle_path(tmp_path: Path) -> None:
    assert bundle_path(str(tmp_path)) == tmp_path


def test_an_unknown_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither 'default' nor a folder"):
        bundle_path(str(tmp_path / "nowhere"))


def with_reaches(recipe: Path, convolution: str) -> None:
    """Gives the recipe a parser with one convolution, and the reach of the one of that name."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 4, 4]) for name in "xy")
    kernel = numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "kernel")
    nodes = [onnx.helper.make_node("Conv", ["x", "kernel"], ["c"]), onnx.helper.make_node("Relu", ["c"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "parser", [x], [y], [kernel])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(recipe / "parser.onnx"))
    write_reaches(recipe / int8.FILE, {"parser.onnx": {convolution: Reach(np.ones(1, np.float32), True)}})
    write_manifest(recipe, read_manifest(recipe), [int8.FILE])


def test_graphs_whose_reaches_are_known_are_there_in_int8_as_well(recipe: Path) -> None:
    with_reaches(recipe, "c")
    opened = open_bundle(build_default_bundle())
    assert opened.manifest.graphs["parser"].int8 == "parser.int8.onnx"
    assert opened.manifest.graphs["generator"].int8 == ""
    assert int8.FILE not in opened.manifest.files
    made = onnx.load(str(opened.folder / "parser.int8.onnx"))
    assert {node.op_type for node in made.graph.node} == {"QuantizeLinear", "DequantizeLinear", "Conv", "Relu"}
    assert (opened.folder / "parser.onnx").read_bytes() == (recipe / "parser.onnx").read_bytes()
    (opened.folder / "parser.int8.onnx").write_bytes(b"damaged")
    open_bundle(build_default_bundle())


def test_reaches_of_another_network_are_refused(recipe: Path, empty_cache: Path) -> None:
    with_reaches(recipe, "gone")
    with pytest.raises(BundleError, match="measure the reaches anew"):
        build_default_bundle()
    assert list((empty_cache / "bundles").iterdir()) == []
