"""`rigid-live train landmarks`: the face mesh that ships, from the published one.

It starts as the published network with a last layer of lower rank (`tracking_start`). Then it learns the published
network's points of the clean picture while it sees a covered, dark, blurred or noisy one, and to say that a window
shows no face: in windows of scenes without one, and where a face is hidden altogether.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.geometry import square_from_frame, transform_points, warp
from engine.landmarks import (
    EYE_CORNER_LEFT,
    EYE_CORNER_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    WINDOW_SIZE,
)
from models.checkpoints.weights import fitting, load_weights, save_fresh
from models.tracking import POINTS, LandmarkNet, mesh_window, plain_slopes
from models.training.loop import Player, sample_rng
from models.training.losses import Distance
from models.training.parsing_samples import CROP_PX
from models.training.splits import Split
from models.training.tracking_samples import (
    Pictures,
    covered,
    decoded,
    empty_window,
    load_pictures,
    moved_square,
    points_in_window,
    small,
    spoiled,
    texture_of,
)
from models.training.tracking_start import (
    add_training_arguments,
    low_rank_landmarks,
    published_landmarks,
    train_from_published,
)

PEAK_RATE = 5e-4
CLEAN_SHARE, EMPTY_SHARE, COVERED_SHARE = 0.4, 0.1, 0.5
HIDDEN, SEEN = 0.85, 0.6
"""Share of a face that is covered from which it counts as gone, and up to which it counts as there."""

DEPTH_WEIGHT, CROP_POINT_WEIGHT, PRESENCE_WEIGHT = 0.3, 3.0, 1.0
START_FACES = 1500
VALIDATION_STILLS, VALIDATION_FACES = 20, 192

NEAR_PX = 0.3
"""Distance, in pixels of the window, at which one between points begins to count in full."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Windows uint8 RGB [B, 192, 192, 3]; points [B, 468, 3], of no meaning in empty windows; presence [B]: 1 there, 0 not,
-1 for what the loss leaves open."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser, batch=32)


def run(args: argparse.Namespace) -> int:
    return train_from_published(args, LandmarksTask, "face_mesh")


class Objective(nn.Module):
    """What the training minimises: the points' distance in percent of the eyes', and the presence's cross entropy."""

    weights: Tensor

    def __init__(self, network: LandmarkNet) -> None:
        super().__init__()
        self.network = network
        weights = torch.ones(POINTS)
        # The crop follows from these alone (`engine.landmarks.crop_from_landmarks`).
        weights[[*EYE_LEFT, *EYE_RIGHT, *MOUTH_LEFT, *MOUTH_RIGHT]] = CROP_POINT_WEIGHT
        self.register_buffer("weights", weights / weights.mean(), persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        windows, points, presence = batch
        found, logits = self.network(windows.float() / 255.0)
        away = (found.unflatten(1, (POINTS, 3)) - points) / eye_distance(points)[:, None, None] * 100.0
        distance = (away[..., :2].square().sum(2) + 0.1).sqrt() + DEPTH_WEIGHT * away[..., 2].abs()
        there = (presence != 0).float()
        missed = ((distance * self.weights).mean(1) * there).sum() / there.sum().clamp(min=1)
        known = (presence >= 0).float()
        entropy = F.binary_cross_entropy_with_logits(logits[:, 0], presence.clamp(min=0), reduction="none")
        unsure = (entropy * known).sum() / known.sum().clamp(min=1)
        return missed + PRESENCE_WEIGHT * unsure, {"points": missed, "presence": unsure}


def eye_distance(points: Tensor) -> Tensor:
    """Between the outer corners of the eyes, along all three axes so that a profile has one too; [B]."""
    return (points[:, EYE_CORNER_LEFT] - points[:, EYE_CORNER_RIGHT]).norm(dim=1).clamp(min=1.0)


class LandmarksTask:
    """The training, for `models.training.loop`."""

    name = "landmarks"
    settings: Mapping[str, Any] = {"peak_rate": PEAK_RATE, "covered": COVERED_SHARE, "empty": EMPTY_SHARE}

    def __init__(self, data: Path, seed: int) -> None:
        self._seed = seed
        self._pictures = load_pictures(data, Split.TRAIN)
        self._held_out = held_out(load_pictures(data, Split.VALIDATION, VALIDATION_STILLS), VALIDATION_FACES)
        self._published = published_landmarks()
        self._network = low_rank_landmarks(self._published, self._clean_windows(START_FACES))
        self._teacher_scores = {
            f"teacher_{name}": score for name, score in scores(self._published, self._held_out).items()
        }

    @property
    def players(self) -> tuple[Player, ...]:
        groups = ({"params": list(self._network.parameters()), "peak": PEAK_RATE},)
        return (Player("landmarks", Objective(self._network), groups, self._network, decay=0.998, clip=50.0),)

    def _clean_windows(self, most: int) -> Tensor:
        rng, pictures = np.random.default_rng(self._seed), self._pictures
        chosen = rng.permutation(len(pictures.faces))[:most]
        return torch.from_numpy(np.stack([small(_window(pictures, n, rng, 0.5)[0]) for n in chosen])).float() / 255.0

    def draw(self, step: int, samples: range) -> Batch:
        return _batch([sample(self._pictures, sample_rng(self._seed, step, number)) for number in samples])

    def start_from(self, folder: Path) -> str:
        self._network.load_state_dict(load_landmarks(folder).state_dict())
        return "the newest weights"

    def validate(self, average: nn.Module) -> dict[str, float]:
        return scores(average, self._held_out) | self._teacher_scores

    def images(self, average: nn.Module) -> Tensor:
        """Covered held-out windows with the points that the network finds."""
        windows, _, presence = self._held_out["covered"]
        shown = windows[presence != 0][:8]
        found = average(shown.float().to(next(average.parameters()).device) / 255.0)[0].unflatten(1, (POINTS, 3)).cpu()
        sheet = np.concatenate([_drawn(w, p) for w, p in zip(shown.numpy(), found.numpy(), strict=True)], axis=1)
        return torch.from_numpy(sheet).permute(2, 0, 1).float() / 127.5 - 1.0

    def save(self, average: nn.Module, folder: Path) -> None:
        save_fresh(self.name, average.state_dict(), folder)


def load_landmarks(folder: Path | None = None) -> LandmarkNet:
    """The trained network: fresh from `folder` where it is, else the committed one. Raises CheckpointError."""
    network = LandmarkNet()
    weights = plain_slopes(load_weights("landmarks", folder))
    network.load_state_dict(fitting(weights, network.state_dict(), "landmarks"))
    return network.eval()


def mesh_distance(device: torch.device) -> Distance:
    """How far the meshes of crops [B, 3, 256, 256] lie from each other, as a share of the eyes' distance, [B].

    Mean over the points, in the picture; no gradient reaches the second crops. 0 where these show no face. Raises
    CheckpointError.
    """
    network = load_landmarks().to(device).requires_grad_(False)

    def seen(crop: Tensor) -> tuple[Tensor, Tensor]:
        points, presence = network(mesh_window(crop.clamp(-1.0, 1.0)).permute(0, 2, 3, 1))
        return points.unflatten(1, (POINTS, 3)), presence[:, 0]

    def distance(made: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            wanted, presence = seen(real)
        away = (seen(made)[0] - wanted)[..., :2].square().sum(2).add(NEAR_PX**2).sqrt().mean(1)
        return torch.where(presence > 0, away / eye_distance(wanted), 0.0)

    return distance


Sample = tuple[NDArray[np.uint8], NDArray[np.float32], float]


def sample(pictures: Pictures, rng: np.random.Generator) -> Sample:
    """One window of 192 px, its points and presence, as in `Batch`."""
    if rng.random() < EMPTY_SHARE:
        return small(spoiled(empty_window(pictures, rng), rng)), _no_points(), 0.0
    # Most windows of a tracked face lie well.
    window, points = _window(pictures, int(rng.integers(len(pictures.faces))), rng, rng.uniform(0, 1) ** 2)
    if rng.random() < CLEAN_SHARE:
        return small(window), points, 1.0
    presence = 1.0
    if rng.random() < COVERED_SHARE:
        window, presence = _covered(window, points, texture_of(pictures, rng), rng)
    return small(spoiled(window, rng)), points, presence


def _covered(
    window: NDArray[np.uint8], points: NDArray[np.float32], texture: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], float]:
    outline = points[:, :2].astype(np.float64) * (CROP_PX / 192)
    hidden, share = covered(window, outline, texture, rng)
    if share > HIDDEN:
        return hidden, 0.0
    return hidden, 1.0 if share < SEEN else -1.0


def _window(
    pictures: Pictures, number: int, rng: np.random.Generator, strength: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A window of 256 px around a face, and its points as the network would give them for 192 px."""
    points = pictures.points[number]
    square = moved_square(points, rng, strength)
    larger = square_from_frame(*square, CROP_PX)
    picture = warp(decoded(pictures.faces[number]), larger, (CROP_PX, CROP_PX), cv2.BORDER_REPLICATE)
    return picture, points_in_window(points, square_from_frame(*square, WINDOW_SIZE))


def _no_points() -> NDArray[np.float32]:
    points = np.zeros((POINTS, 3), np.float32)
    points[EYE_CORNER_RIGHT] = 100.0  # no division by zero
    return points


def _batch(samples: list[Sample]) -> Batch:
    windows, points, presence = zip(*samples, strict=True)
    return (
        torch.from_numpy(np.stack(windows)),
        torch.from_numpy(np.stack(points)),
        torch.tensor(presence, dtype=torch.float32),
    )


def held_out(pictures: Pictures, most: int) -> dict[str, Batch]:
    """Fixed windows of validation faces, clean and covered, and as many without a face."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(pictures.faces))[:most]
    clean = [(*_window(pictures, int(n), rng, 0.5), 1.0) for n in chosen]
    hidden = []
    for window, points, _ in clean:
        pasted, presence = _covered(window, points, texture_of(pictures, rng), rng)
        hidden.append((small(pasted), points, presence))
    empty = [(small(empty_window(pictures, rng)), _no_points(), 0.0) for _ in chosen]
    kinds = {"clean": [(small(window), points, there) for window, points, there in clean], "covered": hidden}
    return {name: _batch(samples) for name, samples in (kinds | {"empty": empty}).items()}


@torch.no_grad()
def scores(network: nn.Module, batches: Mapping[str, Batch]) -> dict[str, float]:
    """Mean distance of the points in percent of the eyes', clean and covered, and how often presence is wrong."""
    told, device = {}, next(network.parameters()).device
    for name, (windows, points, presence) in batches.items():
        answers = [network(part.to(device).float() / 255.0) for part in windows.split(32)]
        found = torch.cat([answer[0] for answer in answers]).cpu().unflatten(1, (POINTS, 3))
        sure = torch.cat([answer[1][:, 0] for answer in answers]).cpu() > 0
        there = presence > 0
        if there.any():
            away = (found - points)[there, :, :2].norm(dim=2).mean(1) / eye_distance(points[there])
            told[f"nme_{name}"] = 100.0 * float(away.mean())
            told[f"missed_{name}"] = float((~sure[there]).float().mean())
        if (presence == 0).any():
            told[f"false_{name}"] = float(sure[presence == 0].float().mean())
    return told


def _drawn(window: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    picture = window.copy()
    for x, y in transform_points(np.eye(2, 3), points[:, :2] - 0.5):
        cv2.circle(picture, (round(x), round(y)), 0, (0, 255, 0), 1)
    return picture
