"""One pack: a .npz file of aligned face crops as JPEG, small enough to be moved about, and a file of their flow.

`pack-NNN.npz` holds uint8 arrays and numbers only: `about` (JSON: name, split and length of each sequence), `jpeg` (all
files one after another), `jpeg_ends`, `frames` and `crop_from_frame`, one row a frame. `flow-NNN.npz` beside it holds
`next` and `previous`, one row for each pair of neighbouring frames of a sequence.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import SinkError, SourceError
from engine.geometry import CROP_SIZE

PACK_BYTES = 32_000_000
"""Largest pack."""

PACK_PAIRS = 900
"""Most pairs of neighbouring frames in a pack, so that its flow is not larger either."""

FLOW_SIZE = 64
JPEG_QUALITY = 95
_FRAME_BYTES, _SEQUENCE_BYTES, _FILE_BYTES = 64, 1024, 4096
"""What a frame, a sequence and a file take besides the JPEG data, at most."""

U8 = NDArray[np.uint8]
Flow = NDArray[np.float16]


class JpegCrops:
    """Aligned crops that are decoded when they are asked for: a tenth of the memory of an array.

    As an array uint8 RGB [T, 256, 256, 3] it gives one crop for an index and an array for a slice.
    """

    def __init__(self, files: Sequence[bytes], name: str) -> None:
        self._files = tuple(files)
        self._name = name

    @property
    def files(self) -> tuple[bytes, ...]:
        """The encoded crops."""
        return self._files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> U8: ...
    @overload
    def __getitem__(self, index: slice) -> U8: ...
    def __getitem__(self, index: int | slice) -> U8:
        if isinstance(index, slice):
            chosen = [self[n] for n in range(*index.indices(len(self)))]
            return np.stack(chosen) if chosen else np.empty((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        return decode_crop(self._files[index], f"crop {index} of {self._name}")


@dataclass(frozen=True)
class ClipSequence:
    """Aligned crops of one face in order; a still is a sequence of one.

    name: of the clip, with "#2" for its second stretch. crops: uint8 RGB [T, 256, 256, 3], an array or the like of it.
    crop_from_frame: float64 [T, 2, 3]. frames: index of each frame in the clip, int64 [T]. flow_next: of each frame but
    the last to the one after it, float16 [T-1, 2, 64, 64] in pixels of the 256 px crop; flow_previous: of each frame
    but the first to the one before it, so that row t of both belongs to the frames t and t + 1. None when not prepared.
    """

    name: str
    crops: JpegCrops | U8
    crop_from_frame: NDArray[np.float64]
    frames: NDArray[np.int64] | None = None
    flow_next: Flow | None = None
    flow_previous: Flow | None = None


@dataclass(frozen=True)
class PackedSequence:
    """A sequence as it lies in a pack: its part of the data, and its crops as JPEG files."""

    name: str
    split: str
    frames: NDArray[np.int64]
    crop_from_frame: NDArray[np.float64]
    files: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes that it takes in a pack, at most."""
        return _SEQUENCE_BYTES + sum(len(file) + _FRAME_BYTES for file in self.files)

    @property
    def pairs(self) -> int:
        """Pairs of neighbouring frames."""
        return len(self.files) - 1

    def cut(self, start: int, end: int) -> "PackedSequence":
        """The frames from `start` on and before `end`."""
        part = slice(start, end)
        return PackedSequence(self.name, self.split, self.frames[part], self.crop_from_frame[part], self.files[part])


def encode_crop(crop_bgr: U8) -> bytes:
    """uint8 BGR [256, 256, 3] as JPEG with full colour resolution."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", crop_bgr, options)[1].tobytes()


def decode_crop(file: bytes, name: str) -> U8:
    """uint8 RGB [256, 256, 3]. Raises SourceError, with `name`, when that is not what the file holds."""
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR) if file else None
    if image is None or image.shape != (CROP_SIZE, CROP_SIZE, 3):
        raise SourceError(f"{name} is not a JPEG of {CROP_SIZE} x {CROP_SIZE} pixels; prepare the data again")
    return np.ascontiguousarray(image[..., ::-1])


def fit_into_packs(sequence: PackedSequence) -> list[PackedSequence]:
    """`sequence`, cut where it is too long for one pack."""
    pieces, start, size = [], 0, _FILE_BYTES + _SEQUENCE_BYTES
    for end, file in enumerate(sequence.files):
        grown = size + len(file) + _FRAME_BYTES
        if end > start and (grown > PACK_BYTES or end - start > PACK_PAIRS):
            pieces.append(sequence.cut(start, end))
            start, grown = end, _FILE_BYTES + _SEQUENCE_BYTES + len(file) + _FRAME_BYTES
        size = grown
    return [*pieces, sequence.cut(start, len(sequence.files))]


@dataclass
class OpenPack:
    """A pack that is being filled."""

    sequences: list[PackedSequence] = field(default_factory=list)
    size: int = _FILE_BYTES
    pairs: int = 0

    def has_room(self, more: Sequence[PackedSequence]) -> bool:
        """Whether all of `more` still goes in."""
        size, pairs = sum(s.size for s in more), sum(s.pairs for s in more)
        return self.size + size <= PACK_BYTES and self.pairs + pairs <= PACK_PAIRS

    def add(self, sequence: PackedSequence) -> None:
        """Put one more in."""
        self.sequences.append(sequence)
        self.size += sequence.size
        self.pairs += sequence.pairs


def write_pack(path: Path, sequences: Sequence[PackedSequence]) -> None:
    """Write a pack under a temporary name first. Raises SinkError when it cannot be written."""
    about = [{"name": s.name, "split": s.split, "frames": len(s.files)} for s in sequences]
    files = [file for sequence in sequences for file in sequence.files]
    save_arrays(
        path,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        jpeg_ends=np.cumsum([len(file) for file in files], dtype=np.int64),
        frames=np.concatenate([s.frames for s in sequences]),
        crop_from_frame=np.concatenate([s.crop_from_frame for s in sequences]),
    )


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """`np.savez`, so that `path` is either old or complete. Raises SinkError when it cannot be written."""
    partial = path.with_name(path.stem + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        raise SinkError(f"{path} cannot be written ({error.strerror or error}); what is complete is kept") from error
    finally:
        partial.unlink(missing_ok=True)


def read_pack(path: Path) -> list[PackedSequence]:
    """The sequences of a pack, still encoded. Raises SourceError when it is none."""
    arrays = load_arrays(path, ("about", "jpeg", "jpeg_ends", "frames", "crop_from_frame"))
    try:
        about = json.loads(arrays["about"].tobytes())
        ends = arrays["jpeg_ends"]
        data = arrays["jpeg"].tobytes()
        files = [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        if not sum(row["frames"] for row in about) == len(files) == len(arrays["frames"]):
            raise ValueError("its sequences do not add up to its frames")
        rows, at = [], 0
        for row in about:
            part = slice(at, at := at + int(row["frames"]))
            place = arrays["crop_from_frame"][part]
            rows.append(PackedSequence(row["name"], row["split"], arrays["frames"][part], place, tuple(files[part])))
        return rows
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is not a pack of face crops ({error}); prepare the data again") from error


def load_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays of a .npz file; nothing in it is executed. Raises SourceError when it lacks one or cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} cannot be read as prepared data ({error}); prepare it again") from error
