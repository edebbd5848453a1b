"""The protocol of a runtime: named arrays in, named arrays out. Nobody above asks which runtime it is.

A runtime is chosen once, at start (`engine/runtimes/select.py`), and opens each graph of a bundle as a `Network`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.bundle import BATCH, GraphSpec

FloatArray = NDArray[np.float32]

Device = Literal["cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


Replay = Callable[[], None]
"""Does on a card what was captured, once more."""


class Network(Protocol):
    """One graph of a bundle, ready to run. Not safe to call from two threads at once."""

    @property
    def spec(self) -> GraphSpec:
        """The named inputs and outputs with their shapes; the axis `BATCH` is free."""
        ...

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """Run on float32 arrays, one for each input of `spec`, all with the same batch: NumPy's, on a card CuPy's too.

        The arrays are not written to and not kept; the returned ones belong to the caller. A new batch size may take
        a second, because the graph is compiled for it.
        """
        ...

    def close(self) -> None:
        """Free what the network holds; it must not be called afterwards."""
        ...


Answer = Callable[[], Mapping[str, FloatArray]]
"""Waits for a call that was begun and gives its outputs."""


@runtime_checkable
class SideBySide(Network, Protocol):
    """A network that can work beside another one, if its runtime can do two things at once."""

    def begin(self, **arrays: FloatArray) -> Answer:
        """Start a call; nobody may write to the arrays until it is answered."""
        ...


class Runtime(Protocol):
    """A way to run ONNX graphs on this machine."""

    @property
    def name(self) -> str:
        """What `--runtime` calls it."""
        ...

    @property
    def stream(self) -> Any:
        """The CuPy stream on which its networks work on a card; None where it uses none.

        Such networks take arrays of CuPy that are computed on this stream, and then give new ones that are.
        """
        ...

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """What `work` would put on `stream`, its networks' part too, as one CUDA graph; it is not done now.

        It must have been done once before. None where the networks cannot be captured, and on the CPU. Raises
        CardFailed.
        """
        ...

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """Every reason why it cannot be used here in that way; empty when it can."""
        ...

    def describe(self, device: Device, precision: Precision) -> str:
        """The choice in words, with version, device and the precision that `auto` comes to."""
        ...

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """Load one ONNX file; raises BundleError when it is not the graph that `spec` describes."""
        ...


Capture = Callable[[Callable[[], None]], Replay | None]
"""`Runtime.capture`."""


@dataclass(frozen=True)
class Networks:
    """The graphs of a bundle as networks, and the one number that the loop needs beside them.

    former_rows: the rows of W+ that `encoder` and `recurrent` set on every frame (Eq. 3). refiner: what the encoder
    missed of a person, from a crop and its inversion; a bundle may have none.
    """

    generator: Network
    encoder_anchor: Network
    encoder: Network
    recurrent: Network
    parser: Network
    former_rows: int
    refiner: Network | None = None

    def close(self) -> None:
        """Close every network; one that serves as two is closed once."""
        networks = (self.generator, self.encoder_anchor, self.encoder, self.recurrent, self.parser, self.refiner)
        for network in {id(network): network for network in networks if network}.values():
            network.close()


def begin(network: Network, **arrays: FloatArray) -> Answer:
    """Start a call and go on; a network that cannot work beside others is done when this returns."""
    if isinstance(network, SideBySide):
        return network.begin(**arrays)
    outputs = network(**arrays)
    return lambda: outputs


def batch_of(spec: GraphSpec, arrays: Mapping[str, FloatArray]) -> int:
    """The batch size of a call; an assertion fails when the arrays are not the ones of `spec`."""
    assert arrays.keys() == spec.inputs.keys(), f"{sorted(arrays)} instead of {sorted(spec.inputs)}"
    batch = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        assert array.dtype == np.float32, f"{name} is {array.dtype}"
        assert array.shape == shape_for(spec, name, batch), f"{name} is {array.shape}, batch {batch}"
    return batch


def shape_for(spec: GraphSpec, name: str, batch: int) -> tuple[int, ...]:
    """The shape of an input or output at a batch size."""
    shape = spec.inputs[name] if name in spec.inputs else spec.outputs[name]
    return tuple(batch if axis == BATCH else int(axis) for axis in shape)


def mismatch(spec: GraphSpec, inputs: set[str], outputs: set[str]) -> str | None:
    """What a file's inputs and outputs lack of those that the manifest promises; None when nothing."""
    if inputs == set(spec.inputs) and outputs >= set(spec.outputs):
        return None
    return (
        f"has inputs {sorted(inputs)} and outputs {sorted(outputs)}, "
        f"but the manifest promises {sorted(spec.inputs)} and {sorted(spec.outputs)}"
    )
