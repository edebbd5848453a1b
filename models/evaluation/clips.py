"""Clips as evaluation sees them: aligned face crops, one fixed alignment a frame that every variant shares."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.assets import asset_path
from engine.errors import SourceError
from engine.frames import CameraFrame, ImageU8
from engine.geometry import align
from engine.session import FaceTracker
from engine.tracking import FaceTrack, Tracker

log = logging.getLogger(__name__)

Crops = NDArray[np.uint8]
"""Aligned crops, uint8 RGB [T, 256, 256, 3]."""

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".gif"})


@dataclass(frozen=True)
class AlignedClip:
    """The longest run of frames of a clip that show one person.

    first_frame: index of the run's first frame in the clip. frames_in: how many frames were read.
    """

    name: str
    first_frame: int
    frames_in: int
    crops: Crops


def find_clips(paths: Iterable[Path]) -> list[Path]:
    """The files as they are, and in place of a folder the clips in it, sorted.

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
    return found


def read_frames(path: Path, limit: int) -> Iterator[CameraFrame]:
    """At most `limit` frames of a clip, stamped with their presentation time; rotation metadata is applied.

    Raises SourceError when no frame can be decoded.
    """
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


def open_tracker(threads: int = 2) -> Tracker:
    """The tracker on the pinned networks; raises AssetMissing when they are not cached."""
    return Tracker.open(asset_path("face_detector_full"), asset_path("face_mesh"), threads=threads)


def align_clip(path: Path, tracker: FaceTracker, limit: int) -> AlignedClip:
    """Track the largest face through the clip and cut its crops; the longest run of one track is kept.

    Raises SourceError when the clip cannot be decoded or shows no face for two frames in a row.
    """
    tracks: tuple[FaceTrack, ...] = ()
    runs: list[tuple[int, int, list[ImageU8]]] = []
    frames_in = 0
    for frame in read_frames(path, limit):
        frames_in += 1
        tracks = tracker.track(tracks, frame.image, frame.captured_ns, wanted=1)
        if not tracks:
            continue
        face = tracks[0]
        if not runs or runs[-1][0] != face.track_id or runs[-1][1] + len(runs[-1][2]) != frame.index:
            runs.append((face.track_id, frame.index, []))
        runs[-1][2].append(align(frame.image, face.crop_from_frame)[..., ::-1])
    _, first_frame, crops = max(runs, key=lambda run: len(run[2]), default=(0, 0, []))
    if len(crops) < 2:
        raise SourceError(f"{path} shows no face in two frames in a row; a talking head was expected")
    log.info("%s: %d of %d frames show one face, from frame %d on", path.name, len(crops), frames_in, first_frame)
    return AlignedClip(path.name, first_frame, frames_in, np.ascontiguousarray(np.stack(crops)))
