"""A bundle: a folder with `manifest.json`, ONNX graphs and `directions.npz`, checked before anything is run.

`read_manifest` parses and checks the manifest, `verify_files` every file's sha256, `load_directions` the
attributes; `open_bundle` does all three. What does not fit is refused with a BundleError that says what was
found and what was expected.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.assets import sha256_of
from engine.direction_file import DIRECTIONS, Direction, read_directions
from engine.errors import BundleError

FORMAT = "rigid-live-bundle"
VERSION = 2
MANIFEST = "manifest.json"
BATCH = "B"
"""The free axis in the shapes of a graph: the number of faces."""

Shape = tuple[int | str, ...]
Document = Mapping[str, Any]
"""A parsed JSON object."""


@dataclass(frozen=True)
class Row:
    """One row of W+: the layer it drives and that layer's resolution in px."""

    name: str
    resolution: int


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX graph: its file and the shapes of its named float32 inputs and outputs.

    int8: the file of the same graph with its heavy convolutions in int8; empty where there is none.
    """

    file: str
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    int8: str = ""


@dataclass(frozen=True)
class ParserSpec:
    """The face parser: its working size in px and its classes in order.

    face_classes: those that make up the face. occluder_classes: those of what is before it, such as a hand, which no
    edit may paint over; a parser may have none.
    """

    size: int
    classes: tuple[str, ...]
    face_classes: tuple[str, ...]
    occluder_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself; the fields are those of `manifest.json`.

    resolution: of the crop and the generated image, px. former_rows: the first rows of W+, which the encoders
    set on every frame; the latter ones stay with the anchor. noise: [C, 32, 32] of the noise map. h, c:
    [C, H, W] of the recurrent encoder's two states. generator_id: ties directions to the generator they were
    found in. files: sha256 of each file. recipe: hash of the recipe a bundle was built from, empty in a recipe.
    """

    name: str
    resolution: int
    latent_rows: int
    latent_dim: int
    former_rows: int
    rows: tuple[Row, ...]
    noise: tuple[int, int, int]
    h: tuple[int, int, int]
    c: tuple[int, int, int]
    crop_template: str
    crop_size: int
    image_range: tuple[float, float]
    parser: ParserSpec
    graphs: Mapping[str, GraphSpec]
    generator_id: str
    licence: str
    lineage: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its folder, what it says about itself, and its attributes by name."""

    folder: Path
    manifest: Manifest
    directions: Mapping[str, Direction]

    def graph_path(self, graph: str) -> Path:
        """The ONNX file of that graph."""
        return self.folder / self.manifest.graphs[graph].file


def open_bundle(folder: Path) -> Bundle:
    """Reads a bundle and verifies all of it; raises BundleError when anything is not as it should be."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    return Bundle(folder, manifest, load_directions(folder / DIRECTIONS, manifest))


def read_manifest(folder: Path) -> Manifest:
    """Parses and checks `manifest.json`; raises BundleError naming what was found and what was expected."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{folder} is no bundle: {MANIFEST} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    manifest = parse_manifest(document, str(path))
    _check(manifest, str(path))
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compares the sha256 of every file of the manifest; raises BundleError at the first that differs."""
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder} lacks {name}, which its manifest names")
        found = sha256_of(path)
        if found != expected:
            raise BundleError(
                f"{path} has sha256 {found}, but the manifest expects {expected}; the file is damaged: "
                f"export the bundle anew (the default one: `rigid-live assets build`)"
            )


def load_directions(path: Path, manifest: Manifest) -> Mapping[str, Direction]:
    """The attributes of a bundle, by name in alphabetical order.

    Raises BundleError for what `read_directions` refuses, and for a direction of another shape than the bundle's codes.
    """
    directions, shape = read_directions(path, manifest.generator_id), (manifest.latent_rows, manifest.latent_dim)
    for name, found in directions.items():
        if found.direction.shape != shape:
            raise BundleError(
                f"{path}: {name}.direction is {list(found.direction.shape)}, but {list(shape)} was expected"
            )
    return directions


def parse_manifest(document: Any, where: str) -> Manifest:
    """Turns the parsed JSON into a Manifest; BundleError for another format or version, or a field of the wrong kind.

    where: the file's name for messages.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BundleError(f"{where} is no bundle manifest: a JSON object with format {FORMAT!r} was expected")
    if document.get("version") != VERSION:
        raise BundleError(
            f"{where} has version {document.get('version')!r}, but this program reads version {VERSION}; "
            f"export the bundle anew"
        )
    try:
        return _manifest(document)
    except KeyError as error:
        raise BundleError(f"{where} lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{where} holds a field of the wrong kind: {error}") from error


def _manifest(document: Document) -> Manifest:
    parser, crop = document["parser"], document["crop"]
    low, high = document["image_range"]
    return Manifest(
        name=_text(document["name"]),
        resolution=_count(document["resolution"]),
        latent_rows=_count(document["latent_rows"]),
        latent_dim=_count(document["latent_dim"]),
        former_rows=_count(document["former_rows"]),
        rows=tuple(Row(_text(row["name"]), _count(row["resolution"])) for row in document["rows"]),
        noise=_three(document["noise"]),
        h=_three(document["state"]["h"]),
        c=_three(document["state"]["c"]),
        crop_template=_text(crop["template"]),
        crop_size=_count(crop["size"]),
        image_range=(float(low), float(high)),
        parser=ParserSpec(
            _count(parser["size"]),
            tuple(map(_text, parser["classes"])),
            tuple(map(_text, parser["face_classes"])),
            tuple(map(_text, parser.get("occluder_classes", ()))),
        ),
        graphs=MappingProxyType({str(name): _graph(spec) for name, spec in document["graphs"].items()}),
        generator_id=_text(document["generator_id"]),
        licence=_text(document["licence"]),
        lineage=MappingProxyType({str(key): _text(text) for key, text in document["lineage"].items()}),
        files=MappingProxyType({_file_name(name): _text(digest) for name, digest in document["files"].items()}),
        recipe=str(document.get("recipe", "")),
    )


def _graph(spec: Document) -> GraphSpec:
    int8 = _file_name(spec["int8"]) if "int8" in spec else ""
    return GraphSpec(_file_name(spec["file"]), _shapes(spec["inputs"]), _shapes(spec["outputs"]), int8)


def _shapes(shapes: Document) -> Mapping[str, Shape]:
    return MappingProxyType({str(name): tuple(map(_axis, shape)) for name, shape in shapes.items()})


def _axis(axis: object) -> int | str:
    return BATCH if axis == BATCH else _count(axis)


def _three(numbers: list[object]) -> tuple[int, int, int]:
    first, second, third = map(_count, numbers)
    return first, second, third


def _count(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{number!r} where a whole number from 1 was expected")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where a text was expected")
    return value


def _file_name(name: object) -> str:
    # A manifest is data from outside: it may name files of its own folder only.
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} where the name of a file in the bundle's folder was expected")
    return name


def expected_graphs(manifest: Manifest) -> Mapping[str, tuple[Mapping[str, Shape], Mapping[str, Shape]]]:
    """The inputs and outputs every graph must have, from the manifest's numbers."""
    image: Shape = (BATCH, 3, manifest.resolution, manifest.resolution)
    ws: Shape = (BATCH, manifest.latent_rows, manifest.latent_dim)
    former: Shape = (BATCH, manifest.former_rows, manifest.latent_dim)
    noise: Shape = (BATCH, *manifest.noise)
    h: Shape = (BATCH, *manifest.h)
    c: Shape = (BATCH, *manifest.c)
    logits: Shape = (BATCH, len(manifest.parser.classes), manifest.parser.size, manifest.parser.size)
    crops = dict.fromkeys(("crop_prev", "crop", "inversion_prev", "edit_prev"), image)
    return {
        "generator": ({"ws": ws, "noise": noise}, {"image": image}),
        "encoder_anchor": ({"crop": image}, {"ws": ws}),
        "encoder": ({"crop": image}, {"ws": former}),
        "recurrent": (
            {**crops, "h": h, "c": c},
            {"dws": former, "noise": noise, "h_out": h, "c_out": c},
        ),
        "parser": ({"crop": image}, {"logits": logits}),
    }


def optional_graphs(manifest: Manifest) -> Mapping[str, tuple[Mapping[str, Shape], Mapping[str, Shape]]]:
    """The same of the graphs that a bundle may have: `refiner` says what the encoder missed of a person."""
    image: Shape = (BATCH, 3, manifest.resolution, manifest.resolution)
    ws: Shape = (BATCH, manifest.latent_rows, manifest.latent_dim)
    return {"refiner": ({"crop": image, "inversion": image}, {"dws": ws})}


def _check(manifest: Manifest, where: str) -> None:
    """Raises BundleError when the manifest's numbers contradict each other."""
    if len(manifest.rows) != manifest.latent_rows:
        raise BundleError(f"{where} lists {len(manifest.rows)} rows, but latent_rows is {manifest.latent_rows}")
    if manifest.former_rows > manifest.latent_rows:
        raise BundleError(f"{where} has former_rows {manifest.former_rows}, more than latent_rows")
    if manifest.crop_size != manifest.resolution:
        raise BundleError(f"{where} has a crop of {manifest.crop_size} px, but a generator of {manifest.resolution} px")
    if manifest.crop_template != "ffhq" or manifest.image_range != (-1.0, 1.0):
        raise BundleError(f"{where} has another crop or image range than this program's: ffhq and [-1, 1]")
    unknown = set(manifest.parser.face_classes) - set(manifest.parser.classes)
    if unknown or not manifest.parser.face_classes:
        raise BundleError(f"{where} has face_classes {sorted(unknown)} that are not among the parser's classes")
    hiding = set(manifest.parser.occluder_classes)
    if hiding & set(manifest.parser.face_classes) or not hiding <= set(manifest.parser.classes):
        raise BundleError(f"{where} has occluder_classes {sorted(hiding)}; classes outside the face were expected")
    _check_graphs(manifest, where)
    wanted = {spec.file for spec in manifest.graphs.values()} | {DIRECTIONS}
    wanted |= {spec.int8 for spec in manifest.graphs.values() if spec.int8}
    if not wanted <= manifest.files.keys():
        raise BundleError(f"{where} has no sha256 for {', '.join(sorted(wanted - manifest.files.keys()))}")


def _check_graphs(manifest: Manifest, where: str) -> None:
    there = {name: shapes for name, shapes in optional_graphs(manifest).items() if name in manifest.graphs}
    for name, (inputs, outputs) in {**expected_graphs(manifest), **there}.items():
        spec = manifest.graphs.get(name)
        if spec is None:
            raise BundleError(f"{where} has no graph {name!r}; the graphs it has are {', '.join(manifest.graphs)}")
        # One network may serve both encoders: the engine then takes the former rows of its answer.
        accepted = [outputs]
        if name == "encoder":
            accepted.append(expected_graphs(manifest)["encoder_anchor"][1])
        if dict(spec.inputs) != inputs:
            raise BundleError(f"{where}: graph {name!r} has inputs {dict(spec.inputs)}, but {inputs} were expected")
        if dict(spec.outputs) not in accepted:
            raise BundleError(f"{where}: graph {name!r} has outputs {dict(spec.outputs)}, but {outputs} were expected")


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    """The manifest as the JSON object that `parse_manifest` reads back to an equal one."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": manifest.name,
        "resolution": manifest.resolution,
        "latent_rows": manifest.latent_rows,
        "latent_dim": manifest.latent_dim,
        "former_rows": manifest.former_rows,
        "rows": [{"name": row.name, "resolution": row.resolution} for row in manifest.rows],
        "noise": list(manifest.noise),
        "state": {"h": list(manifest.h), "c": list(manifest.c)},
        "crop": {"template": manifest.crop_template, "size": manifest.crop_size},
        "image_range": list(manifest.image_range),
        "parser": {
            "size": manifest.parser.size,
            "classes": list(manifest.parser.classes),
            "face_classes": list(manifest.parser.face_classes),
            "occluder_classes": list(manifest.parser.occluder_classes),
        },
        "graphs": {
            name: {"file": spec.file, "inputs": _lists(spec.inputs), "outputs": _lists(spec.outputs)}
            | ({"int8": spec.int8} if spec.int8 else {})
            for name, spec in manifest.graphs.items()
        },
        "generator_id": manifest.generator_id,
        "licence": manifest.licence,
        "lineage": dict(manifest.lineage),
        "files": dict(manifest.files),
    }
    return document | ({"recipe": manifest.recipe} if manifest.recipe else {})


def _lists(shapes: Mapping[str, Shape]) -> dict[str, list[int | str]]:
    return {name: list(shape) for name, shape in shapes.items()}
