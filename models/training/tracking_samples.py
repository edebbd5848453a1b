"""Samples for the tracking networks: pictures with the published networks' answers, and what hides faces in them.

The published networks teach. Of each face the teacher's points are a mean over several windows a little apart, so that
its own noise is not learnt. They are found on the clean picture; the student then sees it covered, dark, blurred or
noisy. Pictures are uint8 RGB; points are float32 [468, 3] in picture pixels.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.assets import asset_path
from engine.detection import FaceDetector
from engine.geometry import Affine, invert_affine, pixels_per_pixel, square_from_frame, transform_points, warp
from engine.landmarks import WINDOW_SIZE, FaceMesh, window_of_detection, window_of_landmarks
from models.evaluation.clips import read_frames
from models.parsing import CLASSES
from models.training.log import checkpoint_dir
from models.training.parsing_samples import CROP_PX, LABEL_PX, U8, degrade, occlude, recolour
from models.training.splits import PARSING_IMAGES, Split, load_splits

STILLS = (
    "faces/ffhq256",
    "faces/omi256",
    "faces/stylegan1_256",
    "faces/tpdne256",
    "faces/generated_photos256",
    "faces/sd3_portraits256_cc0",
    "faces/stock_portraits256_cc0",
    "faces/uscongress256_pd",
    PARSING_IMAGES,
)
HELD_OUT_CLIPS = "asl_"
"""Training clips whose names begin so are kept for scores: hands move before the face, as in no other clip."""

FRAMES_A_CLIP, FRAME_STEP = 360, 6
SCENE_PX = 512
WINDOWS_A_FACE = 6
PRESENT = 0.8
_FACE_SHARE = 2.4
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]


@dataclass(frozen=True)
class Teacher:
    """The published detector and face mesh."""

    detector: FaceDetector
    mesh: FaceMesh

    @classmethod
    def open(cls, threads: int = 1) -> "Teacher":
        """Raises AssetMissing when they are not cached."""
        detector = FaceDetector.open(asset_path("face_detector_full"), threads)
        return cls(detector, FaceMesh.open(asset_path("face_mesh"), threads))

    def faces(self, bgr: U8, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
        """Points of each face in a picture, largest first; of faces that the mesh is sure of only."""
        found = sorted(self.detector.detect(bgr, 0.5), key=lambda face: face.box_px[0] - face.box_px[2])
        for detection in found:
            seen = self.mesh.find(bgr, window_of_detection(detection))
            for _ in range(2):
                seen = self.mesh.find(bgr, window_of_landmarks(seen.points_px))
            if seen.presence < PRESENT:
                continue
            views = [moved_window(seen.points_px, rng, 0.3) for _ in range(WINDOWS_A_FACE)]
            yield np.mean([self.mesh.find(bgr, view).points_px for view in views], axis=0, dtype=np.float32)


@dataclass(frozen=True)
class Pictures:
    """What a training draws from, as JPEG files.

    faces: pictures of one face each, with `points` [N, 468, 3]. scenes: whole frames, with every box [M, 4] in which
    the teacher's detector might see a face.
    """

    faces: tuple[bytes, ...]
    points: NDArray[np.float32]
    scenes: tuple[bytes, ...]
    boxes: tuple[NDArray[np.float32], ...]


def load_pictures(data: Path, split: Split, most: int | None = None) -> Pictures:
    """Pictures of a split of the data folder; the teacher's answers are kept in the cache folder.

    most: stills of each folder at most. Raises AssetMissing when they must be made and the teacher is not cached.
    """
    place = hashlib.sha256(f"{data.resolve()} {most}".encode()).hexdigest()[:8]
    path = checkpoint_dir("packs") / f"tracking-{split}-{place}.npz"
    if not path.is_file():
        _store(path, _make(data, split, most))
    with np.load(path) as stored:
        files = [bytes(file) for file in np.split(stored["jpeg"], stored["jpeg_ends"][:-1])]
        boxes = np.split(stored["boxes"], stored["boxes_ends"][:-1])
        faces = len(stored["points"])
        return Pictures(tuple(files[:faces]), stored["points"], tuple(files[faces:]), tuple(boxes))


def _store(path: Path, pictures: Pictures) -> None:
    files = [np.frombuffer(file, np.uint8) for file in (*pictures.faces, *pictures.scenes)]
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.npz")
    partial.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        partial,
        jpeg=np.concatenate(files),
        jpeg_ends=np.cumsum([len(file) for file in files]),
        points=pictures.points,
        boxes=np.concatenate(pictures.boxes),
        boxes_ends=np.cumsum([len(boxes) for boxes in pictures.boxes]),
    )
    partial.replace(path)


def training_clips(data: Path, split: Split) -> list[Path]:
    """The clips of a split, less those that only scores may use."""
    return [path for path in load_splits().clips(data, split) if not path.name.startswith(HELD_OUT_CLIPS)]


def _make(data: Path, split: Split, most: int | None) -> Pictures:
    teacher, splits, rng = Teacher.open(), load_splits(), np.random.default_rng(0)
    faces, points, scenes, boxes = [], [], [], []
    stills = [path for folder in STILLS for path in splits.stills(data, folder, split)[:most]]
    for path in tqdm(stills, desc="stills", disable=None):
        image = cv2.imread(str(path))
        for found in list(teacher.faces(image, rng))[:1]:
            faces.append(path.read_bytes())
            points.append(found)
    for path in tqdm(training_clips(data, split), desc="clips", disable=None):
        for frame in read_frames(path, FRAMES_A_CLIP):
            if frame.index % FRAME_STEP:
                continue
            image = np.ascontiguousarray(frame.image)
            scene, scale = _at_most(image, SCENE_PX)
            scenes.append(cv2.imencode(".jpg", scene, _QUALITY)[1].tobytes())
            maybe = [scale * np.array(face.box_px) for face in teacher.detector.detect(image, 0.2)]
            boxes.append(np.array(maybe, np.float32).reshape(-1, 4))
            for found in teacher.faces(image, rng):
                picture, moved = _around(image, found)
                faces.append(cv2.imencode(".jpg", picture, _QUALITY)[1].tobytes())
                points.append(moved)
    return Pictures(tuple(faces), np.array(points, np.float32), tuple(scenes), tuple(boxes))


def _at_most(image: U8, side: int) -> tuple[U8, float]:
    scale = min(side / max(image.shape[:2]), 1.0)
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


def _around(image: U8, points: NDArray[np.float32]) -> tuple[U8, NDArray[np.float32]]:
    """The face with what is around it, cut out of a frame and at most 384 px wide, and its points there."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    centre, half = (low + high) / 2, _FACE_SHARE * float((high - low).max()) / 2
    first = np.maximum(np.floor(centre - half), 0).astype(int)
    last = np.ceil(centre + half).astype(int)
    cut, scale = _at_most(np.ascontiguousarray(image[first[1] : last[1], first[0] : last[0]]), 384)
    moved = points * scale
    moved[:, :2] = (points[:, :2] - first + 0.5) * scale - 0.5
    return cut, moved


Square = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Centre of a square in a picture and half of its width along its x axis, as `square_from_frame` takes them."""


def mesh_square(
    points: NDArray[np.float32], shift: NDArray[np.float64] | float = 0.0, turn: float = 0.0, growth: float = 0.0
) -> Square:
    """Where the tracker would let the mesh look, but off: shift in shares of its side, turn in radians, log growth."""
    middle = np.full(2, (WINDOW_SIZE - 1) / 2) + np.asarray(shift) * WINDOW_SIZE
    half = 0.5 * WINDOW_SIZE * np.exp(growth) * np.array([np.cos(turn), np.sin(turn)])
    aim = np.array([middle, middle + half])
    centre, edge = transform_points(invert_affine(window_of_landmarks(points)), aim)
    return centre, edge - centre


def moved_square(points: NDArray[np.float32], rng: np.random.Generator, strength: float) -> Square:
    """`mesh_square` off at random: at strength 1 up to 12 %, 20 degrees and 25 %."""
    return mesh_square(
        points,
        strength * rng.uniform(-0.12, 0.12, 2),
        strength * rng.uniform(-1, 1) * np.deg2rad(20),
        strength * rng.uniform(-0.25, 0.25),
    )


def moved_window(points: NDArray[np.float32], rng: np.random.Generator, strength: float) -> Affine:
    """`window_from_picture` of a `moved_square`."""
    return square_from_frame(*moved_square(points, rng, strength), WINDOW_SIZE)


def points_in_window(points: NDArray[np.float32], window_from_picture: Affine) -> NDArray[np.float32]:
    """Points as the network gives them for that window of 192 px: float32 [468, 3]."""
    xy = transform_points(window_from_picture, points[:, :2].astype(np.float64)) + 0.5
    return np.column_stack([xy, points[:, 2] / pixels_per_pixel(window_from_picture)]).astype(np.float32)


def decoded(file: bytes) -> U8:
    """A JPEG file as RGB."""
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def covered(picture: U8, face: NDArray[np.float64], texture: U8, rng: np.random.Generator) -> tuple[U8, float]:
    """A 256 px picture with something pasted over it, and the share of the face that it hides.

    face: outline points [N, 2] in pixels of the picture.
    """
    skin, label = CLASSES.index("skin"), np.zeros((LABEL_PX, LABEL_PX), np.uint8)
    hull = cv2.convexHull((face / 2.0).astype(np.int32))
    cv2.fillConvexPoly(label, hull, skin)
    hidden, left = occlude(picture, label, texture, np.zeros((CROP_PX, CROP_PX), np.uint8), rng)
    return hidden, 1.0 - float(np.sum(left == skin)) / max(float(np.sum(label == skin)), 1.0)


def spoiled(picture: U8, rng: np.random.Generator) -> U8:
    """A 256 px picture as cameras might take it: light, colour, glare, blur, noise and compression, each sometimes."""
    if rng.random() < 0.7:
        picture = recolour(picture, rng)
    if rng.random() < 0.12:
        picture = _glare(picture, rng)
    return degrade(picture, rng) if rng.random() < 0.7 else picture


def _glare(picture: U8, rng: np.random.Generator) -> U8:
    y, x = np.mgrid[0:CROP_PX, 0:CROP_PX]
    cx, cy, radius = *rng.uniform(0, CROP_PX, 2), rng.uniform(15, 90)
    light = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))[..., None] * rng.uniform(80, 300)
    return np.clip(picture + light, 0, 255).astype(np.uint8)


def texture_of(pictures: Pictures, rng: np.random.Generator) -> U8:
    """Another picture at 256 px, to cut things out of."""
    chosen = decoded(pictures.faces[rng.integers(len(pictures.faces))])
    return np.asarray(cv2.resize(chosen, (CROP_PX, CROP_PX)), np.uint8)


def empty_window(pictures: Pictures, rng: np.random.Generator) -> U8:
    """A 256 px window of a scene in which the teacher saw no face; of none after ten tries a plain texture."""
    for _ in range(10):
        number = rng.integers(len(pictures.scenes))
        scene, boxes = decoded(pictures.scenes[number]), pictures.boxes[number]
        height, width = scene.shape[:2]
        side = rng.uniform(0.12, 0.6) * min(height, width)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        if len(boxes) == 0 or _apart(np.array([x, y, x + side, y + side]), boxes):
            window = square_from_frame(np.array([x, y]) + side / 2, np.array([side / 2, 0.0]), CROP_PX)
            return warp(scene, window, (CROP_PX, CROP_PX), cv2.BORDER_REPLICATE)
    noise = rng.uniform(0, 255, (6, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC), np.uint8)


def _apart(window: NDArray[np.float64], boxes: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> bool:
    """No box shares more than a tenth of itself with the window."""
    boxes = np.asarray(boxes, np.float64)
    low, high = np.maximum(window[:2], boxes[:, :2]), np.minimum(window[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1) / np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1)
    return bool((shared < 0.1).all())


def small(picture: U8) -> U8:
    """A 256 px picture at the networks' 192."""
    return np.asarray(cv2.resize(picture, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
