"""How unlike a drawn code looks to a crop."""

import pytest
import torch
from torch import Tensor

from models.identity import FaceIdentity
from models.likeness import Unlikeness
from models.mobile_stylegan import LATENT_DIM, MobileStyleGan, MobileStyleGanConfig

WIDTHS = (16,) * 5


@pytest.fixture(scope="module")
def unlike() -> Unlikeness:
    torch.manual_seed(3)
    return Unlikeness(MobileStyleGan(MobileStyleGanConfig(widths=WIDTHS, stem_width=16)), FaceIdentity())


@pytest.fixture
def ws(unlike: Unlikeness) -> Tensor:
    return torch.randn(2, unlike.generator.config.latent_rows, LATENT_DIM, generator=torch.Generator().manual_seed(5))


def test_a_code_is_like_its_own_picture_and_unlike_others(unlike: Unlikeness, ws: Tensor) -> None:
    pictures = unlike.generator(ws)
    own, others = unlike(ws, pictures), unlike(ws, pictures.flip(0))
    assert own.shape == (2,)
    torch.testing.assert_close(own, torch.zeros(2))
    assert (others > 1e-4).all()


def test_its_slope_leads_to_the_picture(unlike: Unlikeness, ws: Tensor) -> None:
    wanted = unlike.generator(ws)
    away = (ws + 0.3 * ws.flip(0)).requires_grad_()
    before = unlike(away, wanted)
    (slope,) = torch.autograd.grad(before.sum(), away)
    after = unlike(away - 0.01 * slope / slope.square().mean().sqrt(), wanted)
    assert (after < before).all()
