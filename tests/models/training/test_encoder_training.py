"""The base encoder's objectives: each term by hand, and who gets a gradient."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from models.encoder import MESH
from models.training import encoder as training
from models.training.encoder import (
    CriticObjective,
    Distances,
    EncoderObjective,
    LatentDiscriminator,
    Weights,
    encoded,
)
from models.training.stand_in import enlarge


class Linear(nn.Module):
    """Stands for the base encoder: four rows of a linear map of the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(4, 512, generator=torch.Generator().manual_seed(0)) * 0.1)

    def features(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(1, 2, 3))[:, None]

    def codes(self, features: Tensor) -> Tensor:
        return features[:, :, None] * self.rows


def synthesis(ws: Tensor, noise: Tensor | None) -> Tensor:
    assert noise is None
    return ws.mean(dim=(1, 2))[:, None, None, None].expand(-1, 3, 128, 128)


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean(dim=(1, 2, 3))


def identity(made: Tensor, real: Tensor) -> Tensor:
    assert made.shape == real.shape == (2, 3, 256, 256)
    return (made.mean(dim=(1, 2, 3)) - real.mean(dim=(1, 2, 3))).square()


def mesh(made: Tensor, real: Tensor) -> Tensor:
    assert made.shape == real.shape == (2, 3, 256, 256)
    return (made.amax(dim=(1, 2, 3)) - real.amax(dim=(1, 2, 3))).abs()


DISTANCES = Distances(distance, identity, mesh)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 256, 256, generator=generator), torch.randn(8, 512, generator=generator)


def test_the_encoders_loss_is_the_weighted_sum_of_its_terms(
    batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "DROPPED", 0.0)
    encoder, critic = Linear(), LatentDiscriminator()
    weights = Weights(identity=5.0, mesh=4.0, delta=3.0, adversarial=2.0)
    objective = EncoderObjective(encoder, critic, synthesis, DISTANCES, weights)  # type: ignore[arg-type]
    loss, told = objective(batch)
    shares = {"rec": 1.0, "person": 5.0, "mesh": 4.0, "differences": 3.0, "realness": 2.0}
    expected = sum(share * told[name] for name, share in shares.items())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    made = synthesis(encoder.codes(encoder.features(batch[0])), None)
    assert told["person"].item() == pytest.approx(identity(enlarge(made), batch[0]).mean().item(), rel=1e-3)
    assert told["mesh"].item() == pytest.approx(mesh(enlarge(made), batch[0]).mean().item(), rel=1e-3)
    loss.backward()
    assert encoder.rows.grad is not None
    # The critic is another player's: it is not registered here, so that no optimiser of this one finds it.
    assert {name for name, _ in objective.named_parameters()} == {"encoder.rows"}


def test_equal_rows_cost_nothing_and_no_critic_no_realness(batch: tuple[Tensor, Tensor]):
    encoder = Linear()
    with torch.no_grad():
        encoder.rows.copy_(encoder.rows[:1].expand(4, -1))
    weights = Weights(identity=0.0, mesh=0.0, delta=3.0, adversarial=0.0)
    critic = LatentDiscriminator()
    objective = EncoderObjective(encoder, critic, synthesis, DISTANCES, weights)  # type: ignore[arg-type]
    loss, told = objective(batch)
    assert told["differences"].item() == pytest.approx(0.0, abs=1e-10)
    assert loss.item() == pytest.approx(told["rec"].item(), rel=1e-6)


def test_the_critics_penalty_is_its_squared_slope_on_drawn_codes(batch: tuple[Tensor, Tensor]):
    critic = LatentDiscriminator()
    slope = torch.randn(512, generator=torch.Generator().manual_seed(2)) * 0.01

    class Plane(nn.Module):
        def forward(self, codes: Tensor) -> Tensor:
            return codes @ slope[:, None]

    flat = CriticObjective(critic, Linear())  # type: ignore[arg-type]
    flat.critic = Plane()  # type: ignore[assignment]
    loss, told = flat(batch)
    drawn, made = batch[1] @ slope, told["made"]
    made_codes = Linear().codes(Linear().features(batch[0])).flatten(0, 1) @ slope
    expected = nn.functional.softplus(-drawn).mean() + nn.functional.softplus(made_codes).mean()
    assert made.item() == pytest.approx(made_codes.mean().item(), abs=1e-4)
    assert loss.item() == pytest.approx((expected + 0.5 * slope.square().sum()).item(), rel=1e-3)


def test_the_critic_learns_to_tell_codes_apart(batch: tuple[Tensor, Tensor]):
    torch.manual_seed(0)
    critic, encoder = LatentDiscriminator(), Linear()
    objective = CriticObjective(critic, encoder)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    for _ in range(30):
        loss, told = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert told["drawn"].item() > told["made"].item() + 0.5
    assert encoder.rows.grad is None


def test_each_step_does_without_other_features(batch: tuple[Tensor, Tensor]):
    class Shown(Linear):
        def features(self, crops: Tensor) -> Tensor:
            return torch.ones(len(crops), 1000)

        def codes(self, features: Tensor) -> Tensor:
            return features

    first, second = (encoded(Shown(), batch[0], 0.25) for _ in range(2))  # type: ignore[arg-type]
    for left in (first, second):
        assert (left == 0.0).float().mean().item() == pytest.approx(0.25, abs=0.05)
        assert left.mean().item() == pytest.approx(1.0, abs=0.07)
    assert not torch.equal(first, second)
    assert torch.equal(encoded(Shown(), batch[0]), torch.ones(2, 1000))  # type: ignore[arg-type]


def test_features_are_left_out_but_the_meshs_are_not():
    class Shown(Linear):
        def features(self, crops: Tensor) -> Tensor:
            return torch.ones(len(crops), 400)

        def codes(self, features: Tensor) -> Tensor:
            return features

    torch.manual_seed(0)
    seen, mesh = encoded(Shown(), torch.zeros(2, 3, 256, 256), 0.25).tensor_split([-MESH], dim=1)  # type: ignore[arg-type]
    assert (seen == 0).float().mean().item() == pytest.approx(0.25, abs=0.08)
    assert (mesh == 1.0).all()


def test_trainings_from_packs_want_neither_openvino_nor_pyav():
    """A machine with a graphics card may have neither."""
    program = "import sys\nsys.modules.update(openvino=None, av=None)\n"
    program += "import models.training.encoder, models.training.recurrent"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
