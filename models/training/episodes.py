"""Episodes for the recurrent encoder: a few consecutive aligned crops, from clips or from a still set in motion."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import UsageError
from engine.geometry import CROP_SIZE, Affine, compose, invert_affine
from models.training.augment import change_light, cut_off, draw_degradation, misalign
from models.training.packs import ClipSequence
from models.training.samples import image_tensor

LONGEST_STRIDE = 3
CHANGING_LIGHT, CUT_OFF = 0.25, 0.1
"""Shares of the episodes whose light changes, and whose crops reach beyond the picture."""

FLIPPED: Affine = np.array([[-1.0, 0.0, CROP_SIZE - 1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class Episode:
    """T frames of B faces.

    crops: RGB [-1, 1] [T, B, 3, 256, 256]. canvas_from_crop: float64 [T, B, 2, 3], from each crop to the middle
    frame's, which is the canvas that losses over time are taken on.
    """

    crops: Tensor
    canvas_from_crop: Tensor

    def to(self, device: torch.device) -> "Episode":
        """The same on another device."""
        return Episode(self.crops.to(device), self.canvas_from_crop.to(device))


@dataclass(frozen=True)
class EpisodeSource:
    """Draws episodes: a share from clips, the others from stills that drift by a pixel or two a frame.

    A drifting still is a picture that stands while its crop jitters, as after a tracker's errors; on the canvas it
    does not move at all.
    """

    stills: Sequence[NDArray[np.uint8]]
    clips: Sequence[ClipSequence]
    clip_share: float = 0.4

    def check(self, length: int) -> None:
        """Raises UsageError when there is nothing to draw, or no clip is as long as an episode."""
        if not len(self.stills) and not self.clips:
            raise UsageError("there is neither a clip with a face nor a still to train on")
        longest = max((len(clip.crops) for clip in self.clips), default=length)
        if longest < length:
            raise UsageError(f"an episode has {length} frames, the longest clip {longest}; give a smaller --length")

    def picture(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Any crop, uint8 RGB [256, 256, 3]."""
        clip = self.clips[int(rng.integers(len(self.clips)))] if self.clips else None
        crops = self.stills if clip is None or (len(self.stills) and rng.random() < 0.5) else clip.crops
        return crops[int(rng.integers(len(crops)))]

    def draw(self, length: int, rngs: Sequence[np.random.Generator]) -> Episode:
        """One episode for each generator; webcam degradations are the same over an episode, light may change."""
        drawn = [self._one(length, rng) for rng in rngs]
        crops = [image_tensor(np.stack(frames)) for frames in zip(*(frames for frames, _ in drawn), strict=True)]
        places = np.stack([np.stack(places) for _, places in drawn], axis=1)
        return Episode(torch.stack(crops), torch.from_numpy(places))

    def _one(self, length: int, rng: np.random.Generator) -> tuple[list[NDArray[np.uint8]], list[Affine]]:
        usable = [clip for clip in self.clips if len(clip.crops) >= length]
        if usable and (not len(self.stills) or rng.random() < self.clip_share):
            frames, places = from_clip(usable[int(rng.integers(len(usable)))], length, rng)
        else:
            still = self.stills[int(rng.integers(len(self.stills)))]
            frames, places = drift(misalign(still, rng), length, rng)
        if rng.random() < 0.5:
            frames = [frame[:, ::-1] for frame in frames]
            places = [compose(FLIPPED, compose(place, FLIPPED)) for place in places]
        if rng.random() < CUT_OFF:
            frames = cut_off(frames, rng)
        if rng.random() < CHANGING_LIGHT:
            frames = change_light(frames, rng)
        if rng.random() < 0.4:
            degradation = draw_degradation(rng)
            frames = [degradation.apply(frame, rng) for frame in frames]
        middle = invert_affine(places[length // 2])
        # `places` are frame_from_crop; the canvas is the middle crop.
        return frames, [compose(middle, place) for place in places]


def from_clip(
    clip: ClipSequence, length: int, rng: np.random.Generator
) -> tuple[list[NDArray[np.uint8]], list[Affine]]:
    """Every n-th frame of a stretch of `clip`, n up to 3, and each crop's frame_from_crop."""
    stride = min(int(rng.integers(1, LONGEST_STRIDE + 1)), (len(clip.crops) - 1) // max(length - 1, 1))
    stride = max(stride, 1)
    start = int(rng.integers(0, len(clip.crops) - stride * (length - 1)))
    chosen = [start + stride * t for t in range(length)]
    return [clip.crops[n] for n in chosen], [invert_affine(clip.crop_from_frame[n]) for n in chosen]


def drift(
    image: NDArray[np.uint8], length: int, rng: np.random.Generator
) -> tuple[list[NDArray[np.uint8]], list[Affine]]:
    """A still under a crop in steady motion, and each crop's frame_from_crop; the frame is the still."""
    shift, angle = rng.normal(0, 1.0, 2), rng.normal(0, 0.4)
    frames, places = [], []
    for t in range(length):
        crop_from_frame = cv2.getRotationMatrix2D((127.5, 127.5), angle * t, 1.0)
        crop_from_frame[:, 2] += shift * t
        frames.append(cv2.warpAffine(image, crop_from_frame, (256, 256), borderMode=cv2.BORDER_REFLECT_101))
        places.append(invert_affine(crop_from_frame))
    return frames, places
