"""Batch norms between trainings: statistics for averaged weights, and their way back out of an exported graph."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from engine.errors import CheckpointError


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the batch norms' running statistics to plain means over `batches` of inputs; ends in evaluation mode.

    The averaged weights are those of no step, so the statistics met on the way do not fit them: several points of IoU.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    model.train()
    for inputs in batches:
        model(inputs)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def unfold_norms(network: nn.Module, exported: Mapping[str, Tensor], inputs: Tensor) -> None:
    """Put the weights of an exported graph, whose batch norms are folded into the convolutions, into `network`.

    Every norm follows its convolution in a Sequential; the graph calls the folded bias `CONVOLUTION.weight_bias`. Each
    norm gets the statistics that its input has over `inputs`, and the gain and bias that undo them: `network` then
    computes what the graph does in evaluation mode, and in training mode on inputs of that kind. Ends in evaluation
    mode. Raises CheckpointError when the weights do not fit.
    """
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    biases = {name: f"{_predecessor(name)}.weight_bias" for name in norms}
    try:
        for name, norm in norms.items():
            _pass_through(norm, exported[biases[name]])
        # What the norms hold stays; everything else has to come from the graph.
        state = network.state_dict()
        network.load_state_dict({k: v if k.rpartition(".")[0] in norms else exported[k] for k, v in state.items()})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the exported weights do not fit ({error}); train without --resume") from error
    network.eval()
    for norm, mean, variance in _inputs_of(norms.values(), network, inputs):
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


def _predecessor(norm: str) -> str:
    """Name of the module before `norm` in its Sequential."""
    position = norm.rpartition(".")[2]
    return f"{norm.removesuffix(position)}{int(position) - 1}"


def _pass_through(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    norm.reset_running_stats()
    norm.weight.fill_((1.0 + norm.eps) ** 0.5)
    norm.bias.copy_(bias)


def _inputs_of(
    norms: Iterable[nn.BatchNorm2d], network: nn.Module, inputs: Tensor
) -> list[tuple[nn.BatchNorm2d, Tensor, Tensor]]:
    """Mean and variance a channel of what reaches each norm in one pass."""
    seen = []

    def look(norm: nn.BatchNorm2d, given: tuple[Tensor]) -> None:
        seen.append((norm, given[0].mean((0, 2, 3)), given[0].var((0, 2, 3))))

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    network(inputs)
    for handle in handles:
        handle.remove()
    return seen
