"""`python -m export.reach --data DIR`: what the default recipe needs for int8, measured on real faces.

The loop runs over training stills and clips, and the generator once more with every slider at both its ends. How far
each channel of what the heavy convolutions see reaches goes into the recipe as `reach.json` (`engine/int8.py`). To be
done again whenever networks were trained: `python -m export.default_bundle` first, then this.
"""

import argparse
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper

from engine.bundle import Bundle, open_bundle, read_manifest
from engine.bundle_build import DEFAULT, bundle_path, recipe_folder
from engine.graphs import plain
from engine.int8 import FILE, Reach, giver, write_reaches
from engine.runtimes.base import FloatArray
from export.bundle import write_manifest
from export.to_int8 import Feeds, Film, recorded_inputs
from models.pictures import images_from
from models.training.packs import prepared
from models.training.splits import Split

HEAVY = 0.05
"""Least share of its graph's multiplications that makes a convolution worth it."""

SELDOM = ("refiner",)
"""Graphs that run so seldom that int8 would not be worth what it loses."""

KEPT = 0.9
"""Share of the calls in which a channel's furthest number is kept; in the others it is cut off there. Finer steps are
worth more: with 1.0 the generator's pictures tremble by a third more."""

STILLS, CLIP_FRAMES = 120, 6
SWEPT = 8
"""Codes on which every slider goes to both its ends."""

log = logging.getLogger(__name__)


def measure(bundle: Bundle, films: Sequence[Film]) -> Mapping[str, Mapping[str, Reach]]:
    """By graph file, the reaches of its heavy convolutions while the loop runs over the films; but for `SELDOM`."""
    found = {}
    seldom = {spec.file for graph, spec in bundle.manifest.graphs.items() if graph in SELDOM}
    for file, seen in recorded_inputs(bundle, films).items():
        if file in seldom:
            continue
        model = plain(onnx.load(bundle.folder / file))
        found[file] = reaches(model, seen)
        if file == bundle.manifest.graphs["generator"].file:
            found[file] = _further(found[file], reaches(model, _swept(bundle, seen)))
        log.info("%s: %s", file, ", ".join(found[file]))
    return {file: convolutions for file, convolutions in found.items() if convolutions}


def _further(one: Mapping[str, Reach], other: Mapping[str, Reach]) -> dict[str, Reach]:
    """What holds for both."""
    return {
        name: Reach(np.maximum(reach.channels, other[name].channels), reach.signed or other[name].signed)
        for name, reach in one.items()
    }


def reaches(model: ModelProto, feeds: Iterable[Mapping[str, FloatArray]]) -> dict[str, Reach]:
    """Of a plain float32 graph's heavy convolutions, what the feeds make them see, image by image."""
    import onnxruntime

    watched = ModelProto()
    watched.CopyFrom(model)
    chosen = heavy(model)
    given = {port.name for port in (*model.graph.input, *model.graph.output)}
    names = [name for name in dict.fromkeys(node.input[0] for node in chosen) if name not in given]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    ports = [port.name for port in session.get_outputs()]
    furthest: list[list[FloatArray]] = [[] for _ in chosen]
    signed = [False] * len(chosen)
    for feed in feeds:
        seen = dict(zip(ports, session.run(ports, feed), strict=True)) | dict(feed)
        for place, node in enumerate(chosen):
            array = seen[node.input[0]]
            furthest[place] += list(np.abs(array).max(axis=(2, 3)))
            signed[place] |= bool(array.min() < 0.0)
    found = {}
    for node, each, below in zip(chosen, furthest, signed, strict=True):
        channels = np.quantile(each, KEPT, axis=0).astype(np.float32)
        alone = giver(model, node) is not None
        found[node.output[0]] = Reach(channels if alone else channels.max(keepdims=True), below)
    return found


def heavy(model: ModelProto) -> list[NodeProto]:
    """The convolutions that mix channels and do at least `HEAVY` of the multiplications of all convolutions, without
    those that give the graph's outputs."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value for value in (*graph.value_info, *graph.output)}
    kernels = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    work = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            *_, height, width = shapes[node.output[0]].type.tensor_type.shape.dim
            work[node.output[0]] = math.prod(kernels[node.input[1]]) * height.dim_value * width.dim_value
    least, given = HEAVY * sum(work.values()), {output.name for output in model.graph.output}
    mixing = [node for node in model.graph.node if node.op_type == "Conv" and kernels[node.input[1]][1] > 1]
    return [node for node in mixing if work[node.output[0]] >= least and node.output[0] not in given]


def _swept(bundle: Bundle, feeds: Feeds) -> Iterable[Mapping[str, FloatArray]]:
    """What the generator is called with for `SWEPT` faces when each slider alone is at one of its ends."""
    for feed in feeds[:: max(len(feeds) // SWEPT, 1)]:
        for direction in bundle.directions.values():
            ends = np.stack([direction.lo * direction.direction, direction.hi * direction.direction])
            noise = np.concatenate([feed["noise"][:1]] * 2)
            yield {"ws": (feed["ws"][:1] + ends).astype(np.float32), "noise": noise}


def read_films(data: Path) -> list[Film]:
    """Training stills, each shown twice, and a stretch of every training clip. Raises the errors of `prepared`."""
    stills, clips = prepared(data, Split.TRAIN)
    chosen = [stills[n] for n in np.linspace(0, len(stills) - 1, STILLS).astype(int)]
    shown = [np.stack([still, still]) for still in chosen]
    shown += [np.stack([clip.crops[n] for n in range(min(CLIP_FRAMES, len(clip.crops)))]) for clip in clips]
    return [[image[None] for image in images_from(crops)] for crops in shown]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data folder that splits.toml describes")
    arguments = parser.parse_args()
    recipe = recipe_folder(DEFAULT)
    (recipe / FILE).unlink(missing_ok=True)  # those of other graphs would not fit, and no bundle could be built
    write_manifest(recipe, read_manifest(recipe))
    found = measure(open_bundle(bundle_path(DEFAULT)), read_films(arguments.data))
    write_reaches(recipe / FILE, found)
    write_manifest(recipe, read_manifest(recipe), [FILE])


if __name__ == "__main__":
    main()
