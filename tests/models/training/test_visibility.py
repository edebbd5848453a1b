"""The visible net's training: it beats the plain mean where one neighbour is covered."""

import torch
from torch import Tensor

from models.flow import SpyNet
from models.training.visibility import Objective
from models.visibility import LIGHT, VisibleNet


def still_objective() -> Objective:
    torch.manual_seed(0)
    flow = SpyNet()
    flow.forward = lambda a, b: torch.zeros(len(a), 2, *a.shape[-2:])  # type: ignore[method-assign]
    return Objective(VisibleNet(LIGHT), flow)


def triplets(seed: int) -> tuple[Tensor, Tensor]:
    """A smooth picture that stands; one neighbour is covered by a grey square, at random the first or the last."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(4, 3, 6, 6, generator=generator) * 2 - 1
    frames = torch.nn.functional.interpolate(coarse, size=256, mode="bilinear")[None].repeat(3, 1, 1, 1, 1)
    for n in range(4):
        covered = 0 if torch.rand((), generator=generator) < 0.5 else 2
        frames[covered, n, :, 64:192, 64:192] = 1.0
    return frames, torch.eye(2, 3, dtype=torch.float64).expand(3, 4, 2, 3)


def test_neighbours_of_a_picture_that_stands_are_the_picture():
    frames, places = triplets(0)
    objective = still_objective()
    objective._flow[0].forward = lambda a, b: torch.zeros(len(a), 2, *a.shape[-2:])  # type: ignore[method-assign]
    frame, previous, after = objective.bring((frames[1:2].repeat(3, 1, 1, 1, 1), places))
    assert torch.allclose(previous, frame, atol=1e-6)
    assert torch.allclose(after, frame, atol=1e-6)


def test_it_learns_which_neighbour_is_covered():
    objective = still_objective()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    first = None
    for step in range(40):
        loss, told = objective(triplets(step))
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.7 * told["plain"].item()
    assert loss.item() < first
