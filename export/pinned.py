"""Takes third-party weights out of a graph again, so that a recipe holds only what we trained ourselves."""

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from engine.assets import asset, asset_path

_SMALLEST_BYTES = 256
"""Below this a tensor stays inline: shapes and scalars, which would be found anywhere by chance."""


def refer_to_asset(path: Path, name: str) -> tuple[str, ...]:
    """Replaces, in an ONNX file, every tensor whose bytes occur in a pinned file with a reference to them.

    name: of the asset. A reference is ONNX external data: the file's name, offset and length;
    `engine.bundle_build` puts the bytes back. Returns the names of the larger tensors that stay inline, which
    ought to be our own. Raises AssetMissing when the pinned file is not cached.
    """
    pinned = asset_path(name).read_bytes()
    location = Path(asset(name).member).name
    model = onnx.load(str(path), load_external_data=False)
    inline = []
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            continue
        content = numpy_helper.to_array(tensor).tobytes()
        if len(content) < _SMALLEST_BYTES:
            continue
        offset = pinned.find(content)
        if offset < 0:
            inline.append(tensor.name)
        else:
            _point_to(tensor, location, offset, len(content))
    _write(model, path)
    return tuple(inline)


def _point_to(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Makes the tensor a reference to `length` bytes of another file."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))


def _write(model: ModelProto, path: Path) -> None:
    # Not onnx.save: it would look for the files that the references name.
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(model.SerializeToString())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
