"""Each loss against its equation worked out by hand or in NumPy."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from models.training.losses import (
    LossWeights,
    blend,
    composition,
    composition_loss,
    edit_loss,
    reconstruction_loss,
    soft_masks,
    steadiness_loss,
    temporal_loss,
    total_loss,
    unalign,
)


def images(seed: int, size: int = 16, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def constant_flow(dx: float, dy: float, size: int = 16, batch: int = 2) -> Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(batch, 2, size, size)


def test_reconstruction_is_squared_error_and_four_fifths_of_the_distance():
    made, real = images(0), images(1)
    loss = reconstruction_loss(made, real, lambda a, b: (a - b).abs().flatten(1).sum(1))
    error = (made - real).numpy()
    expected = np.mean(error**2) + 0.8 * np.mean(np.abs(error).reshape(2, -1).sum(1))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_temporal_loss_compares_the_neighbours_brought_onto_the_frame():
    real, made = images(0), images(1)
    loss = temporal_loss(real, made, constant_flow(1.0, 0.0))
    # Every pixel reads its right neighbour; the last column reads itself.
    columns = [*range(1, 16), 15]
    expected = (real - made)[..., columns].abs().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert temporal_loss(real, real, constant_flow(0.3, 2.0)).item() == 0.0
    still = temporal_loss(real, made, constant_flow(0.0, 0.0))
    assert still.item() == pytest.approx((real - made).abs().mean().item(), abs=1e-6)


def test_composition_takes_what_is_visible_from_the_previous_frame():
    previous, after = images(0), images(1)
    visibility = torch.zeros(2, 1, 16, 16)
    visibility[..., :8] = 1.0
    made = composition(visibility, previous, after)
    assert torch.equal(made[..., :8], previous[..., :8])
    assert torch.equal(made[..., 8:], after[..., 8:])
    half = composition(torch.full((2, 1, 16, 16), 0.5), previous, after)
    assert torch.allclose(half, (previous + after) / 2)


def test_composition_loss_is_a_mean_of_absolute_differences():
    assert composition_loss(images(0), images(0) + 0.25).item() == pytest.approx(0.25, rel=1e-5)


def test_total_loss_has_the_papers_weights():
    rec, tc, ibfcc = torch.tensor(1.0), torch.tensor(10.0), torch.tensor(100.0)
    assert total_loss(rec, tc, ibfcc).item() == pytest.approx(1 + 20 + 500)
    assert total_loss(rec, tc, ibfcc, LossWeights(tc=0.0, ibfcc=0.0)).item() == pytest.approx(1.0)


def test_steadiness_is_blind_to_an_error_that_stands_still():
    first, second = images(0), images(1)
    assert steadiness_loss((first + 0.5, second + 0.5), (first, second)).item() == pytest.approx(0.0, abs=1e-6)
    assert steadiness_loss((first, second + 0.5), (first, second)).item() == pytest.approx(0.5, rel=1e-5)


def test_edit_loss_is_the_share_that_is_lost():
    wanted = images(0)
    assert edit_loss(wanted, wanted).item() == 0.0
    assert edit_loss(0.5 * wanted, wanted).item() == pytest.approx(0.5, rel=0.05)
    assert edit_loss(torch.zeros_like(wanted), wanted).item() == pytest.approx(1.0, rel=0.05)
    # A small edit counts as much as a large one.
    assert edit_loss(torch.zeros_like(wanted), 0.2 * wanted).item() == pytest.approx(1.0, rel=0.12)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_unaligning_by_the_identity_changes_nothing(size: int):
    image = images(0, size)
    identity = torch.eye(2, 3, dtype=torch.float64).expand(2, 2, 3)
    assert (unalign(image, identity) - image).abs().max().item() < 1e-6


def test_unaligning_is_opencvs_warp():
    image = images(0, 256, batch=1)
    canvas_from_crop = cv2.getRotationMatrix2D((127.5, 120.0), 7.0, 0.94)
    canvas_from_crop[:, 2] += (3.25, -6.5)
    made = unalign(image, torch.from_numpy(canvas_from_crop)[None], padding="zeros")
    expected = cv2.warpAffine(image[0].permute(1, 2, 0).numpy(), canvas_from_crop, (256, 256))
    difference = np.abs(made[0].permute(1, 2, 0).numpy() - expected)[8:-8, 8:-8]
    # OpenCV rounds source coordinates to 1/32 pixel.
    assert np.mean(difference) < 0.02
    assert np.mean(difference) < 0.1 * np.abs(expected).mean()


def test_unaligning_agrees_over_sizes():
    smooth = torch.nn.functional.interpolate(images(0, 8, batch=1), size=256, mode="bicubic")
    shift = torch.tensor([[[1.0, 0.0, 16.0], [0.0, 1.0, -8.0]]], dtype=torch.float64)
    full = torch.nn.functional.avg_pool2d(unalign(smooth, shift), 2)
    half = unalign(torch.nn.functional.avg_pool2d(smooth, 2), shift)
    # The border's edge pixels are other pixels at another size.
    assert (full - half)[..., 12:-12, 12:-12].abs().max().item() < 1e-5


def test_gradients_pass_through_unaligning():
    image = images(0, 32, batch=1).requires_grad_()
    shift = torch.tensor([[[1.0, 0.0, 8.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    unalign(image, shift)[..., 16].sum().backward()
    # 8 crop pixels are one of these 32: column 16 shows column 15.
    assert image.grad is not None
    assert image.grad[..., 15].abs().min().item() == pytest.approx(1.0)
    assert image.grad[..., 17].abs().max().item() == 0.0


def test_soft_masks_lie_inside_the_face_and_leave_the_crops_border():
    inside = torch.ones(1, 1, 64, 64)
    inside[..., :20] = 0.0
    mask = soft_masks(inside, erode=4, feather=5)
    assert mask.shape == inside.shape
    assert mask[..., :22].max().item() == 0.0
    assert mask[0, 0, 32, 40].item() == 1.0
    assert mask[0, 0, 0].max().item() == 0.0
    assert 0.0 < mask[0, 0, 32, 24].item() < 1.0


def test_blending_takes_the_frame_outside_the_mask():
    face, frame = images(0), images(1)
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 4:8, 4:8] = 1.0
    out = blend(face, frame, mask)
    assert torch.equal(out[..., 4:8, 4:8], face[..., 4:8, 4:8])
    assert torch.equal(out[..., 8:, :], frame[..., 8:, :])
