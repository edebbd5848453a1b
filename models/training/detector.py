"""`rigid-live train detector`: the face detector that ships, from the published one.

It starts as the published network with narrower bottlenecks (`tracking_start`). Then it learns the published network's
answers at every anchor of the clean scene while it sees a covered, dark, blurred or noisy one. Scenes are frames of
clips under any zoom, and faces pasted into them at any size.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.detection import anchor_centres, box_iou, decode, merge_overlapping
from engine.geometry import square_from_frame, warp
from models.checkpoints.weights import fitting, load_weights, save_fresh
from models.tracking import INPUT_PX, DetectorNet
from models.training.loop import Player, sample_rng
from models.training.parsing_samples import CROP_PX, U8
from models.training.splits import Split
from models.training.tracking_samples import Pictures, covered, decoded, load_pictures, small, spoiled, texture_of
from models.training.tracking_start import (
    add_training_arguments,
    narrow_detector,
    published_detector,
    train_from_published,
)

PEAK_RATE = 3e-4
PASTED_SHARE, CLEAN_SHARE, COVERED_SHARE, OUTSIDE_SHARE = 0.5, 0.25, 0.5, 0.5
START_SCENES = 192
VALIDATION_STILLS, VALIDATION_SCENES = 20, 160
FACE_SCORE = 0.5
BOX_WEIGHT = 0.25
"""Of a pixel of the input in a box, beside the cross entropy of its anchor."""

Scene = tuple[U8, U8]
"""The clean scene and what the student sees of it, uint8 RGB [192, 192, 3] each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser, batch=12)


def run(args: argparse.Namespace) -> int:
    return train_from_published(args, DetectorTask, "face_detector_full")


class Objective(nn.Module):
    """What the training minimises: the student's distance from the teacher at every anchor."""

    def __init__(self, network: DetectorNet, teacher: DetectorNet) -> None:
        super().__init__()
        self.network = network
        self._teacher = (teacher,)

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        clean, seen = (2.0 * part.float() / 255.0 - 1.0 for part in batch)
        with torch.no_grad():
            wanted, boxes = self._teacher[0](clean)
        logits, found = self.network(seen)
        chances = wanted.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logits, chances, reduction="none")
        entropy = entropy - F.binary_cross_entropy(chances, chances, reduction="none")  # what cannot be learnt
        # Few of the 2304 anchors lie on a face: the sum over those that matter, not the mean over all.
        faces = chances.sum().clamp(min=1.0)
        unsure = entropy.sum() / faces
        away = ((found - boxes).abs().mean(2, keepdim=True) * chances).sum() / faces
        return unsure + BOX_WEIGHT * away, {"entropy": unsure, "boxes_px": away}


class DetectorTask:
    """The training, for `models.training.loop`."""

    name = "detector"
    settings: Mapping[str, Any] = {"peak_rate": PEAK_RATE, "pasted": PASTED_SHARE, "covered": COVERED_SHARE}

    def __init__(self, data: Path, seed: int) -> None:
        self._seed = seed
        self._pictures = load_pictures(data, Split.TRAIN)
        self._teacher = published_detector().requires_grad_(False)
        clean = self.draw(0, range(START_SCENES))[0]
        self._network = narrow_detector(self._teacher, 2.0 * clean.float() / 255.0 - 1.0)
        validation, rng = load_pictures(data, Split.VALIDATION, VALIDATION_STILLS), np.random.default_rng(0)
        self._held_out = _batch([scene(validation, rng) for _ in range(VALIDATION_SCENES)])

    @property
    def players(self) -> tuple[Player, ...]:
        groups = ({"params": list(self._network.parameters()), "peak": PEAK_RATE},)
        objective = Objective(self._network, self._teacher)
        return (Player("detector", objective, groups, self._network, decay=0.998, clip=20.0),)

    def draw(self, step: int, samples: range) -> tuple[Tensor, Tensor]:
        return _batch([scene(self._pictures, sample_rng(self._seed, step, number)) for number in samples])

    def start_from(self, folder: Path) -> str:
        self._network.load_state_dict(load_detector(folder).state_dict())
        return "the newest weights"

    def validate(self, average: nn.Module) -> dict[str, float]:
        """Recall and precision on held-out scenes, as the student sees them; the teacher's faces of the clean ones."""
        clean, seen = self._held_out
        wanted = faces_in(self._teacher, clean)
        told: dict[str, float] = {}
        for name, network in (("", average), ("teacher_", self._teacher)):
            for kind, scenes in (("", seen), ("clean_", clean)):
                recall, precision = agreement(wanted, faces_in(network, scenes))
                told |= {f"{name}{kind}recall": recall, f"{name}{kind}precision": precision}
        return told

    def images(self, average: nn.Module) -> Tensor:
        """Held-out scenes with the faces that the network finds."""
        seen = self._held_out[1][:8]
        sheet = [_drawn(picture.numpy(), faces) for picture, faces in zip(seen, faces_in(average, seen), strict=True)]
        return torch.from_numpy(np.concatenate(sheet, axis=1)).permute(2, 0, 1).float() / 127.5 - 1.0

    def save(self, average: nn.Module, folder: Path) -> None:
        save_fresh(self.name, average.state_dict(), folder)


def load_detector(folder: Path | None = None) -> DetectorNet:
    """The trained network: fresh from `folder` where it is, else the committed one. Raises CheckpointError."""
    network = DetectorNet()
    network.load_state_dict(fitting(load_weights("detector", folder), network.state_dict(), "detector"))
    return network.eval()


def scene(pictures: Pictures, rng: np.random.Generator) -> Scene:
    """A frame of a clip, perhaps with faces pasted into it, and what the student sees of it."""
    clean, faces = _view(pictures, rng), []
    if rng.random() < PASTED_SHARE:
        clean = _softened(clean, rng)
        for _ in range(rng.integers(1, 4)):
            clean, outline = _pasted(clean, pictures, rng)
            faces.append(outline)
    seen = clean
    if rng.random() >= CLEAN_SHARE:
        if rng.random() < COVERED_SHARE:
            outline = faces[0] if faces else _anywhere(rng)
            seen = _half_covered(seen, outline, texture_of(pictures, rng), rng)
        seen = spoiled(seen, rng)
    return small(clean), small(seen)


def _view(pictures: Pictures, rng: np.random.Generator) -> U8:
    """A frame letterboxed to 256 px, or a part of it, perhaps turned a little."""
    frame = decoded(pictures.scenes[rng.integers(len(pictures.scenes))])
    height, width = frame.shape[:2]
    half, centre = max(height, width) / 2, np.array([(width - 1) / 2, (height - 1) / 2])
    angle = 0.0
    if rng.random() < OUTSIDE_SHARE:
        half *= np.exp(rng.uniform(-1.2, 0.6))
        centre = centre + rng.uniform(-0.4, 0.4, 2) * (width, height)
        angle = rng.uniform(-0.3, 0.3)
    axis = half * np.array([np.cos(angle), np.sin(angle)])
    return warp(frame, square_from_frame(centre, axis, CROP_PX), (CROP_PX, CROP_PX), cv2.BORDER_CONSTANT)


def _softened(view: U8, rng: np.random.Generator) -> U8:
    """Backgrounds lie out of focus now and then."""
    return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(2, 8)), np.uint8) if rng.random() < 0.5 else view


def _pasted(view: U8, pictures: Pictures, rng: np.random.Generator) -> tuple[U8, NDArray[np.float64]]:
    """A picture of a face laid over part of the view, and the face's outline there."""
    number = rng.integers(len(pictures.faces))
    picture, points = decoded(pictures.faces[number]), pictures.points[number]
    side, angle = np.exp(rng.uniform(np.log(20), np.log(280))), rng.uniform(-0.5, 0.5)
    turned = side / max(picture.shape[:2]) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([picture.shape[1] - 1, picture.shape[0] - 1]) / 2
    place = rng.uniform(0.1, 0.9, 2) * CROP_PX
    view_from_picture = np.column_stack([turned, place - turned @ middle])
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(mask, (int(middle[0]), int(middle[1])), (int(middle[0]), int(middle[1])), 0, 0, 360, 255, -1)
    if rng.random() < 0.4:
        mask[:] = 255
    size = (CROP_PX, CROP_PX)
    laid = warp(picture, view_from_picture, size, cv2.BORDER_REPLICATE)
    alpha = warp(mask, view_from_picture, size, cv2.BORDER_CONSTANT).astype(np.float32) / 255.0
    outline = points[:, :2] @ turned.T + view_from_picture[:, 2]
    return np.asarray(cv2.blendLinear(view, laid, 1.0 - alpha, alpha), np.uint8), outline


def _anywhere(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(0, CROP_PX, 2) + rng.uniform(-40, 40, (8, 2))


def _half_covered(view: U8, outline: NDArray[np.float64], texture: U8, rng: np.random.Generator) -> U8:
    """The view with something pasted over it that leaves at least half of the outlined face."""
    for _ in range(3):
        hidden, share = covered(view, np.clip(outline, 0, CROP_PX - 1), texture, rng)
        if share < 0.5:
            return hidden
    return view


def _batch(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    clean, seen = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
    return clean, seen


Faces = list[NDArray[np.float64]]


@torch.no_grad()
def faces_in(network: nn.Module, scenes: Tensor) -> list[Faces]:
    """Boxes [4] of the faces in each scene of uint8 RGB [N, 192, 192, 3], in input pixels, best first."""
    anchors, device, found = anchor_centres(INPUT_PX), next(network.parameters()).device, []
    for part in scenes.split(16):
        logits, boxes = network(2.0 * part.to(device).float() / 255.0 - 1.0)
        for chances, raw in zip(logits.sigmoid()[..., 0].cpu().numpy(), boxes.cpu().numpy(), strict=True):
            kept = np.flatnonzero(chances >= FACE_SCORE)
            merged = merge_overlapping(decode(raw[kept], anchors[kept]), chances[kept].astype(np.float64))
            found.append([points[:2].ravel() for points, _ in merged])
    return found


def agreement(wanted: list[Faces], found: list[Faces], iou: float = 0.5) -> tuple[float, float]:
    """Recall and precision: shares of the wanted faces that are found, and of the found ones that are wanted."""
    hits = sum(matched(theirs, ours, iou) for theirs, ours in zip(wanted, found, strict=True))
    return hits / max(sum(map(len, wanted)), 1), hits / max(sum(map(len, found)), 1)


def matched(wanted: Sequence[NDArray[np.float64]], found: Sequence[NDArray[np.float64]], iou: float = 0.5) -> int:
    """How many of the wanted boxes [4] have a found one of their own that overlaps them so much."""
    left, hits = list(found), 0
    for face in wanted:
        overlaps = box_iou(face, np.array(left)) if left else np.zeros(1)
        if overlaps.max() >= iou:
            left.pop(int(overlaps.argmax()))
            hits += 1
    return hits


def _drawn(picture: U8, faces: Faces) -> U8:
    drawn = picture.copy()
    for face in faces:
        x0, y0, x1, y1 = (round(number) for number in face)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), (0, 255, 0), 1)
    return drawn
