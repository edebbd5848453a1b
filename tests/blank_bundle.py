"""A bundle with made-up contents and small numbers, for tests of what surrounds the networks."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engine.bundle import GraphSpec, Manifest, ParserSpec, Row, expected_graphs
from engine.direction_file import Direction
from export.bundle import write_bundle

ROWS, DIM = 3, 4


def blank_manifest() -> Manifest:
    """A manifest that passes every check: 8 px images, 3 rows of 4, the first 2 of them former."""
    manifest = Manifest(
        name="tiny",
        resolution=8,
        latent_rows=ROWS,
        latent_dim=DIM,
        former_rows=2,
        rows=tuple(Row(f"row{index}", 4 << index // 2) for index in range(ROWS)),
        noise=(2, 4, 4),
        h=(2, 2, 2),
        c=(3, 2, 2),
        crop_template="ffhq",
        crop_size=8,
        image_range=(-1.0, 1.0),
        parser=ParserSpec(4, ("background", "skin"), ("skin",)),
        graphs={},
        generator_id="abc123",
        licence="CC0-1.0",
        lineage={"generator": "made up"},
    )
    specs = {
        name: GraphSpec(f"{name}.onnx", inputs, outputs)
        for name, (inputs, outputs) in expected_graphs(manifest).items()
    }
    return Manifest(**{**vars(manifest), "graphs": specs})


def blank_directions() -> list[Direction]:
    """Two attributes with different directions and ranges."""
    ones = np.ones((ROWS, DIM), np.float32)
    return [
        Direction("smile", "Smile", ones, -1.5, 2.0, hair=False),
        Direction("age", "Age", ones * 0.5, -3.0, 3.0, face=False),
    ]


def constant_graph(weights: np.ndarray) -> onnx.ModelProto:
    """y = weights, as a model with one initializer."""
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, weights.shape)
    node = helper.make_node("Identity", ["w"], ["y"])
    graph = helper.make_graph([node], "tiny", [], [output], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_blank_bundle(folder: Path) -> Manifest:
    """Writes the blank bundle; returns its manifest as written."""
    manifest = blank_manifest()
    sources = folder.parent / "graphs"
    sources.mkdir(exist_ok=True)
    for number, name in enumerate(manifest.graphs):
        onnx.save(constant_graph(np.full(5, number, np.float32)), str(sources / f"{name}.onnx"))
    graphs = {name: sources / f"{name}.onnx" for name in manifest.graphs}
    return write_bundle(folder, manifest, graphs, blank_directions())
