"""The base encoder's closed form on problems with a known answer."""

import numpy as np
import torch

from models.encoder import TRUNK_STAGES, BaseEncoder, BaseEncoderConfig
from models.perceptual import STAGE_WIDTHS
from models.training.closed_form import _set_low_rank, dual_ridge, levelled, narrowed, r2
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
    count = encoder.config.features
    features = torch.randn(30, count)
    mean, scale = features.mean(0), 1.0 / features.std(0)
    normal = (features - mean) * scale
    weights = torch.randn(count, 4) @ torch.randn(4, 512) / count**0.5
    y_mean = torch.randn(512)
    _set_low_rank(encoder, weights, normal, mean, scale, y_mean)
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


@torch.no_grad()
def test_every_channel_is_seen_at_the_same_strength() -> None:
    torch.manual_seed(0)
    encoder = BaseEncoder(BaseEncoderConfig(latent_rows=2, rank=4)).eval()
    loud = encoder.features.stages[TRUNK_STAGES[0]][-2]
    loud.weight[:50] *= 1000.0
    loud.bias[:50] *= 1000.0
    crops = [np.random.default_rng(n).integers(0, 256, (256, 256, 3), np.uint8) for n in range(20)]
    seen = image_tensor(np.stack(crops))
    before, code = encoder.detail.first.weight.clone(), encoder(seen)
    weights = levelled(encoder, crops).detail.first.weight
    found = encoder.features.seen(seen)
    strength = torch.cat([found[stage] for stage in TRUNK_STAGES], dim=1).square().mean(dim=(0, 2, 3)).sqrt()
    reaching = (weights / before)[:, :, 0, 0] * strength
    lit = strength > strength.mean()
    assert lit.sum() > 10
    assert reaching[:, lit].min() > 0.94
    assert reaching.max() < 1.0
    # Nothing follows from it yet: what detail says counts for nothing until it is trained.
    assert torch.equal(encoder(seen), code)
