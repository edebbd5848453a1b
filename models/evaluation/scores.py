"""All metrics of one clip: what depends on the source alone, once, and then the scores of each rollout.

The first frame of a track is left out for every variant: RIGID's is the input itself there, a baseline's is not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import SourceError
from models.evaluation.identity import Embeddings, FaceEmbedder, unit
from models.evaluation.metrics import mse_x100, tg_id, tl_id, trusted_masks, warp_errors
from models.evaluation.rollout import Pictures, Rollout, images_from
from models.flow import SpyNet
from models.perceptual import StLpips
from models.scorers import FaceScorers

_WINDOW = 4
"""Pairs of frames that go through a metric's network together; bounds the memory."""


@dataclass(frozen=True)
class Judges:
    """The networks that score pictures.

    fast: ST-LPIPS and flow in bfloat16, about four times as fast on a processor that has it; the scores move in their
    third digit.
    """

    distance: StLpips
    flow: SpyNet
    embedder: FaceEmbedder
    scorers: FaceScorers
    fast: bool = False

    @classmethod
    def load(cls, fast: bool = False) -> "Judges":
        """All of them, from the asset cache; raises AssetMissing when one is not there."""
        return cls(StLpips.load(), SpyNet.load(), FaceEmbedder.load(), FaceScorers.open(), fast)

    @torch.no_grad()
    def perceptual_distances(self, a: Pictures, b: Pictures) -> NDArray[np.float32]:
        """ST-LPIPS of each pair of pictures at their own size, [N]."""
        pairs = zip(a, b, strict=True)
        images = ((torch.from_numpy(images_from(x[None])), torch.from_numpy(images_from(y[None]))) for x, y in pairs)
        with self._arithmetic():
            return np.array([self.distance(x, y).item() for x, y in images], dtype=np.float32)

    def flows(self, crops: Pictures) -> tuple[Tensor, Tensor]:
        """flow(t -> t+1) and flow(t+1 -> t) of neighbouring crops, float32 [T - 1, 2, H, W] each."""
        images = torch.from_numpy(images_from(crops)) / 2 + 0.5
        with self._arithmetic():
            return self.flow(images[:-1], images[1:]).float(), self.flow(images[1:], images[:-1]).float()

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.fast)


@dataclass(frozen=True)
class Reference:
    """What the source alone says, of its frames from the second on (T of them).

    crops: [T, 256, 256, 3]. forward: flow(t -> t+1), [T - 1, 2, 256, 256]. trusted: M of the warp error,
    [T - 1, 256, 256]. identities: unit embeddings [T, 128]. warp_error: the source's own, the floor.
    """

    crops: Pictures
    forward: Tensor
    trusted: Tensor
    identities: Embeddings
    warp_error: float


@dataclass(frozen=True)
class ClipScores:
    """Scores of one rollout.

    mse_x100 (on [-1, 1]), st_lpips and warp_error (0-255 squared, inside the face) are the inversion's; tl_id and tg_id
    the edit's. st_lpips: AlexNet trunk at 256 px, not comparable with LPIPS.
    """

    mse_x100: float
    st_lpips: float
    warp_error: float
    tl_id: float
    tg_id: float


def take_reference(crops: Pictures, masks: NDArray[np.float32], judges: Judges) -> Reference:
    """Flow, trusted pixels and identities of a source clip; raises SourceError when no pixel can be trusted.

    crops: uint8 RGB [T + 1, 256, 256, 3], the anchor's frame first. masks: the faces in them, [T + 1, 256, 256].
    """
    crops, faces = crops[1:], torch.from_numpy(masks[1:])
    forwards, trusted = [], []
    for frames, _ in _windows(len(crops)):
        forward, backward = judges.flows(crops[frames])
        forwards.append(forward)
        trusted.append(trusted_masks(faces[frames], forward, backward))
    forward, mask = torch.cat(forwards), torch.cat(trusted)
    if not mask.any():
        raise SourceError("no pixel of a face has a flow to trust; a clip with a visible, connected face was expected")
    identities = unit(judges.embedder.embed(crops))
    return Reference(crops, forward, mask, identities, _warp_error(crops, forward, mask))


def score_rollout(reference: Reference, rollout: Rollout, judges: Judges) -> ClipScores:
    """The scores of what the loop drew for the clip of `reference`; the rollout's first frame is the anchor's."""
    inversions, edits = rollout.inversions[1:], rollout.edits[1:]
    identities = unit(judges.embedder.embed(edits))
    return ClipScores(
        mse_x100=float(np.mean(squared_errors(reference.crops, inversions))),
        st_lpips=float(np.mean(judges.perceptual_distances(reference.crops, inversions))),
        warp_error=_warp_error(inversions, reference.forward, reference.trusted),
        tl_id=tl_id(reference.identities, identities),
        tg_id=tg_id(reference.identities, identities),
    )


def squared_errors(a: Pictures, b: Pictures) -> NDArray[np.float64]:
    """MSE x100 on [-1, 1] of each pair of pictures, [N]."""
    pairs = zip(a, b, strict=True)
    return np.array([mse_x100(images_from(x[None]), images_from(y[None])) for x, y in pairs])


def _warp_error(video: Pictures, forward: Tensor, trusted: Tensor) -> float:
    """`metrics.warp_error` of a long video, a window at a time."""
    errors = [
        warp_errors(torch.from_numpy(images_from(video[frames])), forward[pairs], trusted[pairs])
        for frames, pairs in _windows(len(video))
    ]
    return float(torch.nanmean(torch.cat(errors)))


def _windows(frames: int) -> Iterator[tuple[slice, slice]]:
    """Windows that share one frame with the next, and the pairs of neighbouring frames that each one covers."""
    for start in range(0, frames - 1, _WINDOW):
        stop = min(start + _WINDOW, frames - 1)
        yield slice(start, stop + 1), slice(start, stop)
