"""The refiner's training: the closed form, the loss by hand, and who gets a gradient."""

import pytest
import torch
from torch import Tensor, nn

from engine.errors import UsageError
from models.identity import FaceIdentity
from models.mobile_stylegan import LATENT_DIM
from models.refiner import Refiner, RefinerConfig
from models.training import refiner as training
from models.training.refiner import HELD_OUT, PERSON_ROWS, RefinerObjective, closed_form_refiner, run


class Codes(nn.Module):
    """Stands for the base encoder: twelve equal rows, the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def features(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(1, 2, 3))[:, None].repeat(1, 20)

    def codes(self, features: Tensor) -> Tensor:
        return (self.gain * features[:, :1, None]).expand(-1, 12, LATENT_DIM)


def synthesis(ws: Tensor, noise: Tensor | None) -> Tensor:
    assert noise is None
    return ws.mean(dim=(1, 2))[:, None, None, None].expand(-1, 3, 128, 128)


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean(dim=(1, 2, 3))


def test_the_loss_is_the_weighted_sum_of_its_terms_and_the_encoder_stands_still(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "DROPPED", 0.0)
    torch.manual_seed(4)
    refiner, encoder = Refiner(FaceIdentity(), RefinerConfig(rank=4)), Codes()
    nn.init.normal_(refiner.expand.weight, std=0.1)
    objective = RefinerObjective(refiner, encoder, synthesis, (distance, distance), (5.0, 3.0))  # type: ignore[arg-type]
    loss, told = objective(torch.rand(2, 3, 256, 256))
    assert loss.item() == pytest.approx((told["rec"] + 5.0 * told["person"] + 3.0 * told["size"]).item(), rel=1e-6)
    assert told["size"] > 0
    loss.backward()
    assert all(parameter.grad is not None for parameter in (*refiner.reduce.parameters(), *refiner.expand.parameters()))
    assert encoder.gain.grad is None
    assert {name.split(".")[1] for name, p in objective.named_parameters() if p.requires_grad} == {"reduce", "expand"}


def test_the_closed_form_finds_a_linear_rule_and_moves_the_persons_rows(monkeypatch: pytest.MonkeyPatch):
    rng = torch.Generator().manual_seed(5)
    people = torch.randn(HELD_OUT + 400, 8, generator=rng)
    features = people @ torch.randn(8, sum(RefinerConfig().parts), generator=rng)
    lacking = people @ torch.randn(8, LATENT_DIM, generator=rng) + 0.5
    monkeypatch.setattr(FaceIdentity, "load", lambda: FaceIdentity())
    monkeypatch.setattr(training, "_synthetic", lambda encoder, refiner, pairs: (features, lacking))
    refiner, quality = closed_form_refiner(Codes(), len(features))  # type: ignore[arg-type]
    assert quality > 0.9
    with torch.no_grad():
        dws = refiner.moves(features[:5])
    moved = dws[:, PERSON_ROWS]
    assert (moved - lacking[:5, None]).square().mean() < 0.1 * lacking.var()
    assert dws.abs().sum(dim=(0, 2)).nonzero().flatten().tolist() == list(range(PERSON_ROWS.start, PERSON_ROWS.stop))


def test_too_few_pairs_are_refused():
    with pytest.raises(UsageError, match="--pairs is 200"):
        run(type("Arguments", (), {"pairs": 200, "seed": 0})())
