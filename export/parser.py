"""`python -m export.parser TRAINED`: the trained face parser as the default recipe's `parser.onnx`.

With it goes the note of where its weights come from. The recipe's other graphs stay as they are, byte for byte.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from engine.bundle import BATCH, Manifest, ParserSpec, read_manifest
from engine.bundle_build import recipe_folder
from export.bundle import write_manifest
from export.to_onnx import compress, export_graph
from models.parsing import CLASSES, FACE_CLASSES, OCCLUDER_CLASSES
from models.training.parser import LINEAGE, WEIGHTS, load_parser

_RESOLUTION = 128
PARSER = ParserSpec(_RESOLUTION, CLASSES, FACE_CLASSES, OCCLUDER_CLASSES)
LOGITS = (BATCH, len(CLASSES), _RESOLUTION, _RESOLUTION)


def export_parser(trained: Path, folder: Path) -> Path:
    """Write `parser.onnx` (crop -> logits, float16 weights) and `parser.json` into `folder`; returns the graph's path.

    `trained`: the folder that `rigid-live train parser --out` filled. Raises CheckpointError when its weights are
    absent or do not fit.
    """
    graph = folder / "parser.onnx"
    export_graph(load_parser(trained / WEIGHTS), graph, {"crop": torch.zeros(2, 3, 256, 256)}, ["logits"])
    compress(graph)
    shutil.copyfile(trained / LINEAGE, folder / LINEAGE)
    return graph


def lineage_line(recipe: Path) -> str:
    """What a recipe's manifest says of its parser: the note beside it, on one line."""
    return json.dumps(json.loads((recipe / LINEAGE).read_text(encoding="utf-8")))


def replace_parser(trained: Path, recipe: Path) -> Manifest:
    """Put a trained parser into a recipe, whose manifest then says what it is; returns the manifest."""
    export_parser(trained, recipe)
    manifest = read_manifest(recipe)
    graph = replace(manifest.graphs["parser"], outputs={"logits": LOGITS})
    changed = replace(
        manifest,
        parser=PARSER,
        graphs={**manifest.graphs, "parser": graph},
        lineage={**manifest.lineage, "parser": lineage_line(recipe)},
    )
    return write_manifest(recipe, changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="the folder that `rigid-live train parser --out` filled")
    parser.add_argument("--recipe", type=Path, default=recipe_folder("default"), help="default: %(default)s")
    arguments = parser.parse_args()
    replace_parser(arguments.trained, arguments.recipe)


if __name__ == "__main__":
    main()
