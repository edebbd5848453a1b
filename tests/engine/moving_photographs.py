"""Frames made of one FFHQ photograph: laid on a blurred backdrop, moved, made noisy, sent through H.264."""

import io
from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np

from engine.frames import ImageU8
from engine.geometry import Affine, invert_affine, square_from_frame, warp

NOISE = 4.0
"""Standard deviation of the noise that each frame gets of its own, in grey levels."""


def placed(x: float, y: float, half_side_px: float, degrees: float = 0.0) -> Affine:
    """Where the photograph lies in the frame, as photograph_from_frame."""
    angle = np.deg2rad(degrees)
    return square_from_frame(np.array([x, y]), half_side_px * np.array([np.cos(angle), np.sin(angle)]), 256)


def photograph_frame(photograph: ImageU8, photograph_from_frame: Affine, size: tuple[int, int]) -> ImageU8:
    """The photograph (256 x 256, FFHQ-aligned) in a frame of (width, height), with a soft edge."""
    frame_from_photograph = invert_affine(photograph_from_frame)
    backdrop = cv2.resize(cv2.GaussianBlur(cv2.resize(photograph, (64, 64)), (0, 0), 2.0), size)
    edge = cv2.GaussianBlur(np.pad(np.ones((236, 236), np.float32), 10), (0, 0), 4)
    alpha = warp(edge, frame_from_photograph, size, cv2.BORDER_CONSTANT)[..., None]
    face = warp(photograph, frame_from_photograph, size)
    return np.clip(face * alpha + backdrop * (1.0 - alpha), 0, 255).astype(np.uint8)


def noisy(frames: Iterable[ImageU8], seed: int = 0) -> list[ImageU8]:
    """The frames with independent noise of `NOISE` grey levels."""
    rng = np.random.default_rng(seed)
    return [np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


def through_h264(frames: list[ImageU8], fps: int = 30, crf: int = 23) -> list[ImageU8]:
    """The frames after encoding and decoding."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def clip_frames(path: Path, count: int, first: int = 0) -> list[ImageU8]:
    """`count` frames of a clip, from number `first` on."""
    frames: list[ImageU8] = []
    with av.open(path) as container:
        for n, frame in enumerate(container.decode(video=0)):
            if n >= first + count:
                break
            if n >= first:
                frames.append(frame.to_ndarray(format="bgr24"))
    return frames
