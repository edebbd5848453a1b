"""RIGID's training losses (rigid.md, Eqs. 8-16), each a pure function of tensors.

Images are RGB [-1, 1] [B, 3, S, S]; every norm is a mean over pixels, so ||.||_2 is the mean squared error. Losses over
time are taken on the *canvas*: the frame around the face, as the crop of the episode's middle frame sees it, in which
the crops of all frames are laid where they belong. Warps are `models/flow.py`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.geometry import CROP_SIZE
from models.flow import warp

LOSS_RESOLUTION = 128
"""Pixels at which perceptual distances and losses over time are taken."""

PERCEPTUAL_WEIGHT = 0.8
"""Of LPIPS against the squared error in L_rec."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Perceptual distance of two batches of images, [B]."""


@dataclass(frozen=True)
class LossWeights:
    """Of the terms of Eq. 16; the defaults are the paper's."""

    rec: float = 1.0
    tc: float = 2.0
    ibfcc: float = 5.0


def reconstruction_loss(made: Tensor, real: Tensor, distance: Distance) -> Tensor:
    """L_rec of one frame: ||I_t - O_t||_2 + 0.8 LPIPS(I_t, O_t) (Eqs. 10-12)."""
    return F.mse_loss(made, real) + PERCEPTUAL_WEIGHT * distance(made, real).mean()


def patch_reconstruction(made: Tensor, crop: Tensor, distance: Distance) -> Tensor:
    """L_rec at 128 px; from a larger image also on a random patch, for patterns that vanish when averaged.

    made: [B, 3, S, S], S a multiple of 128; crop: at that size or a multiple of it.
    """
    real = F.avg_pool2d(crop, crop.shape[-1] // made.shape[-1])
    times = made.shape[-1] // LOSS_RESOLUTION
    loss = reconstruction_loss(F.avg_pool2d(made, times), F.avg_pool2d(real, times), distance)
    if times == 1:
        return loss
    y, x = (int(v) for v in torch.randint(0, made.shape[-1] - LOSS_RESOLUTION + 1, (2,)))
    patch = (..., slice(y, y + LOSS_RESOLUTION), slice(x, x + LOSS_RESOLUTION))
    return 0.5 * loss + 0.5 * reconstruction_loss(made[patch], real[patch], distance)


def temporal_loss(real_previous: Tensor, made_previous: Tensor, flow: Tensor) -> Tensor:
    """L_tc of one frame: ||W(I_{t-1}, f) - W(O_{t-1}, f)||_1 (Eqs. 13-15).

    flow: flow(t -> t-1) of the real frames, [B, 2, S, S] px, so that both neighbours are brought onto frame t.
    """
    return F.l1_loss(warp(made_previous, flow), warp(real_previous, flow))


def composition(visibility: Tensor, from_previous: Tensor, from_next: Tensor) -> Tensor:
    """E^_t = V . W(E_{t-1}) + (1 - V) . W(E_{t+1}) (Eq. 8); the warped neighbours and V [B, 1, S, S] in [0, 1]."""
    return visibility * from_previous + (1.0 - visibility) * from_next


def composition_loss(edit: Tensor, composed: Tensor) -> Tensor:
    """L_ibfcc of one frame: ||E_t - E^_t||_1 (Eq. 9)."""
    return F.l1_loss(edit, composed)


def total_loss(rec: Tensor, tc: Tensor, ibfcc: Tensor, weights: LossWeights | None = None) -> Tensor:
    """L_total = 1 L_rec + 2 L_tc + 5 L_ibfcc (Eq. 16), of an episode's sums."""
    weights = weights or LossWeights()
    return weights.rec * rec + weights.tc * tc + weights.ibfcc * ibfcc


def steadiness_loss(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """|(O_t - O_{t-1}) - (I_t - I_{t-1})|: what moves in the inversion and not in the video, or otherwise.

    Not the paper's. L_tc is a reconstruction loss seen through a warp; this one is blind to an error that stands still.
    """
    return F.l1_loss(made[1] - made[0], real[1] - real[0])


def edit_loss(change: Tensor, wanted: Tensor) -> Tensor:
    """How much of an edit is lost: |change - wanted| as a share of |wanted|, per face, so that small edits count.

    Not the paper's: it keeps the noise map from carrying the face, which no slider would move any more. change, wanted:
    what the edit does to the image with the noise map and without it.
    """
    lost, size = (x.abs().flatten(1).mean(1) for x in (change - wanted, wanted))
    return (lost / (size + 0.01)).mean()


def unalign(image: Tensor, canvas_from_crop: Tensor, padding: str = "border") -> Tensor:
    """UA: a crop laid where it belongs on the canvas, bilinear, differentiable in the image.

    image: [B, C, S, S], a crop at any size S. canvas_from_crop: float64 [B, 2, 3], between `CROP_SIZE` pixels of crop
    and canvas (centres at integers). padding: what lies beyond the crop, its edge ("border") or 0 ("zeros"). Returns
    [B, C, S, S]; the identity transform changes nothing.
    """
    size = image.shape[-1]
    linear = torch.linalg.inv(canvas_from_crop[:, :, :2].double())
    shift = -linear @ canvas_from_crop[:, :, 2:].double()
    # Areas agree at every size, so coordinates are taken as shares of the side: u = (x + 0.5) / side.
    shares = (torch.arange(size, dtype=torch.float64, device=image.device) + 0.5) / size
    y, x = torch.meshgrid(shares, shares, indexing="ij")
    canvas_px = torch.stack((x, y), dim=-1).reshape(1, -1, 2) * CROP_SIZE - 0.5
    crop_px = canvas_px @ linear.transpose(1, 2) + shift.transpose(1, 2)
    grid = (crop_px + 0.5) * (2.0 / CROP_SIZE) - 1.0
    grid = grid.reshape(-1, size, size, 2)
    read = F.grid_sample(image.double(), grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return read.to(image.dtype)


def soft_masks(inside: Tensor, erode: int, feather: int) -> Tensor:
    """The blend's mask: what the parser calls face, eroded and with a soft edge; [B, 1, S, S] in [0, 1].

    inside: 0 or 1, [B, 1, S, S]. erode, feather: pixels at this size; the crop's border counts as outside.
    """
    inside = F.pad(inside, (erode,) * 4)
    eroded = -F.max_pool2d(-inside, 2 * erode + 1, stride=1)
    width = feather | 1
    return F.avg_pool2d(F.pad(eroded, (width // 2,) * 4), width, stride=1)


def blend(image: Tensor, frame: Tensor, mask: Tensor) -> Tensor:
    """B: the image over the frame where the mask says so (Eqs. 6 and 7), all on the canvas."""
    return mask * image + (1.0 - mask) * frame
