"""`rigid-live tracking`: our detector and face mesh beside the published ones that taught them.

On clips, the mesh networks see the same windows. Distances are means over the 468 points in percent of the distance of
the outer corners of the eyes (along three axes, so that a profile has one). What they are measured from is the
published mesh's mean over several windows of the clean frame, and the single answer of the published mesh. FFHQ's
alignment, which came from another detector, judges both without either: the crop of an aligned photograph is the
photograph. Every figure is there for `ours` and `published`.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.detection import FaceDetector
from engine.geometry import crop_corners_px, invert_affine, square_from_frame, transform_points, warp
from engine.landmarks import EYE_CORNER_LEFT, EYE_CORNER_RIGHT, WINDOW_SIZE, FaceMesh, window_of_landmarks
from models.checkpoints.weights import COMMITTED
from models.compiled import take_turns
from models.evaluation.clips import clip_names, find_clips, read_frames
from models.face_geometry import mesh_distance
from models.training.detector import matched
from models.training.parsing_samples import CROP_PX, U8
from models.training.splits import Split, load_splits
from models.training.tracking_samples import Teacher, covered, mesh_square, spoiled

log = logging.getLogger(__name__)

Figures = dict[str, float]
NOISE_LEVELS = 4.0
"""Of the camera whose noise must not move a still face, in grey levels."""

NOISY_COPIES = 8
FFHQ = "faces/ffhq256"


@dataclass(frozen=True)
class Contender:
    """One pair of networks."""

    name: str
    detector: FaceDetector
    mesh: FaceMesh


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("clips", type=Path, nargs="*", metavar="CLIP|DIR")
    add("--data", type=Path, metavar="DIR", help="the data folder: FFHQ's photographs of the test part are scored too")
    add("--weights", type=Path, default=COMMITTED, metavar="DIR", help="of detector.onnx and landmarks.onnx")
    add("--frames", type=int, default=60, help="of each clip; default: %(default)s")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--report", type=Path, default=Path("out/tracking.json"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Score and write the report. Raises SourceError for a clip and AssetMissing without the published networks."""
    teacher = Teacher.open(args.threads)
    ours = Contender(
        "ours",
        FaceDetector.open(args.weights / "detector.onnx", args.threads),
        FaceMesh.open(args.weights / "landmarks.onnx", args.threads),
    )
    contenders = (ours, Contender("published", teacher.detector, teacher.mesh))
    paths, report = find_clips(args.clips), {"frames": args.frames, "threads": args.threads}
    report["clips"] = {
        name: score_clip(path, contenders, teacher, args.frames) for path, name in clip_names(paths).items()
    }
    for name, figures in report["clips"].items():
        log.info("%s: %s", name, _told(figures))
    report["all_clips"] = mean_of(list(report["clips"].values()))
    if args.data is not None:
        report["ffhq"] = score_photographs(load_splits().stills(args.data, FFHQ, Split.TEST), contenders)
    if paths:
        report["ms"] = times(next(iter(read_frames(paths[0], 1))).image, contenders, teacher)
    args.report.parent.mkdir(parents=True, exist_ok=True)
    args.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for part in ("all_clips", "ffhq", "ms"):
        log.info("%s: %s", part, _told(report.get(part, {})))
    return 0


def score_clip(path: Path, contenders: Sequence[Contender], teacher: Teacher, most: int) -> Figures:
    """Means over the clip's frames; the largest face is judged, all boxes are."""
    rng, sums, boxes = np.random.default_rng(0), Sums(), Boxes(tuple(c.name for c in contenders))
    tracks: dict[str, list[NDArray[np.float64]]] = {c.name: [] for c in contenders}
    for frame in read_frames(path, most):
        image = np.ascontiguousarray(frame.image)
        spoilt = _spoilt(image, rng)
        wanted = boxes_of(teacher.detector, image)
        for contender in contenders:
            boxes.add(contender.name, wanted, boxes_of(contender.detector, image))
            boxes.add(f"{contender.name}_spoilt", wanted, boxes_of(contender.detector, spoilt))
        points = next(teacher.faces(image, rng), None)
        if points is None:
            for track in tracks.values():
                track.clear()
            continue
        _judge_frame(image, points, contenders, sums, rng)
        _judge_motion(image, points, contenders, tracks, sums)
    return sums.means() | boxes.figures()


def boxes_of(detector: FaceDetector, image: U8) -> list[NDArray[np.float64]]:
    """Of the faces in a frame."""
    return [np.array(face.box_px) for face in detector.detect(image, 0.5)]


class Sums:
    """Figures by name, to be averaged."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(value)

    def means(self) -> Figures:
        return {name: float(np.mean(values)) for name, values in self._values.items()}


class Boxes:
    """Recall and precision of boxes over a clip."""

    def __init__(self, names: Sequence[str]) -> None:
        self._counts = {f"{name}{kind}": np.zeros(3, int) for name in names for kind in ("", "_spoilt")}

    def add(self, name: str, wanted: Sequence[Any], found: Sequence[Any]) -> None:
        self._counts[name] += (matched(wanted, found), len(wanted), len(found))

    def figures(self) -> Figures:
        told = {}
        for name, (hits, wanted, found) in self._counts.items():
            if wanted:
                told[f"recall_{name}"] = float(hits / wanted)
            if found:
                told[f"precision_{name}"] = float(hits / found)
        return told


def _spoilt(image: U8, rng: np.random.Generator) -> U8:
    """The frame darker and noisier: what a room at night does."""
    dark = 255.0 * (image / 255.0) ** 1.8 * 0.5 + rng.normal(0, 8, image.shape)
    return np.clip(dark, 0, 255).astype(np.uint8)


def _judge_frame(
    image: U8, points: NDArray[np.float32], contenders: Sequence[Contender], sums: Sums, rng: np.random.Generator
) -> None:
    """Distances on one clean frame, under something pasted over half of the face at most, and in bad light."""
    window = window_of_landmarks(points)
    larger = square_from_frame(*mesh_square(points), CROP_PX)
    seen = warp(image, larger, (CROP_PX, CROP_PX), cv2.BORDER_REPLICATE)
    outline = transform_points(larger, points[:, :2].astype(np.float64))
    other = np.roll(np.rot90(image[: min(image.shape[:2]), : min(image.shape[:2])], 2), 40, axis=1)
    texture = np.asarray(cv2.resize(other, (CROP_PX, CROP_PX)), np.uint8)
    hidden = next((h for h, share in _attempts(seen, outline, texture, rng) if 0.1 < share < 0.6), None)
    single = contenders[-1].mesh.find(image, window).points_px
    views = {"covered": hidden, "spoilt": spoiled(seen, rng)}
    for contender in contenders:
        found = contender.mesh.find(image, window)
        sums.add(f"nme_{contender.name}", distance(found.points_px, points))
        sums.add(f"nme_to_single_{contender.name}", distance(found.points_px, single))
        for name, picture in views.items():
            if picture is None:
                continue
            there = contender.mesh.find(picture, _whole())
            xy = transform_points(invert_affine(larger), there.points_px[:, :2].astype(np.float64))
            sums.add(f"nme_{name}_{contender.name}", distance(np.column_stack([xy, points[:, 2]]), points))
            sums.add(f"lost_{name}_{contender.name}", float(there.presence < 0.5))


def _whole() -> NDArray[np.float64]:
    """The mesh's window that is a whole picture of 256 px."""
    return square_from_frame(np.full(2, (CROP_PX - 1) / 2), np.array([CROP_PX / 2, 0.0]), WINDOW_SIZE)


def _attempts(
    seen: U8, outline: NDArray[np.float64], texture: U8, rng: np.random.Generator
) -> Iterator[tuple[U8, float]]:
    for _ in range(8):
        yield covered(seen, outline, texture, rng)


def _judge_motion(
    image: U8,
    points: NDArray[np.float32],
    contenders: Sequence[Contender],
    tracks: Mapping[str, list[NDArray[np.float64]]],
    sums: Sums,
) -> None:
    """Second differences of the points over three frames, every third frame also under a still face's noise."""
    window, size = window_of_landmarks(points), eye_distance(points)
    for contender in contenders:
        track = tracks[contender.name]
        track.append(contender.mesh.find(image, window).points_px[:, :2].astype(np.float64))
        if len(track) >= 3:
            leap = np.linalg.norm(track[-1] - 2 * track[-2] + track[-3], axis=1).mean()
            sums.add(f"leap_{contender.name}", 100.0 * float(leap) / size)
    if len(track) % 6 == 1:
        for contender in contenders:
            rng = np.random.default_rng(1)
            noisy = (np.clip(image + rng.normal(0, NOISE_LEVELS, image.shape), 0, 255) for _ in range(NOISY_COPIES))
            found = [contender.mesh.find(copy.astype(np.uint8), window).points_px[:, :2] for copy in noisy]
            sums.add(f"noise_{contender.name}", 100.0 * float(np.std(found, axis=0).mean()) / size)


def eye_distance(points: NDArray[Any]) -> float:
    """Between the outer corners of the eyes along three axes."""
    return float(np.linalg.norm(points[EYE_CORNER_LEFT] - points[EYE_CORNER_RIGHT]))


def distance(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Mean over the points [468, 3], in the picture, in percent of the eyes' distance."""
    return 100.0 * float(mesh_distance(wanted[None], found[None])[0])


def score_photographs(paths: Sequence[Path], contenders: Sequence[Contender]) -> Figures:
    """Mean distance of the crop's corners from those of FFHQ's own crop, in pixels of 256."""
    sums, true = Sums(), crop_corners_px(np.eye(2, 3))
    for path in paths:
        image = np.asarray(cv2.imread(str(path)), np.uint8)
        for contender in contenders:
            window = _whole()
            for _ in range(3):
                seen = contender.mesh.find(image, window)
                window = window_of_landmarks(seen.points_px)
            away = np.linalg.norm(crop_corners_px(seen.crop_from_frame) - true, axis=1).mean()
            sums.add(f"corners_px_{contender.name}", float(away))
    return sums.means() | {"photographs": float(len(paths))}


def times(image: U8, contenders: Sequence[Contender], teacher: Teacher) -> Figures:
    """Milliseconds of a call on one frame, medians, all taking turns."""
    points = next(teacher.faces(image, np.random.default_rng(0)))
    window, calls = window_of_landmarks(points), {}
    for contender in contenders:
        calls[f"mesh_{contender.name}"] = partial(contender.mesh.find, image, window)
        calls[f"detector_{contender.name}"] = partial(contender.detector.detect, image)
    return dict(zip(calls, take_turns(list(calls.values()), 100), strict=True))


def mean_of(blocks: Sequence[Figures]) -> Figures:
    """Means over clips, each figure over those that have it."""
    names = dict.fromkeys(name for block in blocks for name in block)
    return {name: float(np.mean([block[name] for block in blocks if name in block])) for name in names}


def _told(figures: Figures) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
