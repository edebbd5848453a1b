"""Whether hands and things before a face stay as they are while the engine edits the face behind them.

Two sets: things of kinds and textures that no training shows, pasted over held-out people and moving; and hands in
clips, whose outlines in `hands.toml` were marked by eye. Both go through whole sessions, so that tracking, the loop and
the masks are all in the score.
"""

import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.ahead import FaceTracker
from engine.errors import SourceError
from engine.frames import CameraFrame, Controls, ImageU8, Phase
from engine.geometry import CROP_SIZE, Affine, align, compose, invert_affine, transform_points
from engine.session import Session
from engine.tracking import FaceTrack
from models.evaluation.clips import open_tracker, read_frames
from models.evaluation.report import Block
from models.training import occluders
from models.training.splits import Split, load_splits

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

UNEDITED_LEVELS = 4
"""Grey levels of 255 that every channel of an unedited pixel keeps to."""

EDIT: Mapping[str, float] = {"smile": 1.0, "age": 1.0}
HANDS = Path(__file__).with_name("hands.toml")

_PASTED, _HANDS = "all that was pasted", "hands"
_FRAMES = 12
_SHOWN_FROM = 4
"""Frame of a clip on which the thing appears; the loop has seen the bare face until then."""

_NEAR_PX = 9
"""What lies nearer to a thing than this is neither it nor surely the face behind it."""


@dataclass(frozen=True)
class Marked:
    """A frame and what is before its face.

    thing: its pixels inside the crop, beyond which nothing is edited; None where nothing is marked. face: the mesh's
    hull; None where there is no face.
    """

    frame: CameraFrame
    thing: Mask | None
    face: Mask | None


@dataclass(frozen=True)
class Tally:
    """Pixels counted. thing: of what is before the face; over_face: of these, those over it; face: of it beside."""

    frames: int = 0
    thing: int = 0
    thing_kept: int = 0
    over_face: int = 0
    over_face_kept: int = 0
    face: int = 0
    face_edited: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def block(self, bundle: str, what: str) -> Block:
        """A row of the report; shares of pixels, all frames together."""
        return {
            "bundle": bundle,
            "before the face": what,
            "frames": self.frames,
            "unedited": _share(self.thing_kept, self.thing),
            "unedited_over_face": _share(self.over_face_kept, self.over_face),
            "face_edited": _share(self.face_edited, self.face),
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def score_occlusion(data: Path, bundles: Sequence[str], runtime: str, precision: str) -> list[Block]:
    """Rows for every bundle: each kind of thing that was pasted, all of them together, and the hands.

    data: the folder that splits.toml describes. Raises SourceError when a clip is not there.
    """
    tracker = open_tracker()
    tallies = {bundle: dict.fromkeys((*occluders.HELD_OUT, _PASTED, _HANDS), Tally()) for bundle in bundles}
    with ExitStack() as opened:
        sessions = {b: opened.enter_context(Session.open(b, runtime=runtime, precision=precision)) for b in bundles}
        for what, scene in chain(pasted_scenes(data, tracker), hand_scenes(data, tracker)):
            for bundle, session in sessions.items():
                tally = tally_scene(session, scene)
                for name in (what,) if what == _HANDS else (what, _PASTED):
                    tallies[bundle][name] += tally
            log.info("%s: %d frames scored", what, tally.frames)
    return [tally.block(bundle, what) for bundle, rows in tallies.items() for what, tally in rows.items()]


def tally_scene(session: Session, scene: Sequence[Marked]) -> Tally:
    """Edit the frames in order and count pixels on those that are marked and tracked."""
    session.reset()
    total = Tally()
    for marked in scene:
        edited = session.step(marked.frame, Controls(EDIT))
        if marked.thing is not None and marked.face is not None and edited.phase is Phase.TRACKING:
            total += tally_frame(marked.frame.image, edited.image, marked.thing, marked.face)
    return total


def tally_frame(before: ImageU8, after: ImageU8, thing: Mask, face: Mask) -> Tally:
    """Counts of one frame. before, after: uint8 BGR [H, W, 3]; thing, face: [H, W]."""
    kept = np.abs(after.astype(np.int16) - before).max(axis=2) <= UNEDITED_LEVELS
    square = np.ones((2 * _NEAR_PX + 1,) * 2, np.uint8)
    beside = face & (cv2.dilate(thing.astype(np.uint8), square) == 0)
    over = thing & face
    return Tally(1, *(int(np.sum(a)) for a in (thing, thing & kept, over, over & kept, beside, beside & ~kept)))


def pasted_scenes(data: Path, tracker: FaceTracker) -> Iterator[tuple[str, list[Marked]]]:
    """Things of every held-out kind that move before the faces of the test clips, by kind."""
    lenders = sorted(path for path, _ in load_splits().parsing_pairs(data, Split.TEST))
    for number, path in enumerate(load_splits().clips(data, Split.TEST)):
        tracks = _tracked(path, tracker, _FRAMES)
        if all(track is None for _, track in tracks[:_SHOWN_FROM]):
            continue  # the clip begins without a face
        for kind in occluders.HELD_OUT:
            rng = np.random.default_rng((number, list(occluders.HELD_OUT).index(kind)))
            yield kind, _pasted_scene(kind, tracks, lenders, rng)


def _pasted_scene(
    kind: str,
    tracks: Sequence[tuple[CameraFrame, FaceTrack | None]],
    lenders: Sequence[Path],
    rng: np.random.Generator,
) -> list[Marked]:
    occluder, crop_from_frame = _drawn(kind, tracks, lenders, rng)
    sway, turn = rng.uniform(4, 14, 2), rng.uniform(-1.0, 1.0)
    return [
        _pasted(frame, track, occluder, crop_from_frame, _motion(frame.index, sway, turn))
        if frame.index >= _SHOWN_FROM
        else Marked(frame, None, None)
        for frame, track in tracks
    ]


def hand_scenes(data: Path, tracker: FaceTracker) -> Iterator[tuple[str, list[Marked]]]:
    """The clips of `hands.toml`, their hands marked on some frames."""
    for name, marks in tomllib.loads(HANDS.read_text(encoding="utf-8")).items():
        path = data / "videos" / name
        if not path.is_file():
            raise SourceError(f"{path} does not exist; hands.toml marks hands in it")
        tracks = _tracked(path, tracker, max(map(int, marks)) + 1)
        scene = [
            _marked(frame, track, outlined(marks[str(frame.index)], frame.image))
            if str(frame.index) in marks
            else Marked(frame, None, None)
            for frame, track in tracks
        ]
        yield _HANDS, scene


def outlined(text: str, image: ImageU8) -> Mask:
    """The inside of an outline "x,y x,y ...", in pixels of the image; [H, W]."""
    corners = np.array([[float(number) for number in pair.split(",")] for pair in text.split()])
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(corners).astype(np.int32)], 1)
    return inside > 0


def _tracked(path: Path, tracker: FaceTracker, limit: int) -> list[tuple[CameraFrame, FaceTrack | None]]:
    """The frames of a clip as they are, and the largest face on each."""
    tracks: tuple[FaceTrack, ...] = ()
    found: list[tuple[CameraFrame, FaceTrack | None]] = []
    for frame in read_frames(path, limit):
        tracks = tracker.track(tracks, frame.image, frame.captured_ns, wanted=1)
        found.append((frame, tracks[0] if tracks else None))
    return found


def _marked(frame: CameraFrame, track: FaceTrack | None, thing: Mask) -> Marked:
    if track is None:
        return Marked(frame, None, None)
    face, reach = np.zeros((2, *thing.shape), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.rint(track.landmarks_px[:, :2]).astype(np.int32)), 1)
    corners = np.array([(0, 0), (CROP_SIZE, 0), (CROP_SIZE, CROP_SIZE), (0, CROP_SIZE)]) - 0.5
    in_frame = transform_points(invert_affine(track.crop_from_frame), corners)
    cv2.fillConvexPoly(reach, np.rint(in_frame).astype(np.int32), 1)
    return Marked(frame, thing & (reach > 0), face > 0)


def _drawn(
    kind: str,
    tracks: Sequence[tuple[CameraFrame, FaceTrack | None]],
    lenders: Sequence[Path],
    rng: np.random.Generator,
) -> tuple[occluders.Occluder, Affine]:
    """A thing of this kind, and where the face that it is drawn for lies."""
    frame, track = next((frame, track) for frame, track in tracks if track is not None)
    crop = align(frame.image, track.crop_from_frame)[..., ::-1]
    colour = np.median(crop[140:180, 90:166].reshape(-1, 3), axis=0)
    lender = cv2.resize(cv2.imread(str(lenders[rng.integers(len(lenders))])), (occluders.CROP_PX,) * 2)[..., ::-1]

    def thing(rng: np.random.Generator) -> occluders.U8:
        return occluders.pattern_paint(rng) if rng.random() < 0.5 else occluders.texture_paint(lender, rng)

    paints = occluders.Paints(lambda rng: occluders.skin_paint(colour, rng), thing)
    return occluders.draw_occluder(rng, {kind: occluders.HELD_OUT[kind]}, paints), track.crop_from_frame


def _motion(index: int, sway: NDArray[np.float64], turn: float) -> Affine:
    """How the thing has moved by this frame, from crop to crop: swaying by so many px, turning by up to 8 degrees."""
    phase = 2.0 * np.pi * index / 20.0
    matrix = cv2.getRotationMatrix2D((127.5, 127.5), 8.0 * turn * np.sin(phase), 1.0)
    matrix[:, 2] += sway * [np.cos(phase), np.sin(phase)]
    return np.asarray(matrix, np.float64)


def _pasted(
    frame: CameraFrame,
    track: FaceTrack | None,
    occluder: occluders.Occluder,
    crop_from_frame: Affine,
    motion: Affine,
) -> Marked:
    height, width = frame.image.shape[:2]
    frame_from_crop = compose(invert_affine(crop_from_frame), motion)
    # A thing ends where its crop does: what comes in over the border goes on outside, which no mask reaches.
    alpha = cv2.warpAffine(occluder.alpha, frame_from_crop, (width, height))[..., None]
    paint = cv2.warpAffine(occluder.paint[..., ::-1], frame_from_crop, (width, height), borderMode=cv2.BORDER_REPLICATE)
    image = np.rint(frame.image * (1.0 - alpha) + paint * alpha).astype(np.uint8)
    covered = CameraFrame(frame.index, frame.captured_ns, image)
    return _marked(covered, track, alpha[..., 0] >= 0.9)
