"""What webcams do to faces: colour casts, exposure, changing light, blur, noise, compression; small misalignments."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

ImageRgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Degradation:
    """One draw of every degradation, so that all frames of an episode can share it."""

    gain: NDArray[np.float32]
    offset: float
    gamma: float
    blur_sigma: float
    noise: float
    jpeg_quality: int | None

    def apply(self, image: ImageRgb, rng: np.random.Generator) -> ImageRgb:
        """image: uint8 RGB [H, W, 3]; only the noise differs from call to call."""
        x = image.astype(np.float32) / 255.0
        x = np.clip(x, 0, 1) ** self.gamma * self.gain + self.offset
        if self.blur_sigma > 0.3:
            x = cv2.GaussianBlur(x, (0, 0), self.blur_sigma)
        if self.noise > 0:
            x = x + self.noise * rng.standard_normal(x.shape, dtype=np.float32)
        degraded = np.clip(x * 255.0 + 0.5, 0, 255).astype(np.uint8)
        if self.jpeg_quality is not None:
            coded = cv2.imencode(".jpg", degraded, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])[1]
            degraded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return degraded


def draw_degradation(rng: np.random.Generator) -> Degradation:
    """About half of every kind is off in any draw."""
    on = rng.random(5) < 0.5
    return Degradation(
        gain=np.asarray(1.0 + on[0] * rng.uniform(-0.15, 0.15, 3), np.float32),
        offset=float(on[0] * rng.uniform(-0.08, 0.08)),
        gamma=float(np.exp(on[1] * rng.uniform(-0.35, 0.35))),
        blur_sigma=float(on[2] * rng.uniform(0.0, 2.0)),
        noise=float(on[3] * rng.uniform(0.0, 0.05)),
        jpeg_quality=int(rng.integers(30, 90)) if on[4] else None,
    )


def change_light(frames: Sequence[ImageRgb], rng: np.random.Generator) -> list[ImageRgb]:
    """Uint8 RGB frames that grow evenly darker or brighter after the first, to between 0.33 and 1.5 of what they were.

    Casts of colour go along with it, as when a lamp goes out and a screen stays on.
    """
    end = np.exp(rng.uniform(-1.1, 0.4) + rng.normal(0, 0.08, 3))
    gains = end ** np.linspace(0.0, 1.0, len(frames))[:, None]
    return [np.clip(frame * gain + 0.5, 0, 255).astype(np.uint8) for frame, gain in zip(frames, gains, strict=True)]


def cut_off(frames: Sequence[ImageRgb], rng: np.random.Generator) -> list[ImageRgb]:
    """Uint8 RGB frames [S, S, 3] as crops that reach beyond a picture's border, where it is mirrored."""
    size = frames[0].shape[0]
    width = np.rint(rng.uniform(0.0, 0.25, 4) * size * (rng.random(4) < 0.4)).astype(int)
    top, bottom, left, right = (int(n) for n in width)
    inner = (slice(top, size - bottom), slice(left, size - right))
    return [cv2.copyMakeBorder(frame[inner], top, bottom, left, right, cv2.BORDER_REFLECT) for frame in frames]


def misalign(image: ImageRgb, rng: np.random.Generator, strength: float = 1.0) -> ImageRgb:
    """A similarity of a few pixels, degrees and percent, as a live tracker's crops differ from still ones."""
    size = image.shape[0]
    centre = ((size - 1) / 2, (size - 1) / 2)
    angle, scale = strength * rng.normal(0, 1.5), 1.0 + strength * rng.normal(0, 0.015)
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    matrix[:, 2] += strength * rng.normal(0, 0.012 * size, 2)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
