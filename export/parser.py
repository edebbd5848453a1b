"""The trained face parser as the bundle's `parser.onnx`, with the note of where its weights come from."""

import shutil
from pathlib import Path

import torch

from export.to_onnx import compress, export_graph
from models.training.parser import LINEAGE, WEIGHTS, load_parser


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
