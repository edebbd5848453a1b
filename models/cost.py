"""`rigid-live networks`: parameters and arithmetic of each network of a preset.

GFLOP are 2 x multiply-adds for one image in 1e9: convolutions and transposed convolutions, the depthwise ones that
blur included, and linear layers. Norms, activations and resizing are not counted. The networks are built without
memory for their weights, so that the largest takes no longer than the smallest.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.bisenet import BiSeNet
from models.config import NETWORKS, PRESETS, Preset, preset
from models.e4e import E4eEncoder
from models.recurrent import RecurrentEncoder
from models.stylegan2 import StyleGan2

log = logging.getLogger(__name__)

CROP = (1, 3, 256, 256)


@dataclass(frozen=True)
class Cost:
    """Millions of parameters and GFLOP for one image."""

    parameters_m: float
    gflop: float


@dataclass(frozen=True)
class Part:
    """A network, or a part of one: the modules whose parameters it has, and what to run."""

    name: str
    modules: Sequence[nn.Module]
    run: Callable[[], object]

    def cost(self) -> Cost:
        parameters = {id(p): p.numel() for module in self.modules for p in module.parameters()}
        return Cost(sum(parameters.values()) / 1e6, count_gflop(self.run))


def count_gflop(run: Callable[[], object]) -> float:
    """What a call computes, in 1e9 x 2 x multiply-adds."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def preset_costs(chosen: Preset, networks: Sequence[str] = NETWORKS) -> dict[str, Cost]:
    """The cost of each of these networks of a preset, and of parts of the large ones, by name."""
    return {part.name: part.cost() for name in networks for part in _parts(chosen, name)}


def _parts(chosen: Preset, name: str) -> Iterator[Part]:
    with torch.device("meta"):
        network = chosen.build(name).eval()
        inputs = _inputs(chosen, network, name)
    # The parser's figures are those of its paper: with the heads that only training uses.
    whole = network.supervised if isinstance(network, BiSeNet) else network
    yield Part(name, [network], lambda: whole(*inputs))
    if isinstance(network, StyleGan2):
        synthesis = [child for key, child in network.named_children() if key != "style"]
        yield Part("generator, synthesis alone", synthesis, lambda: network(*inputs))
    if isinstance(network, E4eEncoder):
        former = chosen.generator.former_rows
        backbone: list[nn.Module] = [network.input_layer, network.body]
        lateral: list[nn.Module] = [network.latlayer1, network.latlayer2, *network.styles[:former]]
        yield Part("encoder, backbone alone", backbone, lambda: network.backbone(*inputs))
        yield Part("encoder, former rows", backbone + lateral, lambda: network(*inputs, former))
    if isinstance(network, BiSeNet):
        yield Part("parser, main head alone", [network.cp, network.ffm, network.conv_out], lambda: network(*inputs))


def _inputs(chosen: Preset, network: nn.Module, name: str) -> tuple[Tensor, ...]:
    """One image's worth of arguments."""
    if name == "generator":
        rows, dim = chosen.generator.latent_rows, chosen.recurrent.latent_dim
        return torch.empty(1, rows, dim), torch.empty(1, chosen.recurrent.map_channels, 32, 32)
    if isinstance(network, RecurrentEncoder):
        return *(torch.empty(CROP) for _ in range(4)), *network.empty_state(torch.empty(CROP))
    if isinstance(network, BiSeNet):
        return (torch.empty(1, 3, network.config.size, network.config.size),)
    return (torch.empty(1, 6, *CROP[2:]),) if name == "visible" else (torch.empty(CROP),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; `run` takes what the parser returns."""
    parser.add_argument("--preset", metavar="NAME", help=f"{' or '.join(PRESETS)}; default: all")


def run(args: argparse.Namespace) -> int:
    """Tell the cost of each network; 0 when done. Raises UsageError for an unknown preset."""
    for chosen in [preset(args.preset)] if args.preset else PRESETS.values():
        log.info("%-28s %12s %10s", chosen.name, "parameters", "GFLOP")
        for name, cost in preset_costs(chosen).items():
            log.info("  %-26s %10.2f M %10.2f", name, cost.parameters_m, cost.gflop)
    return 0
