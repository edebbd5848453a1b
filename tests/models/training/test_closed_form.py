"""The base encoder's closed form on problems with a known answer."""

import numpy as np
import torch

from models.encoder import BaseEncoder, BaseEncoderConfig
from models.perceptual import STAGE_WIDTHS
from models.training.closed_form import _level, _set_low_rank, dual_ridge, levels, narrowed, r2
from models.training.samples import image_tensor


def test_dual_ridge_equals_primal() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 7), torch.randn(40, 3)
    strength = 0.2
    dual = x.T @ dual_ridge(x, y, strength)
    penalty = strength * (x @ x.T).diagonal().mean()
    primal = torch.linalg.solve(x.T @ x + penalty * torch.eye(7), x.T @ y)
    assert torch.allclose(dual, primal, atol=1e-4)


def test_low_rank_encoder_reproduces_a_low_rank_map() -> None:
    torch.manual_seed(0)
    encoder = BaseEncoder(BaseEncoderConfig(latent_rows=2, rank=4))
    count = sum(encoder.config.parts)
    features = torch.randn(30, count)
    mean, scale = features.mean(0), 1.0 / features.std(0)
    normal = (features - mean) * scale
    weights = torch.randn(count, 4) @ torch.randn(4, 512) / count**0.5
    y_mean = torch.randn(512)
    _set_low_rank(encoder, weights, normal, mean, scale, y_mean)
    _level(encoder, torch.rand(count) + 0.5)  # which changes no code
    with torch.no_grad():
        ws = encoder.codes(features)
    assert torch.allclose(ws[:, 0], normal @ weights + y_mean, atol=1e-2)
    assert torch.equal(ws[:, 0], ws[:, 1])


def test_r2() -> None:
    true = torch.tensor([[0.0], [2.0]])
    assert r2(true, true) == 1.0
    assert r2(torch.ones(2, 1), true) == 0.0


@torch.no_grad()
def test_channels_that_never_light_can_go() -> None:
    """Each stage has as many channels as ship that are left alone; the others' biases keep them dark."""
    torch.manual_seed(0)
    encoder = BaseEncoder(BaseEncoderConfig(latent_rows=2, rank=4, widths=STAGE_WIDTHS["alex"])).eval()
    for stage, width in zip(encoder.features.stages, BaseEncoderConfig.widths, strict=True):
        bias = stage[-2].bias
        bias[torch.randperm(len(bias))[width:]] = -1e3
    crops = [np.random.default_rng(n).integers(0, 256, (256, 256, 3), np.uint8) for n in range(3)]
    small = narrowed(encoder, crops)
    assert small.config.widths == BaseEncoderConfig.widths
    seen = image_tensor(np.stack(crops))
    assert torch.allclose(small(seen), encoder(seen), atol=1e-5)


def test_features_come_to_the_same_spread_and_faint_ones_stay_faint() -> None:
    torch.manual_seed(0)
    parts = BaseEncoderConfig(widths=STAGE_WIDTHS["alex"]).parts
    strong, weak, *others = (torch.randn(200, count) for count in parts)
    strong[:, 0] *= 1e-4
    features = torch.cat((1000.0 * strong, 0.01 * weak, *others), dim=1)
    spreads = (features * levels(features)).std(dim=0)
    assert spreads[0] < 1e-3
    assert spreads[1:].min() > 0.7
    assert spreads.max() < 1.0
