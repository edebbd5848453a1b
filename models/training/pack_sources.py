"""What packs are made of: clips and images in a folder, their parts (train, validation, test), and their faces.

The data folder that `splits.toml` describes is divided as that table says; its stills are aligned already and are taken
as they are. In any other folder all clips and images count, sub-folders included. There a person is a sub-folder of it,
or a file that lies directly in it; of every ten people, in alphabetical order, the second is held out for validation
and the others are for training. (One person alone is for training.) People who come later are dealt after the ones that
are there, so that nobody changes sides.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import SourceError, UsageError
from engine.geometry import CROP_SIZE, align
from engine.tracking import FaceTrack, Tracker
from models.evaluation.clips import VIDEO_SUFFIXES, read_frames
from models.training.pack_files import PackedSequence, encode_crop
from models.training.splits import Split, load_splits

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
PEOPLE_A_VALIDATION = 10
LEAST_FRAMES = 3
"""Frames of the shortest stretch of a clip that is kept: a frame and both of its neighbours."""


@dataclass(frozen=True)
class Source:
    """One file. name: its path in the data folder. aligned: whether the image is a face crop already."""

    path: Path
    name: str
    split: Split
    aligned: bool = False

    @property
    def is_clip(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_sources(root: Path, people: Mapping[str, str]) -> tuple[list[Source], dict[str, str]]:
    """Every source of the data folder `root`, sorted, and the part of every person who is in no table.

    people: the parts that were dealt before. Raises UsageError when there is no such folder or nothing in it.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; a folder with clips or images of faces was expected")
    table = load_splits()
    listed = (root / "videos" / name for names in table.clip_names.values() for name in names)
    if any((root / folder).is_dir() for folder in table.rules) or any(path.is_file() for path in listed):
        return _tabled(root), {}
    wanted = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in wanted and path.is_file())
    if not files:
        raise UsageError(f"{root} holds neither clips nor images; files ending in {', '.join(sorted(wanted))} count")
    names = [path.relative_to(root) for path in files]
    dealt = deal_people((name.parts[0] for name in names), people)
    return [
        Source(path, name.as_posix(), Split(dealt[name.parts[0]])) for path, name in zip(files, names, strict=True)
    ], dealt


def _tabled(root: Path) -> list[Source]:
    table = load_splits()
    try:
        clips = [(path, split, False) for split in Split for path in table.clips(root, split)]
        stills = [(path, split, True) for split in Split for path in table.faces(root, split)]
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    rows = [Source(path, path.relative_to(root).as_posix(), split, aligned) for path, split, aligned in clips + stills]
    return sorted(rows, key=lambda source: source.name)


def deal_people(people: Iterable[str], before: Mapping[str, str]) -> dict[str, str]:
    """The part of each person: those of `before`, then the new ones in alphabetical order."""
    dealt = dict(before)
    for person in sorted(set(people) - set(before)):
        held_out = len(dealt) % PEOPLE_A_VALIDATION == 1
        dealt[person] = str(Split.VALIDATION if held_out else Split.TRAIN)
    return dealt


def faces_of(source: Source, tracker: Tracker, most: int) -> list[PackedSequence]:
    """Crops of the largest face of a clip (at most `most` frames) or image; a sequence for each uninterrupted stretch.

    Empty when there is none. Raises SourceError when the file cannot be read.
    """
    if source.is_clip:
        stretches = [stretch for stretch in _stretches(source.path, tracker, most) if len(stretch) >= LEAST_FRAMES]
    else:
        stretches = _still(source, tracker)
    return [
        PackedSequence(
            source.name if n == 0 else f"{source.name}#{n + 1}",
            str(source.split),
            np.array([index for index, _, _ in stretch], np.int64),
            np.stack([place for _, place, _ in stretch]),
            tuple(file for _, _, file in stretch),
        )
        for n, stretch in enumerate(stretches)
    ]


Found = tuple[int, np.ndarray, bytes]
"""Index of the frame, crop_from_frame, the crop as JPEG."""


def _stretches(clip: Path, tracker: Tracker, most: int) -> Iterator[list[Found]]:
    tracks: tuple[FaceTrack, ...] = ()
    stretch: list[Found] = []
    identity: int | None = None
    for frame in read_frames(clip, most):
        tracks = tracker.track(tracks, frame.image, frame.captured_ns, wanted=1)
        if stretch and (not tracks or tracks[0].track_id != identity):
            yield stretch
            stretch = []
        if tracks:
            identity, place = tracks[0].track_id, tracks[0].crop_from_frame
            stretch.append((frame.index, place, encode_crop(align(frame.image, place))))
    if stretch:
        yield stretch


def _still(source: Source, tracker: Tracker) -> list[list[Found]]:
    image = cv2.imread(str(source.path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{source.path} cannot be read as an image; remove it or replace it")
    if source.aligned:
        # Smaller crops are left out: enlarged, they would teach blur. The file goes in as it is.
        fits = image.shape == (CROP_SIZE, CROP_SIZE, 3)
        return [[(0, np.eye(2, 3), source.path.read_bytes())]] if fits else []
    tracks = tracker.track((), image, 0, wanted=1)
    return [[(0, track.crop_from_frame, encode_crop(align(image, track.crop_from_frame)))] for track in tracks]
