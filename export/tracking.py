"""`python -m export.tracking`: the trained detector and face mesh as the files that ship in `models/weights`.

They have the published networks' inputs and outputs, for one image, so that `engine.detection` and `engine.landmarks`
read either.
"""

import argparse
import shutil
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.to_onnx import compress, export_graph
from models.checkpoints.weights import COMMITTED, FRESH
from models.tracking import INPUT_PX, layers_as_run
from models.training.detector import load_detector
from models.training.landmarks import load_landmarks


def export_tracking(trained: Path, folder: Path) -> tuple[Path, ...]:
    """Write `detector.onnx` and `landmarks.onnx`, float16 weights, and the notes of their lineage into `folder`.

    trained: folder of the trainings' weights; a network without fresh ones keeps those that ship. Raises
    CheckpointError when they do not fit.
    """
    networks: dict[str, tuple[nn.Module, list[str]]] = {
        "detector": (load_detector(trained), ["logits", "boxes"]),
        "landmarks": (load_landmarks(trained), ["points", "presence"]),
    }
    for name, (network, outputs) in networks.items():
        graph, note = folder / f"{name}.onnx", trained / f"{name}.json"
        rgb = torch.zeros(2, INPUT_PX, INPUT_PX, 3)
        export_graph(network, graph, {"rgb": rgb}, outputs)
        _one_image(graph)
        name_slopes(graph, network, rgb)
        compress(graph)
        if note.is_file():
            shutil.copyfile(note, folder / note.name)
    return tuple(folder / f"{name}.onnx" for name in networks)


def _one_image(path: Path) -> None:
    """Fixes the batch at 1 in an ONNX file: the engine reads the shapes of what it compiles."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(model.SerializeToString())


def name_slopes(path: Path, network: nn.Module, example: Tensor) -> None:
    """Stores the slopes of each activation as [C, 1, 1] under their parameter's name.

    The exporter names what it has reshaped anew, and keeps one tensor for all that are equal. example: an input.
    """
    model, names = onnx.load(path), {layer: name for name, layer in network.named_modules()}
    slopes = [f"{names[layer]}.weight" for layer in layers_as_run(network, example) if isinstance(layer, nn.PReLU)]
    nodes = [node for node in model.graph.node if node.op_type == "PRelu"]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    replaced = {node.input[1] for node in nodes}
    for node, name in zip(nodes, slopes, strict=True):
        values = numpy_helper.to_array(stored[node.input[1]]).reshape(-1, 1, 1)
        node.input[1] = name
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in replaced]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.write_bytes(model.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=COMMITTED, help="folder of the files that ship")
    parser.add_argument("--weights", type=Path, default=FRESH, help="folder of freshly trained weights")
    arguments = parser.parse_args()
    export_tracking(arguments.weights, arguments.out)


if __name__ == "__main__":
    main()
