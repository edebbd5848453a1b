"""What the trainings of both tracking networks share: how they start, how they run, what is noted of them.

They start in closed form, as the published ones made smaller, with no gradient step.
The face mesh's last layer becomes two of a lower rank, whose span holds the most of the points' variance on real faces.
The detector's deepest bottlenecks lose the channels that matter least, and the convolution behind each is fitted anew
by least squares to give what it gave.
"""

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.assets import asset, asset_path
from models.checkpoints.weights import FRESH
from models.tracking import BOTTLENECKS, NARROW_BOTTLENECKS, RANK, Block, DetectorNet, LandmarkNet, load_published
from models.training.loop import LoopOptions, Outcome, Task, add_loop_arguments, fit, loop_options

LICENCE = "the published network is Apache-2.0; trained on FFHQ, CelebAMask-HQ and others: non-commercial"
_RIDGE = 1e-4


def add_training_arguments(parser: argparse.ArgumentParser, batch: int) -> None:
    """Declare the flags of either training."""
    parser.add_argument("--data", type=Path, required=True, help="the data folder that splits.toml describes")
    parser.add_argument("--threads", type=int, default=2)
    add_loop_arguments(parser, minutes=30.0, batch=batch, out=FRESH)


def train_from_published(args: argparse.Namespace, make_task: Callable[[Path, int], Task], published: str) -> int:
    """Train, and leave the note of the lineage beside the weights.

    make_task: of the data folder and a seed. published: the asset that the network starts from.
    """
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    options, task = loop_options(args), make_task(args.data, args.seed)
    outcome = fit(task, options)
    if outcome.finished:
        write_lineage(args.out / f"{task.name}.json", published, outcome, options, task.validate(outcome.average))
    return 0


def published_landmarks() -> LandmarkNet:
    """The published face mesh; raises AssetMissing when it is not cached."""
    network = LandmarkNet(rank=None)
    load_published(network, asset_path("face_mesh"))
    return network.eval()


def published_detector() -> DetectorNet:
    """The published detector; raises AssetMissing when it is not cached."""
    network = DetectorNet(BOTTLENECKS)
    load_published(network, asset_path("face_detector_full"))
    return network.eval()


@torch.no_grad()
def low_rank_landmarks(published: LandmarkNet, rgb: Tensor, rank: int = RANK) -> LandmarkNet:
    """The published mesh with a last layer of lower rank; rgb: windows [N, 192, 192, 3] of more than `rank` faces."""
    points = torch.cat([published(part)[0] for part in rgb.split(32)])
    mean = points.mean(0)
    _, _, basis = torch.linalg.svd(points - mean, full_matrices=False)
    span = basis[:rank]
    network, state = LandmarkNet(rank), published.state_dict()
    last = f"points.{len(published.points) - 1}"
    weight, bias = state.pop(f"{last}.weight"), state.pop(f"{last}.bias")
    into, out = (f"points.{len(published.points) - 1 + n}" for n in (0, 1))
    state[f"{into}.weight"] = torch.einsum("ro,ochw->rchw", span, weight)
    state[f"{out}.weight"] = span.T[:, :, None, None].contiguous()
    state[f"{out}.bias"] = mean - span.T @ (span @ (mean - bias))
    network.load_state_dict(state)
    return network.eval()


@torch.no_grad()
def narrow_detector(published: DetectorNet, rgb: Tensor) -> DetectorNet:
    """The published detector with the bottlenecks that ship, fitted on scenes rgb [N, 192, 192, 3]."""
    network = copy.deepcopy(published)
    blocks = [block for part in (network.stem, *network.down) for block in part if isinstance(block, Block)]
    for block, before, after in zip(blocks, BOTTLENECKS, NARROW_BOTTLENECKS, strict=True):
        if after < before:
            _narrow(block, after, network, rgb)
    narrow = DetectorNet(NARROW_BOTTLENECKS)
    narrow.load_state_dict(network.state_dict())
    return narrow.eval()


def _narrow(block: Block, width: int, network: DetectorNet, rgb: Tensor) -> None:
    """Keep `width` channels inside a block, in place."""
    _, first, depthwise, last = (layer for layer in block.branch.modules() if isinstance(layer, nn.Conv2d))
    assert last.bias is not None
    seen = _inputs_of(last, network, rgb)
    wanted = seen @ last.weight[:, :, 0, 0].T
    matters = (seen - seen.mean(0)).norm(dim=0) * last.weight[:, :, 0, 0].norm(dim=0)
    kept = matters.topk(width).indices.sort().values
    chosen = torch.cat([seen[:, kept], torch.ones(len(seen), 1)], dim=1).double()
    gram = chosen.T @ chosen
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    fitted = torch.linalg.solve(gram, chosen.T @ wanted.double()).float()
    last.weight = nn.Parameter(fitted[:-1].T[:, :, None, None].contiguous())
    last.bias = nn.Parameter(last.bias + fitted[-1])
    for layer in (first, depthwise):
        assert layer.bias is not None
        layer.weight, layer.bias = nn.Parameter(layer.weight[kept]), nn.Parameter(layer.bias[kept])
    depthwise.groups = depthwise.in_channels = depthwise.out_channels = width


def _inputs_of(layer: nn.Conv2d, network: nn.Module, rgb: Tensor) -> Tensor:
    """What reaches a 1x1 convolution, [pixels, channels]."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].movedim(1, 3).flatten(0, 2)))
    for part in rgb.split(32):
        network(part)
    handle.remove()
    return torch.cat(seen)


def write_lineage(
    path: Path, teacher: str, outcome: Outcome, options: LoopOptions, scores: Mapping[str, float]
) -> None:
    """What must be known about the weights: where they come from, how they were made, how good they are."""
    row = asset(teacher)
    note = {
        "from": f"{row.lineage} ({row.package} {row.version}, {row.licence}); made smaller in closed form, trained",
        "command": f"rigid-live train {path.stem} --data DIR --minutes {outcome.spent_s / 60:.0f}",
        "data": "training part of models/training/splits.toml, its asl_* clips left out",
        "steps": outcome.step,
        "batch": options.batch,
        "parameters": sum(parameter.numel() for parameter in outcome.average.parameters()),
        "validation": {name: round(score, 4) for name, score in scores.items()},
        "licence": LICENCE,
    }
    path.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
