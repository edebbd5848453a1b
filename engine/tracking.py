"""Faces over time: found once, followed by their mesh, smoothed causally, each with an identity.

    frame -> mesh in the window of the frame before -> still there, still the same face?  -> smoothed crop
                                                    `-> gone: detector -> window -> mesh  -> new identity

`Tracker` owns the two networks and nothing else: what one frame leaves to the next is in the `FaceTrack`s that `track`
takes and returns.
"""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.detection import Detection, FaceDetector, box_iou
from engine.frames import ImageU8
from engine.geometry import Affine
from engine.landmarks import (
    WINDOW_SIZE,
    FaceMesh,
    Landmarks,
    box_of_landmarks,
    window_of_detection,
    window_of_landmarks,
)
from engine.smoothing import AlignmentFilter, advance, dragged, motion_px, start

SEARCH_SCORE = 0.35
"""Least detector score of a face worth a look by the mesh, whose presence decides."""

PRESENT_AT_START = 0.8
"""Face presence from which a track begins: above what hands and backgrounds reach, below any whole face."""

PRESENT = 0.5
"""Face presence below which a track is lost."""

SEARCH_INTERVAL_NS = 500_000_000
"""Time between two searches for further faces while at least one is tracked."""

SAME_FACE_IOU = 0.3
"""A detection or track that overlaps a track by more is the same face."""

WINDOW_SLACK_PX = 4.0
"""Corner motion, in window pixels, that the mesh's window lets the face make before it follows. A window that follows
every frame feeds the mesh's own noise back to it: on a still photograph it can swing for ever."""

JUMP_SCALE_PX = 40.0
LIKENESS_SCALE = 0.5
"""One unit of change between two frames: the crop's corners leap this far in crop pixels, or the aligned face's picture
loses this much of its correlation."""

CUT_CHANGE = 0.6
CUT_RATIO = 3.0
"""A change above `CUT_CHANGE` + `CUT_RATIO` x the track's usual change is a cut to another face. Usual counts because a
shaken head or a slow camera changes much in every frame, a cut only once."""

USUAL_GAIN = 0.3
USUAL_AT_START = 0.1
"""Share of a new frame in the usual change, and what it starts from."""


@dataclass(frozen=True)
class FaceTrack:
    """One face in one frame.

    track_id: the identity, larger for faces found later; never given to another face while timestamps rise.
    box_px: (x0, y0, x1, y1) of the mesh, may reach outside the frame. landmarks_px: float32 [468, 3], unsmoothed, in
    frame pixels. crop_from_frame: float64 [2, 3], smoothed. score: face presence in [0, 1]. filters: the smoothing's
    state. window_from_frame: where the mesh looks in the next frame, float64 [2, 3]. frame_size: (width, height) of the
    frame it was seen in. look: float32 [24, 24], as in `Landmarks`. searched_ns: capture time of the last frame
    in which the detector ran. usual_change: running mean of `change_between`.
    """

    track_id: int
    box_px: tuple[float, float, float, float]
    landmarks_px: NDArray[np.float32]
    crop_from_frame: Affine
    score: float
    filters: AlignmentFilter
    window_from_frame: Affine
    frame_size: tuple[int, int]
    look: NDArray[np.float32]
    searched_ns: int
    usual_change: float = USUAL_AT_START


class Tracker:
    """The detector and the mesh network, on the CPU."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh) -> None:
        self._detector = detector
        self._mesh = mesh

    @classmethod
    def open(cls, threads: int = 2) -> "Tracker":
        """Compile the networks that ship with the program; they are the same whatever the bundle.

        threads: the detector's.
        """
        detector, mesh = (Path(str(files("models"))) / "weights" / name for name in ("detector.onnx", "landmarks.onnx"))
        return cls(FaceDetector.open(detector, threads), FaceMesh.open(mesh))

    def detect(self, image_u8: ImageU8, threshold: float = 0.5) -> list[Detection]:
        """Faces in a whole frame, best first; the same frame always gives the same answer.

        image_u8: uint8 BGR [H, W, 3] of any size. threshold: least score, in (0, 1).
        """
        return self._detector.detect(image_u8, threshold)

    def track(
        self, tracks: tuple[FaceTrack, ...], image_u8: ImageU8, captured_ns: int, wanted: int
    ) -> tuple[FaceTrack, ...]:
        """The faces of one more frame, ordered by identity; a lost face is absent.

        tracks: what the frame before returned, () at the start. image_u8: uint8 BGR [H, W, 3]. captured_ns: capture
        time. wanted: how many faces to follow at most; the detector runs while there are fewer: on every frame when
        there is none or one was just lost, else every `SEARCH_INTERVAL_NS`. Tracks of another frame size are dropped.
        """
        size = (image_u8.shape[1], image_u8.shape[0])
        followed = [self._follow(track, image_u8, captured_ns) for track in tracks if track.frame_size == size]
        kept = _without_doubles([track for track in followed if track is not None])[:wanted]
        if len(kept) >= wanted or not _search_due(tracks, kept, captured_ns):
            return tuple(kept)
        kept = [replace(track, searched_ns=captured_ns) for track in kept]
        next_id = max([captured_ns, *(track.track_id + 1 for track in tracks)])
        found = self._search(kept, image_u8, captured_ns, wanted - len(kept))
        return (*kept, *(replace(track, track_id=next_id + n) for n, track in enumerate(found)))

    def _follow(self, track: FaceTrack, image_u8: ImageU8, captured_ns: int) -> FaceTrack | None:
        """The same face in the next frame, or None when it is gone or another one is in its place."""
        seen = self._mesh.find(image_u8, track.window_from_frame)
        if seen.presence < PRESENT:
            return None
        change = change_between(track, seen)
        if change > CUT_CHANGE + CUT_RATIO * track.usual_change:
            return None
        filters = advance(track.filters, seen.crop_from_frame, captured_ns)
        window = window_of_landmarks(seen.points_px)
        return replace(
            track,
            box_px=box_of_landmarks(seen.points_px),
            landmarks_px=seen.points_px,
            crop_from_frame=filters.crop_from_frame,
            score=seen.presence,
            filters=filters,
            window_from_frame=dragged(track.window_from_frame, window, WINDOW_SLACK_PX, WINDOW_SIZE),
            look=seen.look,
            usual_change=track.usual_change + USUAL_GAIN * (change - track.usual_change),
        )

    def _search(self, kept: list[FaceTrack], image_u8: ImageU8, captured_ns: int, places: int) -> list[FaceTrack]:
        """New tracks for detected faces that are not tracked yet, the largest first, `places` at most."""
        detections = sorted(self._detector.detect(image_u8, SEARCH_SCORE), key=lambda found: -_area(found.box_px))
        new: list[FaceTrack] = []
        for detection in detections:
            if len(new) < places and not _overlaps(detection.box_px, [*kept, *new]):
                track = self._begin(detection, image_u8, captured_ns)
                if track is not None and not _overlaps(track.box_px, [*kept, *new]):
                    new.append(track)
        return new

    def _begin(self, detection: Detection, image_u8: ImageU8, captured_ns: int) -> FaceTrack | None:
        """A track for a detected face, identity still open, or None when the mesh finds no face there."""
        window = window_of_detection(detection)
        seen = self._mesh.find(image_u8, window)
        # A window from the mesh itself agrees with the next frames; two rounds bring both to rest.
        for _ in range(2):
            if seen.presence < PRESENT:
                return None
            window = window_of_landmarks(seen.points_px)
            seen = self._mesh.find(image_u8, window)
        if seen.presence < PRESENT_AT_START:
            return None
        filters = start(seen.crop_from_frame, captured_ns)
        return FaceTrack(
            track_id=0,
            box_px=box_of_landmarks(seen.points_px),
            landmarks_px=seen.points_px,
            crop_from_frame=filters.crop_from_frame,
            score=seen.presence,
            filters=filters,
            window_from_frame=window,
            frame_size=(image_u8.shape[1], image_u8.shape[0]),
            look=seen.look,
            searched_ns=captured_ns,
        )


def change_between(track: FaceTrack, seen: Landmarks) -> float:
    """How much a face changed from one frame to the next, 0 for not at all, in units of leap plus units of look."""
    jump_px = float(np.linalg.norm(motion_px(track.filters.measured, seen.crop_from_frame)))
    likeness = float((track.look * seen.look).sum())
    return jump_px / JUMP_SCALE_PX + (1.0 - likeness) / LIKENESS_SCALE


def _search_due(tracks: tuple[FaceTrack, ...], kept: list[FaceTrack], captured_ns: int) -> bool:
    if len(kept) < len(tracks) or not kept:
        return True
    elapsed_ns = captured_ns - max(track.searched_ns for track in kept)
    return elapsed_ns >= SEARCH_INTERVAL_NS or elapsed_ns < 0


def _without_doubles(tracks: list[FaceTrack]) -> list[FaceTrack]:
    """The tracks less those that slid onto an older track's face, ordered by identity."""
    kept: list[FaceTrack] = []
    for track in sorted(tracks, key=lambda track: track.track_id):
        if not _overlaps(track.box_px, kept):
            kept.append(track)
    return kept


def _overlaps(box_px: tuple[float, float, float, float], tracks: list[FaceTrack]) -> bool:
    if not tracks:
        return False
    boxes = np.array([track.box_px for track in tracks])
    return bool((box_iou(np.array(box_px), boxes) > SAME_FACE_IOU).any())


def _area(box_px: tuple[float, float, float, float]) -> float:
    return (box_px[2] - box_px[0]) * (box_px[3] - box_px[1])
