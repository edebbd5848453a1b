"""A seeded bundle with the interface of a real one and networks of a few thousand numbers: built in milliseconds.

The recurrent graph really is one: dws, noise, h and c depend on all four images and on the memory. The parser calls a
fixed ellipse in the middle of the crop skin.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.assets import sha256_of
from engine.bundle import (
    DIRECTIONS,
    MANIFEST,
    GraphSpec,
    Manifest,
    ParserSpec,
    Row,
    expected_graphs,
    manifest_document,
    optional_graphs,
)

ROWS, DIM, FORMER, SIZE = 12, 8, 10, 256
CHANNELS = 4
"""Of the noise map and of the ConvLSTM's state."""

OPSET, IR_VERSION = 17, 8


class Graph:
    """Collects the nodes and seeded weights of one ONNX graph."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """Append a node; returns the name of its output."""
        output = name or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, array: NDArray[np.generic]) -> str:
        """An initializer."""
        name = f"k{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        """Seeded normal numbers with variance 1 / fan-in, times `scale`."""
        fan_in = int(np.prod(shape[1:]))
        return self.constant((self._rng.standard_normal(shape) * scale / fan_in**0.5).astype(np.float32))

    def pool(self, source: str, block: int) -> str:
        """Means of square blocks."""
        return self.add("AveragePool", source, kernel_shape=[block, block], strides=[block, block])

    def conv(self, source: str, n_out: int, n_in: int, scale: float = 1.0) -> str:
        """A 1x1 convolution."""
        return self.add("Conv", source, self.weight(n_out, n_in, 1, 1, scale=scale))

    def dense(self, source: str, n_out: int, n_in: int, scale: float = 1.0) -> str:
        """Flatten, then a fully connected layer."""
        flat = self.add("Flatten", source)
        return self.add("Gemm", flat, self.weight(n_out, n_in, scale=scale), transB=1)

    def reshape(self, source: str, *shape: int, name: str = "") -> str:
        """To [B, *shape]."""
        return self.add("Reshape", source, self.constant(np.array([-1, *shape], np.int64)), name=name)

    def enlarge(self, source: str, factor: int, name: str = "") -> str:
        """Bilinear, by a whole factor."""
        scales = self.constant(np.array([1, 1, factor, factor], np.float32))
        return self.add("Resize", source, "", scales, mode="linear", name=name)

    def save(self, path: Path, inputs: Mapping[str, tuple], outputs: Mapping[str, tuple]) -> None:
        """Write the model with float32 inputs and outputs of these shapes."""
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in side.items()]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, path.stem, *ends, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def encoder(graph: Graph, rows: int) -> None:
    """crop -> ws."""
    code = graph.dense(graph.pool("crop", 64), rows * DIM, 3 * 16)
    graph.reshape(graph.add("Tanh", code), rows, DIM, name="ws")


def generator(graph: Graph) -> None:
    """ws, noise -> image."""
    coarse = graph.enlarge(graph.reshape(graph.dense("ws", 3 * 64, ROWS * DIM), 3, 8, 8), 4)
    detail = graph.conv("noise", 3, CHANNELS)
    graph.enlarge(graph.add("Tanh", graph.add("Add", coarse, detail)), 8, name="image")


def recurrent(graph: Graph) -> None:
    """Four images, h, c -> dws, noise, h_out, c_out."""
    images = graph.add("Concat", "crop_prev", "crop", "inversion_prev", "edit_prev", axis=1)
    seen = graph.conv(graph.pool(images, 32), CHANNELS, 12)
    mixed = graph.add("Add", seen, graph.conv("h", CHANNELS, CHANNELS))
    half = graph.constant(np.float32(0.5))
    memory = graph.add("Add", graph.add("Mul", "c", half), graph.add("Mul", mixed, half), name="c_out")
    h_out = graph.add("Tanh", memory, name="h_out")
    graph.reshape(graph.dense(h_out, FORMER * DIM, CHANNELS * 64, scale=0.3), FORMER, DIM, name="dws")
    graph.enlarge(graph.conv(h_out, CHANNELS, CHANNELS, scale=0.3), 4, name="noise")


def parser(graph: Graph) -> None:
    """crop -> logits of background, skin and cloth."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    inside = np.float32(3.0) * (1.0 - (x / 0.6) ** 2 - (y / 0.8) ** 2)
    prior = np.stack([np.zeros_like(inside), inside, np.full_like(inside, -9.0)])[None].astype(np.float32)
    colours = graph.conv(graph.pool("crop", 2), 3, 3, scale=0.1)
    graph.add("Add", colours, graph.constant(prior), name="logits")


def refiner(graph: Graph) -> None:
    """crop, inversion -> dws."""
    apart = graph.pool(graph.add("Sub", "crop", "inversion"), 64)
    graph.reshape(graph.dense(apart, ROWS * DIM, 3 * 16, scale=0.3), ROWS, DIM, name="dws")


def build(folder: Path, seed: int = 0, one_encoder: bool = False, refined: bool = False) -> Path:
    """Write the bundle into a new folder and return it.

    one_encoder: a single file serves as both encoders. refined: there is a refiner.
    """
    folder.mkdir(parents=True)
    manifest = _manifest(one_encoder, refined)
    makers = {
        "generator": generator,
        "encoder_anchor": lambda graph: encoder(graph, ROWS),
        "encoder": lambda graph: encoder(graph, FORMER),
        "recurrent": recurrent,
        "parser": parser,
        **({"refiner": refiner} if refined else {}),
    }
    for index, (name, make) in enumerate(makers.items()):
        spec = manifest.graphs[name]
        if not (folder / spec.file).exists():
            graph = Graph(np.random.default_rng((seed, index)))
            make(graph)
            graph.save(folder / spec.file, spec.inputs, spec.outputs)
    np.savez(folder / DIRECTIONS, **_directions(np.random.default_rng((seed, 99))))
    names = {spec.file for spec in manifest.graphs.values()} | {DIRECTIONS}
    manifest = replace(manifest, files={name: sha256_of(folder / name) for name in sorted(names)})
    (folder / MANIFEST).write_text(json.dumps(manifest_document(manifest)), encoding="utf-8")
    return folder


def _directions(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {"generator_id": np.array("tiny")}
    for name in ("age", "smile"):
        arrays[f"{name}.direction"] = rng.standard_normal((ROWS, DIM)).astype(np.float32)
        arrays[f"{name}.range"] = np.array([-1.0, 2.0], np.float32)
        arrays[f"{name}.label"] = np.array(name.title())
    arrays["age.shift"] = np.array([0.02, -0.01], np.float32)
    arrays["age.takes_off"] = np.array("cloth")
    arrays["smile.outline"] = np.array(False)
    return arrays


def _manifest(one_encoder: bool, refined: bool) -> Manifest:
    manifest = Manifest(
        name="tiny",
        resolution=SIZE,
        latent_rows=ROWS,
        latent_dim=DIM,
        former_rows=FORMER,
        rows=tuple(Row(f"row{n}", 4 if n == 0 else 8 * 2 ** (n // 2)) for n in range(ROWS)),
        noise=(CHANNELS, 32, 32),
        h=(CHANNELS, 8, 8),
        c=(CHANNELS, 8, 8),
        crop_template="ffhq",
        crop_size=SIZE,
        image_range=(-1.0, 1.0),
        parser=ParserSpec(128, ("background", "skin", "cloth"), ("skin",)),
        graphs={},
        generator_id="tiny",
        licence="CC0-1.0",
        lineage={"all": "seeded random numbers"},
    )
    specs = {**expected_graphs(manifest), **(optional_graphs(manifest) if refined else {})}
    graphs = {name: GraphSpec(f"{name}.onnx", inputs, outputs) for name, (inputs, outputs) in specs.items()}
    if one_encoder:
        graphs["encoder"] = graphs["encoder_anchor"]
    return replace(manifest, graphs=graphs)
