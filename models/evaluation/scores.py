"""All metrics of one clip: what depends on the source alone, once, and then the scores of each rollout.

The first frame of a track is left out for every variant: RIGID's is the input itself there, a baseline's is not.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import SourceError
from models.evaluation.fvd import ClipFeatures, Features
from models.evaluation.identity import Embeddings, unit
from models.evaluation.judges import Judges
from models.evaluation.metrics import mse_x100, tg_id, tl_id, trusted_masks, warp_errors
from models.evaluation.rollout import Rollout
from models.evaluation.view import FaceView
from models.pictures import Pictures, images_from

_PAIRS = 4
"""Pairs of frames that are warped together; bounds the memory."""


@dataclass(frozen=True)
class Motion:
    """How a source video moves. forward: flow(t -> t+1), [T - 1, 2, H, W]. trusted: M, [T - 1, H, W]."""

    forward: Tensor
    trusted: Tensor

    @classmethod
    def of(cls, frames: Pictures, masks: NDArray[np.float32], judges: Judges) -> "Motion":
        """The motion of RGB frames [T, H, W, 3] inside masks [T, H, W]; SourceError when no pixel can be trusted."""
        forward, backward = judges.flows(frames)
        trusted = trusted_masks(torch.from_numpy(masks), forward, backward)
        if not trusted.any():
            raise SourceError(
                "no pixel of a face has a flow to trust; a clip with a visible, connected face was expected"
            )
        return cls(forward, trusted)

    def errors(self, video: Pictures) -> NDArray[np.float64]:
        """`metrics.warp_errors` of a video under this motion, [T - 1]; nan for a pair with nothing to trust."""
        parts = []
        for start in range(0, len(video) - 1, _PAIRS):
            pairs = slice(start, start + _PAIRS)
            images = torch.from_numpy(images_from(video[start : start + _PAIRS + 1]))
            parts.append(warp_errors(images, self.forward[pairs], self.trusted[pairs]))
        return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Reference:
    """What the source alone says, of its frames from the second on (T of them).

    crops: [T, 256, 256, 3]. motion: of the crops inside the face; errors: the source's own warp errors there, [T - 1],
    the floor. view, view_motion, view_error: the same on full frames inside the face rectangle, the error as a mean.
    identities: unit embeddings [T, 128]. features: I3D's, of the crops' windows.
    """

    crops: Pictures
    motion: Motion
    errors: NDArray[np.float64]
    view: FaceView
    view_motion: Motion
    view_error: float
    identities: Embeddings
    features: Features

    @property
    def warp_error(self) -> float:
        """The source's own warp error on crops."""
        return float(np.nanmean(self.errors))


@dataclass(frozen=True)
class ClipScores:
    """Scores of one rollout (RIGID, Tables 1 and 2).

    mse_x100 (on [-1, 1]), perceptual and warp_error (0-255 squared, on crops inside the face), warp_error_frame (on
    frames inside the face rectangle) are the inversion's; tl_id and tg_id the edit's; warp_error_shown is, on crops,
    that of what the viewer sees.
    """

    mse_x100: float
    perceptual: float
    warp_error: float
    warp_error_frame: float
    warp_error_shown: float
    tl_id: float
    tg_id: float

    def named(self, distance_name: str) -> dict[str, float]:
        """The scores by name, the perceptual distance under its own (`Judges.distance_name`)."""
        return {distance_name if name == "perceptual" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Curves:
    """The inversion over time. mse_x100: of each frame, [T]; warp_error: of each neighbouring pair, [T - 1]."""

    mse_x100: NDArray[np.float64]
    warp_error: NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What is said of one rollout."""

    scores: ClipScores
    curves: Curves
    features: ClipFeatures


def take_reference(crops: Pictures, masks: NDArray[np.float32], view: FaceView, judges: Judges) -> Reference:
    """Flow, trusted pixels, identities and video features of a source clip.

    crops: uint8 RGB [T + 1, 256, 256, 3], the anchor's frame first. masks: the faces in them, [T + 1, 256, 256]. view:
    the same frames. Raises SourceError when no pixel can be trusted.
    """
    crops, view = crops[1:], view.without_first()
    motion = Motion.of(crops, masks[1:], judges)
    view_motion = Motion.of(view.rgb, view.faces, judges)
    return Reference(
        crops=crops,
        motion=motion,
        errors=motion.errors(crops),
        view=view,
        view_motion=view_motion,
        view_error=float(np.nanmean(view_motion.errors(view.rgb))),
        identities=unit(judges.embedder.embed(crops)),
        features=judges.windows.read(crops),
    )


def score_rollout(reference: Reference, rollout: Rollout, judges: Judges) -> Scored:
    """The scores of what the loop drew for the clip of `reference`; the rollout's first frame is the anchor's."""
    inversions, edits = rollout.inversions[1:], rollout.edits[1:]
    identities = unit(judges.embedder.embed(edits))
    curves = Curves(squared_errors(reference.crops, inversions), reference.motion.errors(inversions))
    pasted = reference.view.with_crops(inversions)
    scores = ClipScores(
        mse_x100=float(np.mean(curves.mse_x100)),
        perceptual=float(np.mean(judges.perceptual_distances(reference.crops, inversions))),
        warp_error=float(np.nanmean(curves.warp_error)),
        warp_error_frame=float(np.nanmean(reference.view_motion.errors(pasted))),
        warp_error_shown=float(np.nanmean(reference.motion.errors(rollout.shown[1:]))),
        tl_id=tl_id(reference.identities, identities),
        tg_id=tg_id(reference.identities, identities),
    )
    read = judges.windows.read
    return Scored(scores, curves, ClipFeatures(reference.features, read(inversions), read(edits)))


def squared_errors(a: Pictures, b: Pictures) -> NDArray[np.float64]:
    """MSE x100 on [-1, 1] of each pair of pictures, [N]."""
    pairs = zip(a, b, strict=True)
    return np.array([mse_x100(images_from(x[None]), images_from(y[None])) for x, y in pairs])
