"""The base encoder's closed form on problems with a known answer."""

import torch

from models.encoder import FEATURES, BaseEncoder, BaseEncoderConfig
from models.training.closed_form import _set_low_rank, dual_ridge, r2


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
    features = torch.randn(30, FEATURES)
    mean, scale = features.mean(0), 1.0 / features.std(0)
    normal = (features - mean) * scale
    weights = torch.randn(FEATURES, 4) @ torch.randn(4, 512) / FEATURES**0.5
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
