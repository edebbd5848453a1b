"""The `torch-tensorrt` runtime: a bundle's graphs as torch programs, which Torch-TensorRT compiles for the card in use.

Two packages bring the module `torch_tensorrt`, and only one can be installed: `torch-tensorrt` compiles with full
TensorRT, `torch-tensorrt-rtx` with TensorRT for RTX. Each batch size is compiled when it first comes, anew at every
start, which takes minutes for large networks; precisions are those of the graph, as everywhere.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.dlpack import from_dlpack

from engine.bundle import GraphSpec
from engine.card import Import, card_obstacles, first_line
from engine.errors import RuntimeUnavailable
from engine.runtimes.base import Device, FloatArray, Network, Precision, Replay, batch_of, shape_for
from export.eager import EagerNetwork, card_errors, on_stream, read_graph

MODULE = "torch_tensorrt"
PACKAGES = ("torch-tensorrt", "torch-tensorrt-rtx")
"""What brings the module; the extras have the same names."""

Program = Callable[..., tuple[torch.Tensor, ...]]
"""Takes a graph's inputs in the order of its spec, and gives its outputs."""


class TorchTensorRtRuntime:
    """Runs graphs that it compiles. load: imports a module by name; tests hand in stand-ins."""

    name = "torch-tensorrt"

    def __init__(self, load: Import = importlib.import_module) -> None:
        self._load = load

    @cached_property
    def stream(self) -> Any:
        """See `Runtime.stream`."""
        return self._load("cupy").cuda.Stream(non_blocking=True)

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Runtime.capture`: nothing is known of what compiled programs do while they are captured."""
        return None

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        """See `Runtime.obstacles`."""
        found = []
        if device != "cuda":
            found.append(f"it runs on cuda only, not on {device}")
        if precision == "int8":
            found.append("it computes in fp32, fp16 or bf16, not in int8")
        if not torch.cuda.is_available():
            found.append(f"torch {torch.__version__} sees no CUDA device")
        found += card_obstacles(self._load)
        try:
            self._load(MODULE)
        except (ImportError, OSError) as error:
            missing = isinstance(error, ModuleNotFoundError)
            reason = "is not installed" if missing else f"cannot be loaded ({first_line(error)})"
            extras = " or ".join(PACKAGES)
            found.append(f"the package {MODULE} {reason}: install the extra {extras} in an environment of its own")
        return tuple(found)

    def describe(self, device: Device, precision: Precision) -> str:
        """See `Runtime.describe`."""
        how = "the bundle's own precision" if precision == "auto" else precision
        return f"{package() or MODULE} {self._load(MODULE).__version__} on {device} in {how}"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> Network:
        """See `Runtime.open`."""
        network = EagerNetwork(read_graph(model, spec, precision), spec, torch.device(device))
        return _CompiledNetwork(network, model.name, self._load(MODULE), self._load("cupy"), self.stream)


def package() -> str | None:
    """Which of the packages is installed; None when neither is."""
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    return None


def program_of(network: EagerNetwork, batch: int) -> torch.export.ExportedProgram:
    """A graph at a batch size as a torch program, with every shape and index on the way as a constant."""
    spec, device = network.spec, network.device
    zeros = {name: torch.zeros(shape_for(spec, name, batch), device=device) for name in spec.inputs}
    with torch.no_grad():
        numbers = network.numbers(zeros)

        def forward(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(network.run(dict(zip(spec.inputs, given, strict=True)), numbers).values())

        return torch.export.export(make_fx(forward)(*zeros.values()), tuple(zeros.values()))


class _CompiledNetwork:
    """One graph, with a compiled program for every batch size seen so far."""

    def __init__(self, network: EagerNetwork, name: str, library: Any, cupy: Any, stream: Any) -> None:
        self._network = network
        self._name = name
        self._library = library
        self._cupy = cupy
        self._stream = stream
        self._programs: dict[int, Program] = {}

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._network.spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`; raises CardFailed, and RuntimeUnavailable for what cannot be compiled."""
        batch = batch_of(self.spec, arrays)
        from_host = isinstance(next(iter(arrays.values())), np.ndarray)
        with card_errors(), torch.no_grad(), on_stream(self._stream):
            program = self._programs.get(batch) or self._compiled(batch)
            made = program(*(self._tensor(arrays[name]) for name in self.spec.inputs))
            answers = dict(zip(self.spec.outputs, made, strict=True))
            if from_host:
                return {name: tensor.to("cpu", copy=True).numpy() for name, tensor in answers.items()}
            return {name: self._cupy.from_dlpack(tensor) for name, tensor in answers.items()}

    def close(self) -> None:
        """See `Network.close`."""
        self._programs.clear()
        self._network.close()

    def _tensor(self, array: Any) -> torch.Tensor:
        if isinstance(array, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._network.device)
        return from_dlpack(array).contiguous()

    def _compiled(self, batch: int) -> Program:
        exported = program_of(self._network, batch)
        shapes = [shape_for(self.spec, name, batch) for name in self.spec.inputs]
        inputs = [torch.zeros(shape, device=self._network.device) for shape in shapes]
        try:
            # fp32 means fp32: TF32 keeps ten bits of it. The types of everything else are the graph's.
            compiled = self._library.dynamo.compile(exported, inputs=inputs, disable_tf32=True, min_block_size=1)
        except Exception as error:
            # The package's own exceptions have no common base.
            raise RuntimeUnavailable(f"{MODULE} cannot compile {self._name}: {first_line(error)}") from error
        self._programs[batch] = compiled
        return self._programs[batch]
