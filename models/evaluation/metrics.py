"""The numbers of the RIGID paper (ICCV 2023, Tables 1 to 3) as pure functions, defined to the last constant.

MSE, WE, TL-ID and TG-ID are here, and how far a mouth follows, which is ours; LPIPS is in `lpips.py` (ST-LPIPS in
`models/perceptual.py`), FVD in `fvd.py`. Video axes: T frames. Images are float32 RGB [T, 3, H, W] in [-1, 1]; flows as
in `models/flow.py`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.flow import warp

# Sundaram, Brox and Keutzer, ECCV 2010, as used for warp errors since Ruder et al., 2016.
_OCCLUSION_SHARE, _OCCLUSION_PX2 = 0.01, 0.5
_BOUNDARY_SHARE, _BOUNDARY_PX2 = 0.01, 0.002


def mse_x100(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """MSE x100 of RIGID, Table 1: 100 x the mean squared difference of two arrays of images in [-1, 1].

    The paper does not give its range; its figures fit this one. On [0, 1] they would be a quarter.
    """
    return 100.0 * float(np.mean(np.square(a.astype(np.float64) - b)))


def unreliable(forward: Tensor, backward: Tensor) -> Tensor:
    """Where a flow must not be trusted, bool [T, H, W]: occluded pixels and motion boundaries.

    forward: flow(t -> t+1), f; backward: flow(t+1 -> t), b; [T, 2, H, W] in pixels. With b_w = warp(b, f): occluded
    where |b_w + f|^2 > 0.01 (|b_w|^2 + |f|^2) + 0.5, a boundary where |grad f|^2 > 0.01 |f|^2 + 0.002, the gradient
    being differences to the next pixel to the right and below, of both components.
    """
    back = warp(backward, forward)
    length2 = forward.square().sum(dim=1)
    disagreement2 = (back + forward).square().sum(dim=1)
    occluded = disagreement2 > _OCCLUSION_SHARE * (back.square().sum(dim=1) + length2) + _OCCLUSION_PX2
    right = F.pad(forward.diff(dim=3), (0, 1))
    below = F.pad(forward.diff(dim=2), (0, 0, 0, 1))
    slope2 = (right.square() + below.square()).sum(dim=1)
    return occluded | (slope2 > _BOUNDARY_SHARE * length2 + _BOUNDARY_PX2)


def trusted_masks(masks: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """M of the warp error, float [T - 1, H, W]: the face mask of frame t where the flow from it can be trusted.

    masks: [T, H, W] in [0, 1]. forward, backward: [T - 1, 2, H, W], estimated on the ORIGINAL frames.
    """
    return masks[:-1] * (~unreliable(forward, backward)).to(masks.dtype)


def warp_errors(video: Tensor, forward: Tensor, trusted: Tensor) -> Tensor:
    """WE_t = sum M (warp(V_{t+1}, f) - V_t)^2 / sum M of each neighbouring pair, [T - 1], on 0-255 squared.

    The warp error of RIGID, Table 1, as Lai et al. define it ("Learning Blind Video Temporal Consistency", ECCV 2018),
    on the scale that the paper's figures suggest. A blurred or still face has a low one: quote it only beside MSE.
    video: [T, 3, H, W] in [-1, 1]. forward: flow(t -> t+1) of the original, [T - 1, 2, H, W]. trusted: M,
    [T - 1, H, W]. The square is averaged over the three channels. A pair with an empty M gives nan: it says nothing.
    """
    levels = (video.double() + 1.0) * 127.5
    squared = (warp(levels[1:], forward) - levels[:-1]).square().mean(dim=1)
    mask = trusted.double()
    return (mask * squared).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def warp_error(video: Tensor, forward: Tensor, trusted: Tensor) -> float:
    """Mean of `warp_errors` over the pairs that have a trusted pixel; nan when none has."""
    return float(torch.nanmean(warp_errors(video, forward, trusted)))


def tl_id(source: NDArray[np.float32], edited: NDArray[np.float32]) -> float:
    """Temporally local identity, TL-ID of RIGID, Table 2: mean_i E[i, i+1] / S[i, i+1].

    source, edited: unit identity embeddings [T, D] of the two videos, T >= 2; S and E are their Gram matrices. 1 means
    that neighbouring edited frames show one person as much as the source's do (Tzaban et al., SIGGRAPH Asia 2022).
    """
    in_source = np.sum(source[:-1] * source[1:], axis=1)
    in_edited = np.sum(edited[:-1] * edited[1:], axis=1)
    return float(np.mean(in_edited / in_source))


def tg_id(source: NDArray[np.float32], edited: NDArray[np.float32]) -> float:
    """Temporally global identity, TG-ID of RIGID, Table 2: the mean of E_ij / S_ij over all i != j.

    Arguments and source as in `tl_id`.
    """
    elsewhere = ~np.eye(len(source), dtype=bool)
    return float(np.mean((edited @ edited.T)[elsewhere] / (source @ source.T)[elsewhere]))


STILL_MOUTH = 0.01
"""Deviation of a mouth's opening, as a share of the distance of the eyes' outer corners, below which it rests."""


def mouth_followed(source: NDArray[np.float32], edited: NDArray[np.float32]) -> float | None:
    """How far the edited mouth opens as the source's does: the slope of least squares, 1 for all the way.

    source, edited: how far the lips are apart on each frame, [T] (`FaceMeasures.mouth_open`). None where the source's
    mouth hardly moves.
    """
    if source.std() < STILL_MOUTH:
        return None
    away = source - source.mean()
    return float(away @ edited / (away @ away))
