"""The default bundle, built on the user's machine: our committed recipe plus the pinned third-party weights.

A recipe is a bundle folder whose ONNX graphs hold our own tensors inline and refer to third-party ones by
location, offset and length in a pinned asset (ONNX external data), so that originals are never committed. What
another graph of the recipe holds already is a reference into that.
Building inlines those tensors and writes a complete, verified bundle into the cache, whole or not at all.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from engine import int8
from engine.assets import ASSETS, Asset, asset_path, cache_folder, sha256_of
from engine.bundle import MANIFEST, Manifest, manifest_document, open_bundle, read_manifest, verify_files
from engine.errors import AssetMissing, BundleError
from engine.graphs import replace_nodes

BUILD_COMMAND = "rigid-live assets build"
DEFAULT = "default"

log = logging.getLogger(__name__)


def bundle_path(name_or_dir: str) -> Path:
    """The folder of a bundle: a folder as it is, `default` built into the cache when it is not there or is stale, or
    the bundle of that name that was built into the cache before.

    Files are not hashed here; `open_bundle` does that. Raises BundleError when there is none of these, and
    AssetMissing when the default bundle must be built and its third-party weights are not in the cache.
    """
    folder = Path(name_or_dir)
    if name_or_dir == DEFAULT:
        built = _default_folder()
        fresh = _built_from(built) == hash_recipe(recipe_folder(DEFAULT))
        return built if fresh else build_default_bundle()
    if folder.is_dir():
        return folder
    built = cache_folder() / "bundles" / name_or_dir
    if folder.name == name_or_dir and built.is_dir():
        return built
    raise BundleError(f"no bundle {name_or_dir!r}: neither {DEFAULT!r} nor a folder with a {MANIFEST}")


def build_default_bundle(recipe: Path | None = None) -> Path:
    """Builds the default bundle into the cache and returns its folder; no work when the one there is fresh.

    recipe: the recipe's folder, by default the one that ships with the program. A bundle is fresh when it
    records this recipe's hash and its files are intact. Raises BundleError for a damaged recipe and AssetMissing
    without its weights.
    """
    recipe = recipe or recipe_folder(DEFAULT)
    built = _default_folder()
    manifest = read_manifest(recipe)
    recipe_hash = hash_recipe(recipe)
    if _built_from(built) == recipe_hash and _intact(built):
        return built
    verify_files(recipe, manifest)
    log.info("building the default bundle from %s", recipe)
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=built.parent) as temporary:
        fresh = Path(temporary) / DEFAULT
        _write_built(recipe, manifest, recipe_hash, fresh)
        open_bundle(fresh)
        _swap_in(fresh, built, Path(temporary) / "replaced")
    return built


def recipe_folder(name: str) -> Path:
    """Where the recipe of that name ships: `models/bundles/NAME`, found as package data."""
    return Path(str(files("models"))) / "bundles" / name


def hash_recipe(recipe: Path) -> str:
    """The sha256 that stands for a recipe: of its manifest, which holds the sha256 of everything else."""
    try:
        return sha256_of(recipe / MANIFEST)
    except OSError as error:
        raise BundleError(f"{recipe} is no recipe: {MANIFEST} cannot be read ({error.strerror})") from error


def _default_folder() -> Path:
    return cache_folder() / "bundles" / DEFAULT


def _built_from(built: Path) -> str:
    """The recipe hash that a built bundle records; empty when there is no readable bundle."""
    try:
        return read_manifest(built).recipe
    except BundleError:
        return ""


def _intact(built: Path) -> bool:
    try:
        verify_files(built, read_manifest(built))
    except BundleError:
        return False
    return True


def _write_built(recipe: Path, manifest: Manifest, recipe_hash: str, folder: Path) -> None:
    """Writes the complete bundle into a new folder: graphs with their weights inlined, and those that the recipe knows
    the reaches of in int8 as well; the rest as it is."""
    folder.mkdir()
    names = set(manifest.files) - {int8.FILE}
    for name in names:
        if Path(name).suffix == ".onnx":
            inline_assets(recipe / name, folder / name)
        else:
            shutil.copyfile(recipe / name, folder / name)
    written = _write_int8(recipe, folder) if int8.FILE in manifest.files else {}
    specs = {name: replace(spec, int8=written.get(spec.file, "")) for name, spec in manifest.graphs.items()}
    hashes = {name: sha256_of(folder / name) for name in sorted(names | set(written.values()))}
    document = manifest_document(replace(manifest, graphs=specs, files=hashes, recipe=recipe_hash))
    (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _write_int8(recipe: Path, folder: Path) -> Mapping[str, str]:
    """Writes the graphs in int8 beside those that they are made from; their names, by those of the others."""
    names = {}
    for file, reaches in int8.read_reaches(recipe / int8.FILE).items():
        if not (folder / file).is_file():
            raise BundleError(f"{recipe / int8.FILE} speaks of {file}, which the recipe has not")
        model = onnx.load(str(folder / file))
        names[file] = f"{Path(file).stem}.int8.onnx"
        onnx.save(int8.in_int8(model, reaches), str(folder / names[file]))
    return names


def inline_assets(source: Path, target: Path) -> None:
    """Copies an ONNX file with its weights plain: third-party ones from their pinned assets, ours dequantised.

    A file whose weights are plain is copied byte for byte. Raises AssetMissing when an asset is not cached and
    BundleError when the graph refers to a file that neither is an asset nor lies beside it, or beyond its end.
    """
    model = onnx.load(str(source), load_external_data=False)
    locations = set(_external_locations(model))
    if locations:
        _read_external(model, locations, source)
    if _carry_out(model) or locations:
        onnx.save(model, str(target))
    else:
        shutil.copyfile(source, target)


def _read_external(model: onnx.ModelProto, locations: set[str], source: Path) -> None:
    """Puts the bytes of pinned assets and of the recipe's graphs in the place of the references to them; errors as
    `inline_assets`."""
    with tempfile.TemporaryDirectory(prefix="rigid-live-") as folder:
        # onnx reads all external files from one folder and refuses links, so the assets are brought together.
        for location in locations:
            shutil.copyfile(_file_at(location, source.parent), Path(folder) / location)
        try:
            load_external_data_for_model(model, folder)
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            raise BundleError(f"{source} refers to third-party weights that cannot be read: {error}") from error


def _carry_out(model: onnx.ModelProto) -> bool:
    """Computes what a recipe says of its weights and drops those nodes; False when it says nothing.

    `Gather`: third-party weights whose channels are taken in another order. `DequantizeLinear` and `Mul`: our own,
    stored in int8 with a scale for each row and each column.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    left = []
    for node in model.graph.node:
        if node.op_type not in ("Gather", "DequantizeLinear", "Mul") or not all(name in weights for name in node.input):
            left.append(node)
            continue
        values, other = (numpy_helper.to_array(weights[name]) for name in node.input)
        if node.op_type == "Gather":
            made = np.take(values, other, helper.get_node_attr_value(node, "axis"))
        else:
            made = values.astype(np.float32) * (other if node.op_type == "Mul" else other[:, None])
        weights[node.output[0]] = numpy_helper.from_array(made, node.output[0])
    changed = len(left) < len(model.graph.node)
    replace_nodes(model, left, weights.values())
    return changed


def _external_locations(model: onnx.ModelProto) -> Iterator[str]:
    """The file names that a model's weights point to."""
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            yield next(entry.value for entry in tensor.external_data if entry.key == "location")


def _file_at(location: str, recipe: Path) -> Path:
    """The asset of that name, or the recipe's graph."""
    for row in ASSETS:
        if Path(row.member).name == location:
            return _cached(row)
    if Path(location).name == location and Path(location).suffix == ".onnx" and (recipe / location).is_file():
        return recipe / location
    raise BundleError(
        f"the recipe refers to weights in {location!r}, which is none of the pinned files and none of its graphs"
    )


def _cached(row: Asset) -> Path:
    try:
        return asset_path(row.name)
    except AssetMissing as error:
        raise AssetMissing(f"{error}, then `{BUILD_COMMAND}`") from error


def _swap_in(fresh: Path, built: Path, aside: Path) -> None:
    """Puts the fresh folder in the built one's place; both are on one file system, so each step is a rename."""
    if built.exists():
        os.replace(built, aside)
    os.replace(fresh, built)
