"""Several processes, one training: torch's DistributedDataParallel under `torchrun`.

`torchrun --nproc-per-node 2 -m app train recurrent ...` starts the same command twice; each process draws its own share
of every batch, gradients are averaged between them, and the first one alone reports and writes. The processes of a
machine share its cache folder, from which each of them resumes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from engine.errors import RuntimeUnavailable, UsageError

# The others wait while the first process validates and writes.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training: number `rank` of `world`, working on `device`."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports, validates and writes."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The samples of one step that this process draws, when each draws `batch`."""
        return range(self.rank * batch, (self.rank + 1) * batch)

    def joint(self, module: nn.Module) -> nn.Module:
        """`module` with gradients averaged over the processes and the first one's weights in all of them."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module, device_ids=[self.device] if self.device.type == "cuda" else None)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes."""
        if self.world > 1:
            distributed.all_reduce(values)
            values = values / self.world
        return values

    def largest(self, values: Sequence[float]) -> list[float]:
        """The maximum of each value over the processes, so that all of them decide the same."""
        if self.world == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return shared.tolist()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started, or this one alone.

    device: "cpu" or "cuda". Raises RuntimeUnavailable when torch sees no such device, UsageError when the environment
    is only half torchrun's.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailable(f"torch {torch.__version__} sees no CUDA device; train with --device cpu")
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: ten bits of fp32 are enough for gradients
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, torch.device(device))
        return
    absent = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        raise UsageError(f"WORLD_SIZE is {world} but {', '.join(absent)} is not set; start the training with torchrun")
    where = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), world, where)
    finally:
        distributed.destroy_process_group()
