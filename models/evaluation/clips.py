"""Clips as evaluation sees them: aligned face crops, one fixed alignment a frame that every variant shares."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.ahead import FaceTracker
from engine.errors import SourceError
from engine.frames import CameraFrame, ImageU8
from engine.geometry import Affine, align
from engine.tracking import FaceTrack, Tracker

log = logging.getLogger(__name__)

Crops = NDArray[np.uint8]
"""Aligned crops, uint8 RGB [T, 256, 256, 3]."""

SHORTEST_RUN = 3
"""Frames with one face that a clip must have: the anchor's, which is not scored, and two for a flow between them."""

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".gif"})


@dataclass(frozen=True)
class AlignedClip:
    """The longest run of frames of a clip that show one person.

    first_frame: index of the run's first frame in the clip. frames_in: how many frames were read. crop_from_frame: of
    each of the run's frames.
    """

    name: str
    first_frame: int
    frames_in: int
    crops: Crops
    crop_from_frame: tuple[Affine, ...]


@dataclass(frozen=True)
class _Run:
    """Consecutive frames of one track, while they come in."""

    track_id: int
    first_frame: int
    crops: list[ImageU8] = field(default_factory=list)
    crop_from_frame: list[Affine] = field(default_factory=list)

    def goes_on(self, track_id: int, frame: int) -> bool:
        return track_id == self.track_id and frame == self.first_frame + len(self.crops)


def find_clips(paths: Iterable[Path]) -> list[Path]:
    """The files as they are, and in place of a folder the clips in it, sorted; each file once.

    Raises SourceError when a path does not exist or a folder holds no clip.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            clips = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
            if not clips:
                raise SourceError(f"{path} holds no clip; files ending in {', '.join(sorted(VIDEO_SUFFIXES))} count")
            found += clips
        elif path.is_file():
            found.append(path)
        else:
            raise SourceError(f"{path} does not exist; a clip or a folder of clips was expected")
    return list(dict.fromkeys(found))


def clip_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each clip is called: its file's name, or the whole path where another clip's file has the same name."""
    counts = Counter(path.name for path in paths)
    return {path: path.name if counts[path.name] == 1 else str(path) for path in paths}


def read_frames(path: Path, limit: int) -> Iterator[CameraFrame]:
    """At most `limit` frames of a clip, stamped with their presentation time; rotation metadata is applied.

    Raises SourceError when no frame can be decoded.
    """
    _refuse_no_video(path)
    video = cv2.VideoCapture(str(path))
    index, captured_ns = 0, -1_000_000
    try:
        while index < limit:
            decoded, image = video.read()
            if not decoded:
                break
            # Some containers stamp several frames alike; the tracker wants rising times.
            captured_ns = max(round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6), captured_ns + 1_000_000)
            yield CameraFrame(index, captured_ns, np.asarray(image, dtype=np.uint8))
            index += 1
    finally:
        video.release()
    if index == 0:
        raise SourceError(f"{path} cannot be decoded; a video with at least one frame was expected")


def _refuse_no_video(path: Path) -> None:
    # OpenCV's own reader says what it thinks of such a file on stderr, where a failure is one line.
    import av  # not at the top: trainings from packs read no video, and do without

    try:
        with av.open(path) as container:
            count = len(container.streams.video)
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{path} cannot be decoded ({error.strerror}); a video was expected") from error
    if count == 0:
        raise SourceError(f"{path} holds no video; a clip with at least one frame was expected")


def open_tracker(threads: int = 2) -> Tracker:
    """The tracker that the program runs."""
    return Tracker.open(threads)


def align_clip(path: Path, tracker: FaceTracker, limit: int, name: str = "") -> AlignedClip:
    """Track the largest face through the clip and cut its crops; the longest run of one track is kept.

    name: the clip's, by default the file's. Raises SourceError when the clip cannot be decoded or shows no face in
    `SHORTEST_RUN` frames in a row.
    """
    name = name or path.name
    tracks: tuple[FaceTrack, ...] = ()
    runs: list[_Run] = []
    frames_in = 0
    for frame in read_frames(path, limit):
        frames_in += 1
        tracks = tracker.track(tracks, frame.image, frame.captured_ns, wanted=1)
        if not tracks:
            continue
        face = tracks[0]
        if not runs or not runs[-1].goes_on(face.track_id, frame.index):
            runs.append(_Run(face.track_id, frame.index))
        runs[-1].crops.append(align(frame.image, face.crop_from_frame)[..., ::-1])
        runs[-1].crop_from_frame.append(face.crop_from_frame)
    run = max(runs, key=lambda run: len(run.crops), default=_Run(0, 0))
    if len(run.crops) < SHORTEST_RUN:
        raise SourceError(f"{path} shows no face in {SHORTEST_RUN} frames in a row; a talking head was expected")
    log.info("%s: %d of %d frames show one face, from frame %d on", name, len(run.crops), frames_in, run.first_frame)
    crops = np.ascontiguousarray(np.stack(run.crops))
    return AlignedClip(name, run.first_frame, frames_in, crops, tuple(run.crop_from_frame))
