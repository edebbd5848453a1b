"""Our trained weights: fresh ones as safetensors in the cache folder, the shipped ones inside the bundle's graphs.

One small copy is committed, fp16 with the largest matrices in int8, the one that runs: the initialisers of
`models/bundles/default/*.onnx` keep the parameters' names, so a training can start from them. What only trainings need
(the visible net, the generator that the light one was made from) lies in `models/weights`, and so do the graphs of the
detector and the face mesh, which every bundle shares.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.bundle_build import recipe_folder
from engine.errors import CheckpointError
from models.training.log import checkpoint_dir

COMMITTED = Path(__file__).parents[1] / "weights"
"""Weights that no bundle holds."""

FRESH = checkpoint_dir("weights")
"""Where trainings leave what they trained, until `export.default_bundle` puts it into the recipe."""


def save_fresh(name: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write NAME.safetensors in fp16, under a temporary name first.

    Raises CheckpointError when it cannot be written, on a full disk for instance; the file before it is kept.
    """
    path, partial = folder / f"{name}.safetensors", folder / f".{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.detach().half().contiguous() for key, value in tensors.items()}, partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written ({error}); what was there before is kept") from error
    finally:
        partial.unlink(missing_ok=True)


def load_weights(name: str, folder: Path | None = None) -> dict[str, Tensor]:
    """float32 tensors by parameter name: `folder`/NAME.safetensors where it is, else what ships.

    name: generator or wide (the trained parts of them), encoder, recurrent, parser, visible, detector or landmarks.
    Raises CheckpointError when neither can be read.
    """
    for where in (folder, COMMITTED):
        if where is not None and (where / f"{name}.safetensors").is_file():
            return {key: value.float() for key, value in load_file(where / f"{name}.safetensors").items()}
    shared = COMMITTED / f"{name}.onnx"
    return _shipped(shared if shared.is_file() else recipe_folder("default") / f"{name}.onnx")


def _shipped(graph: Path) -> dict[str, Tensor]:
    """Initialisers stored in the graph itself; those that are references into a pinned file are left out."""
    try:
        model = onnx.load(graph, load_external_data=False)
    except OSError as error:
        raise CheckpointError(f"{graph} cannot be read ({error.strerror}); train the network first") from error
    stored = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
        for tensor in model.graph.initializer
        if tensor.data_location != onnx.TensorProto.EXTERNAL
    }
    for name in [name for name in stored if name.endswith(".int8")]:
        plain = name.removesuffix(".int8")
        rows, columns = stored.pop(f"{plain}.row_scale"), stored.pop(f"{plain}.column_scale")
        stored[plain] = stored.pop(name) * rows[:, None] * columns
    return {name.removesuffix(".fp16"): tensor for name, tensor in stored.items()}


def fitting(weights: Mapping[str, Tensor], parameters: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of `weights` that are parameters; a graph holds constants of its own too. Raises CheckpointError."""
    chosen = {key: value for key, value in weights.items() if key in parameters}
    for key, value in chosen.items():
        if value.shape != parameters[key].shape:
            found, expected = tuple(value.shape), tuple(parameters[key].shape)
            raise CheckpointError(f"{name}: {key} is {found}, but {expected} was expected; train it again")
    return chosen
