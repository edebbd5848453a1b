"""Episodes for the recurrent encoder: a few consecutive aligned crops, from clips or from a still set in motion."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine.assets import asset_path
from engine.geometry import align
from engine.tracking import FaceTrack, Tracker
from models.training.augment import draw_degradation, misalign
from models.training.log import checkpoint_dir
from models.training.samples import image_tensor
from models.training.splits import Split, load_splits

MAX_FRAMES_A_CLIP = 150
CropSequence = NDArray[np.uint8]
"""Aligned crops of one face in order, uint8 RGB [T, 256, 256, 3]."""


def open_tracker(threads: int = 2) -> Tracker:
    """The tracker with the pinned detector and mesh. Raises AssetMissing."""
    return Tracker.open(asset_path("face_detector_full"), asset_path("face_mesh"), threads)


def aligned_crops(clip: Path, tracker: Tracker, most: int = MAX_FRAMES_A_CLIP) -> Iterator[CropSequence]:
    """The largest face's crops of `clip`, a sequence for each stretch without a loss or a change of identity."""
    tracks: tuple[FaceTrack, ...] = ()
    sequence: list[NDArray[np.uint8]] = []
    identity: int | None = None
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == most:
                break
            image = frame.to_ndarray(format="bgr24")
            captured_ns = int((frame.time if frame.time is not None else index / 25) * 1e9)
            tracks = tracker.track(tracks, image, captured_ns, wanted=1)
            if sequence and (not tracks or tracks[0].track_id != identity):
                yield np.stack(sequence)
                sequence = []
            if tracks:
                identity = tracks[0].track_id
                sequence.append(align(image, tracks[0].crop_from_frame)[..., ::-1])
    if sequence:
        yield np.stack(sequence)


def load_clips(root: Path, split: Split) -> list[CropSequence]:
    """Aligned crops of every clip of `split`, kept in the cache folder."""
    tracker: Tracker | None = None
    sequences: list[CropSequence] = []
    for clip in tqdm(load_splits().clips(root, split), desc=f"{split} clips", disable=None):
        path = checkpoint_dir("clips") / f"{clip.stem}-{MAX_FRAMES_A_CLIP}.npz"
        if not path.exists():
            tracker = tracker or open_tracker()
            path.parent.mkdir(parents=True, exist_ok=True)
            found = [s for s in aligned_crops(clip, tracker) if len(s) >= 4]
            partial = path.with_name(path.stem + ".partial.npz")
            np.savez(partial, *found)
            partial.replace(path)
        with np.load(path) as pack:
            sequences += [pack[name] for name in pack.files]
    return sequences


def load_stills(root: Path, split: Split) -> NDArray[np.uint8]:
    """Every 256 px still face of `split`, uint8 RGB [N, 256, 256, 3]."""
    images = [cv2.imread(str(path)) for path in load_splits().faces(root, split)]
    return np.stack([image[..., ::-1] for image in images if image is not None and image.shape[0] == 256])


@dataclass(frozen=True)
class EpisodeSource:
    """Draws episodes: half from clips, half from stills that drift by a pixel or two a frame."""

    stills: NDArray[np.uint8]
    clips: list[CropSequence]
    clip_share: float = 0.4

    def draw(self, batch: int, length: int, rng: np.random.Generator) -> Tensor:
        """Crops [T, B, 3, 256, 256] RGB [-1, 1]; webcam degradations are the same over an episode."""
        episodes = [self._one(length, rng) for _ in range(batch)]
        return torch.stack([image_tensor(np.stack(frames)) for frames in zip(*episodes, strict=True)])

    def _one(self, length: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        if self.clips and rng.random() < self.clip_share:
            clip = self.clips[int(rng.integers(len(self.clips)))]
            stride = min(int(rng.integers(1, 4)), (len(clip) - 1) // (length - 1))
            start = int(rng.integers(0, len(clip) - stride * (length - 1)))
            frames = [clip[start + stride * t] for t in range(length)]
        else:
            still = self.stills[int(rng.integers(len(self.stills)))]
            frames = drift(misalign(still, rng, 0.5), length, rng)
        if rng.random() < 0.5:
            frames = [frame[:, ::-1] for frame in frames]
        if rng.random() < 0.4:
            degradation = draw_degradation(rng)
            frames = [degradation.apply(frame, rng) for frame in frames]
        return frames


def drift(image: NDArray[np.uint8], length: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """A still in steady motion: what a head that turns in the picture plane looks like after a tracker's errors."""
    shift, angle = rng.normal(0, 1.0, 2), rng.normal(0, 0.4)
    frames = []
    for t in range(length):
        matrix = cv2.getRotationMatrix2D((127.5, 127.5), angle * t, 1.0)
        matrix[:, 2] += shift * t
        frames.append(cv2.warpAffine(image, matrix, (256, 256), borderMode=cv2.BORDER_REFLECT_101))
    return frames
