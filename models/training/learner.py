"""What learns in one training: the objectives, their optimizers, and the running average of what will ship."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import CheckpointError
from models.training.distributed import Ranks
from models.training.log import ema_copy, ema_update


@dataclass(frozen=True)
class Player:
    """One objective and how it is optimised. A training has one player, an adversarial one has more.

    objective: a module whose `forward(batch)` returns the loss, a scalar tensor that is a mean over the batch, and a
    dict of scalars to report. Every parameter in `groups` is registered in it and gets a gradient in every step; other
    parameters in it have requires_grad False, and a network that another player trains is not registered in it at all
    (hold it in a tuple). Buffers of the objective are state: they are in the checkpoint.
    groups: parameter groups of Adam, each {"params": list, "peak": learning rate} with what else Adam takes, for
    instance "weight_decay" (decoupled, as in AdamW).
    network: what is put into training mode and, of the first player, averaged, validated and saved; the objective
    itself when None.
    decay: of that running average. clip: largest gradient norm over all groups.
    """

    name: str
    objective: nn.Module
    groups: Sequence[Mapping[str, Any]]
    network: nn.Module | None = None
    decay: float = 0.995
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)

    @property
    def trained(self) -> nn.Module:
        """The module that `network` names."""
        return self.objective if self.network is None else self.network


class Learner:
    """The players on one device, with what a checkpoint holds of them.

    average: running average of the first player's network, in evaluation mode.
    """

    def __init__(self, players: Sequence[Player], ranks: Ranks, *, amp: bool) -> None:
        assert players, "a training has a player"
        self._ranks = ranks
        self._amp = amp
        self._players = tuple(players)
        self._modules = [ranks.joint(player.objective.to(ranks.device)) for player in players]
        self._optimizers = [_optimizer(player) for player in players]
        for player in players:
            player.trained.train()
        self.average = ema_copy(players[0].trained)

    def step(self, batch: Any, rate: Callable[[float], float], step: int) -> dict[str, float]:
        """One update of every player in turn; returns what they report, means over the processes.

        rate: the learning rate for a group's peak. step: updates so far, from 0. Raises FloatingPointError, with this
        player's weights untouched, when a loss or a gradient is not finite.
        """
        report: dict[str, float] = {}
        batch = _moved(batch, self._ranks.device)
        for number, player in enumerate(self._players):
            with _alone(self._players, number):
                found = self._update(number, batch, rate)
            prefix = f"{player.name}_" if len(self._players) > 1 else ""
            report |= {prefix + name: value for name, value in found.items()}
        ema_update(self.average, self._players[0].trained, self._players[0].decay, step)
        return report

    def _update(self, number: int, batch: Any, rate: Callable[[float], float]) -> dict[str, float]:
        player, optimizer = self._players[number], self._optimizers[number]
        for group in optimizer.param_groups:
            group["lr"] = rate(group["peak"])
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=self._amp):
            loss, scalars = self._modules[number](batch)
        report = self._mean_report(loss, scalars)
        if not math.isfinite(report["loss"]):
            raise FloatingPointError(f"the loss of {player.name} is not finite ({_words(report)})")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(_parameters(player), player.clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient of {player.name} is not finite ({_words(report)})")
        optimizer.step()
        return report

    def _mean_report(self, loss: Tensor, scalars: Mapping[str, Any]) -> dict[str, float]:
        assert "loss" not in scalars, "the loss is reported by itself"
        values = [torch.as_tensor(value).detach().to(loss.device, torch.float64) for value in scalars.values()]
        means = self._ranks.mean(torch.stack([loss.detach().double(), *values]))
        return dict(zip(("loss", *scalars), means.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Everything that learning has changed, for `load`."""
        players = {
            player.name: {"objective": _changing(player), "optimizer": optimizer.state_dict()}
            for player, optimizer in zip(self._players, self._optimizers, strict=True)
        }
        return {"players": players, "average": self.average.state_dict()}

    def load(self, state: Mapping[str, Any], source: Path) -> None:
        """Take up what `state` gave. Raises CheckpointError, naming `source`, when it is not of these players."""
        try:
            for player, optimizer in zip(self._players, self._optimizers, strict=True):
                saved = state["players"][player.name]
                if saved["objective"].keys() != _changing(player).keys():
                    raise KeyError(player.name)
                player.objective.load_state_dict(saved["objective"], strict=False)
                optimizer.load_state_dict(saved["optimizer"])
            self.average.load_state_dict(state["average"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{source} does not fit these networks; train without --resume") from error


def _optimizer(player: Player) -> torch.optim.Optimizer:
    registered = {id(parameter) for parameter in player.objective.parameters()}
    assert all(isinstance(group["params"], list) for group in player.groups), "an iterator can be read only once"
    assert all(id(p) in registered for p in _parameters(player)), "a parameter is trained, but not in the objective"
    # Without weight decay this is Adam, number by number.
    groups = [{"weight_decay": 0.0, "lr": group["peak"], **group} for group in player.groups]
    return torch.optim.AdamW(groups, betas=player.betas)


def _words(report: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in report.items())


def _parameters(player: Player) -> list[nn.Parameter]:
    return [parameter for group in player.groups for parameter in group["params"]]


@contextmanager
def _alone(players: Sequence[Player], number: int) -> Iterator[None]:
    """Lets no gradient be computed for the parameters of the other players."""
    others = [p for n, player in enumerate(players) if n != number for p in _parameters(player)]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _changing(player: Player) -> dict[str, Tensor]:
    """The objective's state without the parameters of judges, which are frozen and come from elsewhere."""
    changing = {id(p) for p in (*_parameters(player), *player.trained.parameters())}
    state = player.objective.state_dict(keep_vars=True)
    return {
        name: value.detach()
        for name, value in state.items()
        if not isinstance(value, nn.Parameter) or id(value) in changing
    }


def _moved(batch: Any, device: torch.device) -> Any:
    """Every tensor of `batch` on `device`; lists come as tuples."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return tuple(_moved(value, device) for value in batch)
    return batch
