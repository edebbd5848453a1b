"""Writes bundles and recipes: graphs, directions and a manifest with the sha256 of each file."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from engine.assets import sha256_of
from engine.bundle import MANIFEST, Manifest, manifest_document, open_bundle
from engine.direction_file import DIRECTIONS, Direction, write_directions


def write_bundle(
    folder: Path, manifest: Manifest, graphs: Mapping[str, Path], directions: Iterable[Direction]
) -> Manifest:
    """Writes a bundle folder, whole or not at all, and returns the manifest as written; replaces an older one.

    manifest: `files` is filled in here. graphs: where each graph's ONNX file is now; it is copied under the
    name that the manifest gives it (two graphs may share one file). Raises BundleError when what was written
    does not pass the checks that the engine makes.
    """
    assert graphs.keys() == manifest.graphs.keys(), "one ONNX file a graph of the manifest"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / folder.name
        fresh.mkdir()
        for name, spec in manifest.graphs.items():
            shutil.copyfile(graphs[name], fresh / spec.file)
        write_directions(fresh / DIRECTIONS, directions, manifest.generator_id)
        written = write_manifest(fresh, manifest)
        open_bundle(fresh)
        if folder.exists():
            os.replace(folder, Path(temporary) / "replaced")
        os.replace(fresh, folder)
    return written


def write_manifest(folder: Path, manifest: Manifest, others: Iterable[str] = ()) -> Manifest:
    """Hashes the folder's graphs and directions, writes `manifest.json`, and returns the manifest as written.

    others: further files that belong to it; those that it names already stay as long as they lie there. Of use alone
    when a file of an existing bundle or recipe was replaced.
    """
    there = {name for name in manifest.files if (folder / name).is_file()}
    names = sorted({spec.file for spec in manifest.graphs.values()} | there | {DIRECTIONS, *others})
    written = replace(manifest, files={name: sha256_of(folder / name) for name in names})
    temporary = folder / f".{MANIFEST}.part"
    try:
        temporary.write_text(json.dumps(manifest_document(written), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / MANIFEST)
    finally:
        temporary.unlink(missing_ok=True)
    return written
