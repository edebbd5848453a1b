"""A tiny task for the tests of the training loop, in the test's process or, as a program, in several of its own.

python -m torch.distributed.run --nproc-per-node 2 toy_task.py FOLDER NAME=VALUE ...      options of the loop
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.training.loop import LoopOptions, Outcome, Player, fit, sample_rng

SEED = 3


def small_network(outputs: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs))


class Regression(nn.Module):
    """Squared error of a network; the judge is frozen and wider, so that it shows when it is saved."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.judge = nn.Linear(1, 1).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        inputs, targets = batch
        self.seen += 1
        error = self.network(inputs) - targets
        return error.square().mean(), {"mae": error.detach().abs().mean(), "seen": float(self.seen)}


class Fooling(nn.Module):
    """The adversarial half: the network's outputs should please `critic`, which another player trains."""

    def __init__(self, network: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.critic = (critic,)

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        inputs, _ = batch
        noise = torch.randn(inputs.shape[0], 1)  # from torch's global generator
        return nn.functional.softplus(-self.critic[0](self.network(inputs) + 0.1 * noise)).mean(), {}


class Judging(nn.Module):
    """The other half: the critic tells targets from the network's outputs."""

    def __init__(self, network: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.network = (network,)
        self.critic = critic

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        inputs, targets = batch
        made = self.critic(self.network[0](inputs).detach())
        loss = nn.functional.softplus(made).mean() + nn.functional.softplus(-self.critic(targets)).mean()
        return loss, {}


class ToyTask:
    """Learns the sum of three numbers. `before(step)` is called ahead of each batch of a step."""

    name = "toy"

    def __init__(self, *, rate: float = 0.02, adversarial: bool = False, before: Callable[[int], object] = id) -> None:
        torch.manual_seed(1)
        self.settings: dict[str, Any] = {"rate": rate, "place": Path("here"), "sizes": (3, 8)}
        self.network = small_network()
        objective = Regression(self.network)
        self.players = (player("toy", objective, self.network, rate),)
        if adversarial:
            critic = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
            fooling, judging = Fooling(self.network, critic), Judging(self.network, critic)
            self.players = (player("maker", fooling, self.network, rate), player("critic", judging, critic, rate))
        self.before = before
        self.saved: list[Path] = []

    def draw(self, step: int, samples: range) -> tuple[Tensor, Tensor]:
        self.before(step)
        rows = [sample_rng(SEED, step, number).standard_normal(3, "float32") for number in samples]
        inputs = torch.stack([torch.from_numpy(row) for row in rows])
        return inputs, inputs.sum(1, keepdim=True)

    def start_from(self, folder: Path) -> str:
        nn.init.constant_(self.network[0].bias, 0.5)
        return f"weights of {folder}"

    def validate(self, average: nn.Module) -> dict[str, float]:
        assert not average.training
        assert not torch.is_grad_enabled()
        torch.randn(5)  # a validation may draw: it leaves no trace in the training
        return {"bias": float(average[0].bias.mean())}

    def images(self, average: nn.Module) -> Tensor | None:
        return torch.linspace(-1, 1, 3 * 4 * 6).view(3, 4, 6)

    def save(self, average: nn.Module, folder: Path) -> None:
        self.saved.append(folder)


def player(name: str, objective: nn.Module, network: nn.Module, rate: float) -> Player:
    return Player(name, objective, ({"params": list(network.parameters()), "peak": rate},), network, decay=0.9)


def options(folder: Path, **chosen: Any) -> LoopOptions:
    """A short run with all its files under `folder`."""
    given = {"steps": 10, "log_every": 1} | chosen
    if "minutes" in given:
        given["steps"] = None
    return LoopOptions(out=folder / "out", checkpoints=folder / "run", **given)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def main(folder: str, *chosen: str) -> Outcome:
    torch.set_num_threads(1)
    return fit(ToyTask(), options(Path(folder), **{n: json.loads(v) for n, v in (word.split("=") for word in chosen)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
