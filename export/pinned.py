"""Takes weights out of a graph that lie elsewhere: third parties', so that a recipe holds only what we trained
ourselves, and those of another graph of the recipe, so that it holds them once."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from engine.assets import asset, asset_path

_SMALLEST_BYTES = 256
"""Below this a tensor stays inline: shapes and scalars, which would be found anywhere by chance."""


def refer_to_asset(path: Path, name: str, orders: Sequence[NDArray[np.int64]] = ()) -> tuple[str, ...]:
    """Replaces, in an ONNX file, every tensor whose bytes occur in a pinned file with a reference to them.

    name: of the asset. orders: in which rows or columns of its tensors may have been taken; such a tensor becomes a
    `Gather` of a reference. A reference is ONNX external data: the file's name, offset and length;
    `engine.bundle_build` puts the bytes back. Returns the names of the larger tensors that stay inline, which
    ought to be our own. Raises AssetMissing when the pinned file is not cached.
    """
    return _refer(path, asset_path(name).read_bytes(), Path(asset(name).member).name, orders)


def refer_to_graph(path: Path, other: Path) -> tuple[str, ...]:
    """The same with another ONNX file, which has to lie beside this one when the bundle is built."""
    return _refer(path, other.read_bytes(), other.name, ())


def _refer(path: Path, pinned: bytes, location: str, orders: Sequence[NDArray[np.int64]]) -> tuple[str, ...]:
    model = onnx.load(str(path), load_external_data=False)
    inline, gathers = [], []
    used: dict[int, str] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            continue
        values = numpy_helper.to_array(tensor)
        if values.nbytes < _SMALLEST_BYTES:
            continue
        found = _find(values, pinned, {len(order): order for order in orders})
        if found is None:
            inline.append(tensor.name)
            continue
        offset, axes = found
        _point_to(tensor, location, offset, values.nbytes)
        gathers += _gather(tensor, axes)
        used |= {values.shape[axis]: f"order_{values.shape[axis]}" for axis in axes}
    model.graph.initializer.extend(numpy_helper.from_array(o, used[len(o)]) for o in orders if len(o) in used)
    nodes = [*gathers, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _write(model, path)
    return tuple(inline)


def _find(
    values: NDArray[np.generic], pinned: bytes, orders: Mapping[int, NDArray[np.int64]]
) -> tuple[int, tuple[int, ...]] | None:
    """Offset of the tensor in the pinned bytes, and the axes along which it was taken in another order."""
    for axes in ((), (0,), (1,), (0, 1)):
        original = values
        if any(axis >= values.ndim or values.shape[axis] not in orders for axis in axes):
            continue
        for axis in axes:
            original = np.take(original, np.argsort(orders[values.shape[axis]]), axis)
        offset = pinned.find(original.tobytes())
        if offset >= 0:
            return offset, axes
    return None


def _gather(tensor: TensorProto, axes: Sequence[int]) -> list[NodeProto]:
    """Nodes that make a tensor out of its published form, which takes another name."""
    names = [f"{tensor.name}.published{axis}" for axis in axes] + [tensor.name]
    sizes = [tensor.dims[axis] for axis in axes]
    tensor.name = names[0]
    return [
        helper.make_node("Gather", [source, f"order_{size}"], [target], name=source, axis=axis)
        for axis, size, source, target in zip(axes, sizes, names, names[1:], strict=False)
    ]


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
