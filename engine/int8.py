"""A float32 graph whose heavy convolutions compute in int8, for processors that do those twice as fast.

Which convolutions, and how far each channel of what they see reaches on real faces, was measured (`export/reach.py`)
and ships with the recipe. Channels reach very differently far: one scale for all would leave most of them a few of the
256 levels, which trembles from frame to frame. So every channel is brought to the same reach first, which costs
nothing: the convolution before gives it smaller, the one after takes it larger. Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019, Section 4.1.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from engine.errors import BundleError
from engine.graphs import plain, replace_nodes

FILE = "reach.json"
"""In a recipe: for each graph's file, and each convolution by the name of its output, the reach of what it sees."""

_EVEN = ("LeakyRelu", "Relu")
"""Operators that do to a channel c times as large what they do to the channel, c times as large."""

_SMALLEST = 1e-3
"""Of the largest reach: channels that hardly show are not enlarged beyond that."""


@dataclass(frozen=True)
class Reach:
    """How far a convolution's input goes from 0. channels: each of them [C], or all of them [1] where what gives them
    gives them to others too. signed: below 0 as well."""

    channels: NDArray[np.float32]
    signed: bool


def read_reaches(path: Path) -> Mapping[str, Mapping[str, Reach]]:
    """By graph file, by convolution. Raises BundleError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            file: {
                name: Reach(np.array(found["channels"], np.float32), bool(found["signed"]))
                for name, found in convolutions.items()
            }
            for file, convolutions in document.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{path} cannot be read as the reaches of convolutions: {error}") from error


def write_reaches(path: Path, reaches: Mapping[str, Mapping[str, Reach]]) -> None:
    """The JSON that `read_reaches` reads, four digits a number."""
    document = {
        file: {
            name: {"signed": reach.signed, "channels": [float(f"{value:.4g}") for value in reach.channels]}
            for name, reach in convolutions.items()
        }
        for file, convolutions in reaches.items()
    }
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


def in_int8(model: ModelProto, reaches: Mapping[str, Reach]) -> ModelProto:
    """A copy of a graph with those convolutions in int8: activations of 255 or 256 levels, weights of 255 for each
    output channel.

    Raises BundleError when the graph has no such convolution, or one with other channels.
    """
    fresh = plain(model)
    weights = {tensor.name: tensor for tensor in fresh.graph.initializer}
    named = {node.output[0]: node for node in fresh.graph.node if node.op_type == "Conv"}
    for name in reaches:
        if name not in named or named[name].input[1] not in weights:
            raise BundleError(f"the graph has no convolution {name!r} with plain weights; measure the reaches anew")
    # All scaling comes first: one convolution's giver may be another one of them.
    furthest = {name: _bring_to_one(fresh, named[name], reach, weights) for name, reach in reaches.items()}
    added = {name: _quantise(named[name], furthest[name], reach.signed, weights) for name, reach in reaches.items()}
    nodes: list[NodeProto] = []
    for node in fresh.graph.node:
        nodes += [*added.get(node.output[0], ()), node]
    replace_nodes(fresh, nodes, weights.values())
    return fresh


def giver(model: ModelProto, convolution: NodeProto) -> NodeProto | None:
    """The convolution whose channels, each scaled, scale those that another one sees; None where there is none, or
    somebody else sees them too."""
    makers: dict[str, NodeProto] = {name: node for node in model.graph.node for name in node.output}
    uses = Counter(name for node in model.graph.node for name in node.input)
    seen = convolution.input[0]
    while seen in makers and uses[seen] == 1:
        maker = makers[seen]
        if maker.op_type == "Conv":
            return maker
        if maker.op_type not in _EVEN:
            return None
        seen = maker.input[0]
    return None


def _bring_to_one(model: ModelProto, node: NodeProto, reach: Reach, weights: dict[str, TensorProto]) -> float:
    """Scales what a convolution sees so that each channel reaches 1, if its giver allows; returns how far all reach."""
    kernel = numpy_helper.to_array(weights[node.input[1]])
    channels = np.maximum(reach.channels, _SMALLEST * reach.channels.max())
    if channels.shape not in ((1,), kernel.shape[1:2]):
        raise BundleError(f"{node.output[0]} sees {kernel.shape[1]} channels, not {len(channels)}; measure anew")
    if len(channels) == 1:
        return float(channels[0])
    before = giver(model, node)
    if before is None:
        raise BundleError(f"what {node.output[0]} sees is seen by others too; measure anew")
    for place, divisor in ((1, channels[:, None, None, None]), (2, channels))[: len(before.input) - 1]:
        if before.input[place] not in weights:
            raise BundleError(f"{before.output[0]} has no plain weights; they cannot be scaled for int8")
        _give_own(before, place, numpy_helper.to_array(weights[before.input[place]]) / divisor, weights)
    _give_own(node, 1, kernel * channels[:, None, None], weights)
    return 1.0


def _give_own(node: NodeProto, place: int, values: NDArray[np.float32], weights: dict[str, TensorProto]) -> None:
    """Gives a node a weight under a name of its own: others may use the one that it had."""
    node.input[place] = f"{node.output[0]}.own{place}"
    weights[node.input[place]] = numpy_helper.from_array(values.astype(np.float32), node.input[place])


def _quantise(node: NodeProto, furthest: float, signed: bool, weights: dict[str, TensorProto]) -> list[NodeProto]:
    """Gives a convolution int8 inputs and weights; the nodes that make them. New tensors are added to `weights`."""
    kernel = numpy_helper.to_array(weights[node.input[1]])
    steps = np.maximum(np.abs(kernel).max(axis=(1, 2, 3)), np.finfo(np.float32).tiny) / np.float32(127.0)
    name = node.output[0]
    made = {
        f"{name}.step": np.array(furthest / (127 if signed else 255), np.float32),
        f"{name}.zero": np.array(0, np.int8 if signed else np.uint8),
        f"{name}.kernel": np.rint(kernel / steps[:, None, None, None]).astype(np.int8),
        f"{name}.kernel_steps": steps,
    }
    weights |= {key: numpy_helper.from_array(array, key) for key, array in made.items()}
    step, zero, codes, kernel_steps = made
    seen, coded = node.input[0], f"{name}.coded"
    node.input[0], node.input[1] = f"{name}.seen", f"{name}.weights"
    return [
        helper.make_node("QuantizeLinear", [seen, step, zero], [coded]),
        helper.make_node("DequantizeLinear", [coded, step, zero], [node.input[0]]),
        helper.make_node("DequantizeLinear", [codes, kernel_steps], [node.input[1]], axis=0),
    ]
