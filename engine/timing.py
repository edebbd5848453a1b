"""How long each stage of a frame took."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType

Stage = Callable[[str], AbstractContextManager[None]]
"""Called with a stage's name; what runs inside the context that it returns belongs to that stage."""


def untimed(name: str) -> AbstractContextManager[None]:
    """The `Stage` for callers that want no timing."""
    return nullcontext()


class StageClock:
    """Adds up wall milliseconds a stage over one frame; `total` runs from construction to `read`."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
        self._stages_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the context as `name`; a stage entered twice is added up."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            elapsed_ms = (time.perf_counter() - start_s) * 1e3
            self._stages_ms[name] = self._stages_ms.get(name, 0.0) + elapsed_ms

    def read(self) -> Mapping[str, float]:
        """The stages so far, in the order in which they were first entered, and `total`."""
        total_ms = (time.perf_counter() - self._start_s) * 1e3
        return MappingProxyType({**self._stages_ms, "total": total_ms})
