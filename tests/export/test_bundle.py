"""What is written is what the engine reads, whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.assets import sha256_of
from engine.bundle import open_bundle
from engine.errors import BundleError
from export.bundle import write_bundle
from tests.blank_bundle import blank_directions, blank_manifest, write_blank_bundle


def test_a_written_bundle_reads_back_equal(tmp_path: Path) -> None:
    written = write_blank_bundle(tmp_path / "tiny")
    opened = open_bundle(tmp_path / "tiny")
    assert opened.manifest == written
    assert opened.manifest.files.keys() == {f"{name}.onnx" for name in written.graphs} | {"directions.npz"}
    for name, digest in written.files.items():
        assert sha256_of(tmp_path / "tiny" / name) == digest
    for direction in blank_directions():
        read = opened.directions[direction.name]
        assert (read.label, read.lo, read.hi) == (direction.label, direction.lo, direction.hi)
        assert (read.face, read.hair) == (direction.face, direction.hair)
        assert (read.direction == direction.direction).all()


def test_a_bundle_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    write_blank_bundle(tmp_path / "tiny")
    (tmp_path / "tiny" / "left over").touch()
    write_blank_bundle(tmp_path / "tiny")
    assert not (tmp_path / "tiny" / "left over").exists()


def test_a_bundle_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    manifest = replace(blank_manifest(), former_rows=1)
    graphs = dict.fromkeys(manifest.graphs, tmp_path / "graph.onnx")
    (tmp_path / "graph.onnx").write_bytes(b"any")
    with pytest.raises(BundleError, match="graph"):
        write_bundle(tmp_path / "tiny", manifest, graphs, blank_directions())
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_the_manifest_is_readable_text(tmp_path: Path) -> None:
    write_blank_bundle(tmp_path / "tiny")
    document = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert (document["format"], document["version"]) == ("rigid-live-bundle", 2)
    assert document["graphs"]["generator"]["inputs"]["ws"] == ["B", 3, 4]
