"""A bundle is checked before anything of it is used, and what does not fit is refused by name."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.bundle import (
    GraphSpec,
    Manifest,
    load_directions,
    manifest_document,
    open_bundle,
    parse_manifest,
    read_manifest,
)
from engine.direction_file import WHOLE_CROP, Direction, write_directions
from engine.errors import BundleError
from tests.blank_bundle import DIM, ROWS, blank_directions, blank_manifest, write_blank_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_blank_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_good_bundle_opens(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.manifest.former_rows == 2
    assert opened.graph_path("generator") == bundle / "generator.onnx"
    assert list(opened.directions) == ["age", "smile"]
    smile = opened.directions["smile"]
    assert (smile.label, smile.lo, smile.hi, smile.zone) == ("Smile", -1.5, 2.0, WHOLE_CROP)
    np.testing.assert_array_equal(smile.direction, np.ones((ROWS, DIM), np.float32))


def test_directions_cannot_be_written_to(bundle: Path) -> None:
    direction = open_bundle(bundle).directions["age"].direction
    with pytest.raises(ValueError, match="read-only"):
        direction[0, 0] = 1


def test_the_manifest_survives_its_document() -> None:
    manifest = replace(blank_manifest(), recipe="f00d", files={"generator.onnx": "00"})
    document = json.loads(json.dumps(manifest_document(manifest)))
    assert parse_manifest(document, "here") == manifest


@pytest.mark.parametrize("name", ["generator.onnx", "parser.onnx", "directions.npz"])
def test_a_flipped_byte_is_refused(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} has sha256 \w+, but the manifest expects"):
        open_bundle(bundle)


def test_a_missing_file_is_refused(bundle: Path) -> None:
    (bundle / "recurrent.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks recurrent\.onnx"):
        open_bundle(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "another"}', "\xff"])
def test_what_is_no_manifest_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError):
        open_bundle(bundle)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is no bundle: manifest\.json"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=1), "has version 1, but this program reads version 2"),
        (lambda d: d.update(version="1"), "has version '1'"),
        (lambda d: d.pop("noise"), "lacks the field 'noise'"),
        (lambda d: d.update(noise=[2, 4]), "wrong kind"),
        (lambda d: d.update(resolution="256"), "'256' where a whole number"),
        (lambda d: d.update(latent_rows=True), "True where a whole number"),
        (lambda d: d.update(graphs=[]), "wrong kind"),
        (lambda d: d.update(rows=[{"name": "conv1", "resolution": 4}]), "lists 1 rows, but latent_rows is 3"),
        (lambda d: d.update(former_rows=9), "former_rows 9"),
        (lambda d: d["crop"].update(size=16), "crop of 16 px"),
        (lambda d: d["crop"].update(template="arcface"), "another crop"),
        (lambda d: d.update(image_range=[0, 1]), "image range"),
        (lambda d: d["parser"].update(face_classes=["nose"]), "nose"),
        (lambda d: d["parser"].update(face_classes=[]), "face_classes"),
        (lambda d: d["parser"].update(occluder_classes=["hand"]), "occluder_classes"),
        (lambda d: d["parser"].update(occluder_classes=["skin"]), "occluder_classes"),
        (lambda d: d["graphs"].pop("parser"), "no graph 'parser'"),
        (lambda d: d["graphs"]["recurrent"]["inputs"].pop("h"), "graph 'recurrent' has inputs"),
        (lambda d: d["graphs"]["generator"]["outputs"].update(image=["B", 3, 4, 4]), "graph 'generator' has outputs"),
        (lambda d: d["graphs"]["generator"].update(file="../../secret.onnx"), "the name of a file"),
        (lambda d: d["files"].update({"/etc/passwd": "00"}), "the name of a file"),
        (lambda d: d["files"].pop("directions.npz"), r"no sha256 for directions\.npz"),
        (lambda d: d.update(generator_id="another"), r"belongs to generator abc123, but another was expected"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_a_bundle_may_have_a_refiner_of_the_right_shapes(bundle: Path) -> None:
    def add(document: dict[str, Any]) -> None:
        image, parser = ["B", 3, 8, 8], document["graphs"]["parser"]["file"]
        shapes = {"inputs": {"crop": image, "inversion": image}, "outputs": {"dws": ["B", ROWS, DIM]}}
        document["graphs"]["refiner"] = {"file": parser, **shapes}

    edit_manifest(bundle, add)
    assert read_manifest(bundle).graphs["refiner"].outputs == {"dws": ("B", ROWS, DIM)}
    edit_manifest(bundle, lambda document: document["graphs"]["refiner"]["inputs"].pop("inversion"))
    with pytest.raises(BundleError, match="graph 'refiner' has inputs"):
        read_manifest(bundle)


def test_one_network_may_serve_both_encoders(bundle: Path) -> None:
    def share(document: dict[str, Any]) -> None:
        document["graphs"]["encoder"] = document["graphs"]["encoder_anchor"]

    edit_manifest(bundle, share)
    manifest = read_manifest(bundle)
    assert manifest.graphs["encoder"] == GraphSpec("encoder_anchor.onnx", {"crop": ("B", 3, 8, 8)}, {"ws": ("B", 3, 4)})


def write_and_load(path: Path, directions: list[Direction], manifest: Manifest) -> object:
    write_directions(path, directions, manifest.generator_id)
    return load_directions(path, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": np.ones((ROWS + 1, DIM), np.float32)}, r"smile\.direction is \[4, 4\], but \[3, 4\]"),
        ({"direction": np.full((ROWS, DIM), np.nan, np.float32)}, r"float32 \[3, 4\], but finite"),
        ({"lo": 0.5}, r"lo <= 0 <= hi"),
        ({"hi": np.inf}, r"lo <= 0 <= hi"),
        ({"zone": (0.7, 0.3)}, r"smile\.zone is \[0\.7 0\.3\]"),
        ({"zone": (0.1, 0.5, 0.9)}, r"0 <= top < bottom <= 1 were expected"),
        ({"shift": (0.0, np.nan)}, r"smile\.shift is \[ 0\. nan\]"),
        ({"shift": (1.5, 0.0)}, r"two numbers from -1 to 1 were expected"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        write_and_load(tmp_path / "directions.npz", [replace(blank_directions()[0], **change)], blank_manifest())


def test_all_that_a_direction_says_is_kept(tmp_path: Path) -> None:
    said = {"face": False, "hair": False, "zone": (0.25, 0.5), "shift": (0.5, -0.25)}
    written = replace(
        blank_directions()[0], **said, takes_off="glasses", outline=False, eyes=False, mouth=False, reshapes=False
    )
    found = write_and_load(tmp_path / "directions.npz", [written], blank_manifest())
    assert isinstance(found, Mapping)
    assert replace(found["smile"], direction=written.direction) == written
    np.testing.assert_array_equal(found["smile"].direction, written.direction)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_directions_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "directions.npz"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read as directions"):
        load_directions(path, blank_manifest())


def test_directions_never_unpickle(tmp_path: Path) -> None:
    path = tmp_path / "directions.npz"
    np.savez(path, generator_id=np.array("abc123"), **{"smile.direction": np.array([{}], dtype=object)})
    with pytest.raises(BundleError, match="cannot be read as directions"):
        load_directions(path, blank_manifest())
