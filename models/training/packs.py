"""Data for training: packs of aligned crops, made once from clips and images and read as often as needed.

    stills, clips = prepared(folder, Split.TRAIN)        makes the packs in the cache folder when they are not there
    sequences = read_packs(folder, Split.TRAIN)          reads packs that lie in `folder`

`index.json` beside the packs says what is done, so that a second run makes only what is new. To train on another
machine the packs alone are enough: `--data` takes a folder of packs as well.
"""

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from tqdm import tqdm

from engine.errors import SinkError, SourceError, UsageError
from engine.geometry import CROP_SIZE
from models.evaluation.clips import open_tracker
from models.training.log import checkpoint_dir
from models.training.pack_files import (
    ClipSequence,
    JpegCrops,
    OpenPack,
    PackedSequence,
    encode_crop,
    fit_into_packs,
    load_arrays,
    read_pack,
    write_pack,
)
from models.training.pack_sources import Source, faces_of, find_sources
from models.training.splits import PARSING_IMAGES, load_splits

__all__ = [
    "ClipSequence",
    "JpegCrops",
    "default_folder",
    "long_enough",
    "prepare",
    "prepared",
    "prepared_at_128",
    "read_packs",
]

logger = logging.getLogger(__name__)

MAX_FRAMES_A_CLIP = 300
PACKS, INDEX = "pack-*.npz", "index.json"


def prepared(data: Path, split: str) -> tuple[JpegCrops, list[ClipSequence]]:
    """Stills and clips of `split`, from a folder of packs, or of clips and images.

    The latter are made into packs in the cache folder first. Raises UsageError and SourceError as `prepare` does.
    """
    if any(data.glob(PACKS)):
        folder = data
    else:
        folder = default_folder(data)
        prepare(data, folder)
    sequences = read_packs(folder, split)
    single = [s.crops for s in sequences if len(s.crops) == 1 and isinstance(s.crops, JpegCrops)]
    stills = [file for crops in single for file in crops.files]
    return JpegCrops(stills, f"the stills in {folder}"), [s for s in sequences if len(s.crops) > 1]


def prepared_at_128(data: Path, split: str) -> tuple[JpegCrops, list[ClipSequence]]:
    """What `prepared` gives, and of a data folder that `splits.toml` describes the aligned stills that packs leave out:
    the parser's photographs, and those smaller than a crop, enlarged. For what looks at 128 px and no closer."""
    stills, clips = prepared(data, split)
    table, more = load_splits(), []
    for folder in table.rules:
        for path in table.stills(data, folder, split) if (data / folder).is_dir() else ():
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None and image.shape[0] < CROP_SIZE:
                more.append(encode_crop(cv2.resize(image, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC)))
            elif folder == PARSING_IMAGES:
                more.append(path.read_bytes())
    return JpegCrops((*stills.files, *more), f"the stills of {data}"), clips


def default_folder(data: Path) -> Path:
    """Where the packs of a data folder lie in the cache."""
    place = data.resolve()
    return checkpoint_dir("packs") / f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"


def read_packs(folder: Path, split: str) -> list[ClipSequence]:
    """The sequences of `split` in all packs of `folder`. Raises SourceError when there is no pack or a torn one."""
    index = folder / INDEX
    paths = [folder / name for name in _Index.load(folder).packs] if index.is_file() else sorted(folder.glob(PACKS))
    if not paths:
        raise SourceError(f"{folder} holds no packs; make them with `rigid-live train data --data DIR --out {folder}`")
    return [sequence for path in paths for sequence in _read(path, split)]


def flow_path(pack: Path) -> Path:
    """The file of a pack's flow."""
    return pack.with_name(pack.name.replace("pack-", "flow-", 1))


def _read(path: Path, split: str) -> Iterator[ClipSequence]:
    flows = load_arrays(flow_path(path), ("next", "previous")) if flow_path(path).is_file() else None
    at = 0
    for packed in read_pack(path):
        pairs = slice(at, at := at + len(packed.files) - 1)
        if packed.split == split:
            crops = JpegCrops(packed.files, f"{packed.name} in {path}")
            flow = (flows["next"][pairs], flows["previous"][pairs]) if flows else (None, None)
            yield ClipSequence(packed.name, crops, packed.crop_from_frame, packed.frames, *flow)


def long_enough(sequences: Sequence[ClipSequence], length: int) -> list[ClipSequence]:
    """Those of at least `length` frames. Raises UsageError, with the longest length there is, when there are none."""
    chosen = [sequence for sequence in sequences if len(sequence.crops) >= length]
    if not chosen:
        longest = max((len(sequence.crops) for sequence in sequences), default=0)
        raise UsageError(
            f"an episode has {length} frames, but the longest clip has {longest}; ask for shorter episodes"
        )
    return chosen


@dataclass
class _Index:
    """What a folder of packs holds. sources: size and count of sequences by name; people: part by person."""

    most: int
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    packs: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "_Index":
        """Raises SourceError when the file is not an index."""
        path = folder / INDEX
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(f"{path} cannot be read ({error}); remove the folder and prepare it again") from error

    def save(self, folder: Path) -> None:
        """Raises SinkError when it cannot be written."""
        partial = folder / f"{INDEX}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(vars(self), indent=1) + "\n", encoding="utf-8")
            partial.replace(folder / INDEX)
        except OSError as error:
            raise SinkError(f"{folder / INDEX} cannot be written ({error.strerror})") from error


def prepare(data: Path, out: Path, most: int = MAX_FRAMES_A_CLIP) -> int:
    """Make packs in `out` of all clips and images in `data` that are not in them yet; returns how many were new.

    most: frames of a clip, from its start. A source without a face is warned of and left out. Raises UsageError when
    `data` holds nothing, or nothing with a face, or is not what `out` was made from; SourceError when a file cannot be
    read; SinkError when a pack cannot be written. What was complete before stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        index = _begin(out, most)
        sources, index.people = find_sources(data, index.people)
        new = [source for source in sources if source.name not in index.sources]
        _check(index, sources, most, out)
        if new:
            _pack(new, out, index)
        if not any(row["sequences"] for row in index.sources.values()):
            raise UsageError(f"no face was found in any of the {len(sources)} clips and images of {data}")
    return len(new)


def _begin(out: Path, most: int) -> _Index:
    """The index of `out`. Raises UsageError when there are packs that no index lists: they are not ours to replace."""
    if (out / INDEX).is_file():
        return _Index.load(out)
    if any(out.glob(PACKS)):
        raise UsageError(f"{out} holds packs but no {INDEX}; choose another --out")
    index = _Index(most)
    index.save(out)
    return index


def _check(index: _Index, sources: Sequence[Source], most: int, out: Path) -> None:
    """Raises UsageError when what lies in `out` was made otherwise or from other files of the same names."""
    if index.most != most:
        raise UsageError(f"{out} has up to {index.most} frames a clip, not {most}; choose another --out")
    for source in sources:
        known = index.sources.get(source.name)
        if known and known["bytes"] != source.path.stat().st_size:
            raise UsageError(
                f"{source.path} is not the file that is in {out}; choose another --out or remove the folder"
            )


def _pack(sources: Sequence[Source], out: Path, index: _Index) -> None:
    tracker = open_tracker()
    packer = _Packer(out, index)
    with tqdm(sources, desc="faces", unit="file", disable=None) as bar:
        for source in bar:
            found = faces_of(source, tracker, index.most)
            if not found and not source.aligned:
                logger.warning("%s shows no face: left out", source.path)
            packer.add(source, found)
    packer.close()


class _Packer:
    """Fills packs. The index learns of sources and packs together, when the sources in them are complete."""

    def __init__(self, out: Path, index: _Index) -> None:
        self._out, self._index = out, index
        self._open = OpenPack()
        self._sources: dict[str, dict[str, int]] = {}
        self._written: list[str] = []
        for path in out.glob(PACKS):
            if path.name not in index.packs:
                path.unlink()  # of a run that did not come to list it

    def add(self, source: Source, sequences: Sequence[PackedSequence]) -> None:
        """Take up all that was found in a source."""
        pieces = [piece for sequence in sequences for piece in fit_into_packs(sequence)]
        if not self._open.has_room(pieces):
            self.close()
        for piece in pieces:
            if not self._open.has_room([piece]):
                self._write()
            self._open.add(piece)
        self._sources[source.name] = {"bytes": source.path.stat().st_size, "sequences": len(sequences)}

    def close(self) -> None:
        """Write what is open and list it."""
        self._write()
        self._index.sources |= self._sources
        self._index.packs += self._written
        self._sources, self._written = {}, []
        self._index.save(self._out)

    def _write(self) -> None:
        if not self._open.sequences:
            return
        name = f"pack-{len(self._index.packs) + len(self._written):03d}.npz"
        write_pack(self._out / name, self._open.sequences)
        self._open = OpenPack()
        self._written.append(name)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process prepares data in `folder`; the processes of one training start together."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
