"""What engine files were built from and for: `engines.json`, beside the engines of a bundle that was exported.

A serialized engine says nothing that can be read without a GPU, and running one that does not fit can crash. So the
fingerprint tells whether a file is whole and ours, and whether this machine may run it, before anything is loaded.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.errors import BundleError

FILE = "engines.json"
FORMAT = "rigid-live-engines"
VERSION = 1
BUILD_COMMAND = "rigid-live export BUNDLE --to tensorrt --out DIR"

PortShape = tuple[int, ...]
"""The shape of an input or output of a parsed network; the free batch axis is -1."""


@dataclass(frozen=True)
class Port:
    """An input or output: its element type in the library's words, and its shape."""

    type: str
    shape: PortShape


@dataclass(frozen=True)
class EngineRecord:
    """One engine file. source_sha256: of the ONNX file of the bundle; layers, inputs, outputs: of the parsed network;
    batches: smallest, preferred and largest batch size; size_bytes, sha256: of the engine file.
    """

    source_sha256: str
    layers: int
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    batches: tuple[int, int, int]
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Fingerprint:
    """Where the engines of a folder come from.

    library, version: the Python module that built them and can run them. targets: compute capabilities, lowest first.
    gpu: name and driver of the card they were built on; empty for engines that are built without one. bundle_sha256:
    of the source bundle's manifest. engines: by file name.
    """

    library: str
    version: str
    targets: tuple[str, ...]
    precision: str
    bundle_sha256: str
    engines: Mapping[str, EngineRecord]
    gpu: str = ""


def write_fingerprint(folder: Path, fingerprint: Fingerprint) -> Path:
    """Writes `engines.json`, under a temporary name first; returns its path."""
    document = {"format": FORMAT, "format_version": VERSION, **_plain(fingerprint)}
    temporary = folder / f".{FILE}.part"
    try:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, folder / FILE)
    finally:
        temporary.unlink(missing_ok=True)
    return folder / FILE


def read_fingerprint(folder: Path) -> Fingerprint:
    """Reads `engines.json`; raises BundleError when there is none or it is not what this program writes."""
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{folder} holds no engines ({FILE}: {error.strerror}); build them: {BUILD_COMMAND}"
        ) from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or (document.get("format"), document.get("format_version")) != (FORMAT, VERSION):
        raise BundleError(
            f"{path} is not a fingerprint that this program reads; build the engines anew: {BUILD_COMMAND}"
        )
    try:
        return _fingerprint(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} lacks a field or holds one of the wrong kind: {error}") from error


def capability(text: str) -> tuple[int, int]:
    """A compute capability as numbers that compare: "8.9" -> (8, 9). Raises ValueError."""
    major, minor = text.split(".")
    return int(major), int(minor)


def unfit(fingerprint: Fingerprint, version: str, target: str) -> str | None:
    """Why this library and card cannot run the engines; None when they may.

    version: of the library that is installed. target: the card's compute capability. Cards that are newer than every
    target are left to the library's own judgement.
    """
    if fingerprint.version != version:
        return f"was built by {fingerprint.library} {fingerprint.version}, but {version} is installed"
    card, targets = capability(target), [capability(text) for text in fingerprint.targets]
    too_old = card < min(targets)
    if too_old or (fingerprint.gpu and card not in targets):
        return f"was built for compute capability {', '.join(fingerprint.targets)}, but this card has {target}"
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int) else _plain(vars(value))


def _fingerprint(document: Mapping[str, Any]) -> Fingerprint:
    targets = tuple(str(text) for text in document["targets"])
    if not targets or min(map(capability, targets)) < (1, 0):
        raise ValueError("no targets")
    return Fingerprint(
        library=str(document["library"]),
        version=str(document["version"]),
        targets=targets,
        precision=str(document["precision"]),
        bundle_sha256=str(document["bundle_sha256"]),
        engines=MappingProxyType({str(name): _record(record) for name, record in document["engines"].items()}),
        gpu=str(document["gpu"]),
    )


def _record(record: Mapping[str, Any]) -> EngineRecord:
    low, preferred, high = map(int, record["batches"])
    return EngineRecord(
        source_sha256=str(record["source_sha256"]),
        layers=int(record["layers"]),
        inputs=_ports(record["inputs"]),
        outputs=_ports(record["outputs"]),
        batches=(low, preferred, high),
        size_bytes=int(record["size_bytes"]),
        sha256=str(record["sha256"]),
    )


def _ports(ports: Mapping[str, Any]) -> Mapping[str, Port]:
    return MappingProxyType({str(name): Port(str(p["type"]), tuple(map(int, p["shape"]))) for name, p in ports.items()})
