"""OpenVINO's core, one for the whole process."""

from functools import cache
from typing import Any


@cache
def openvino_core() -> Any:
    """The `openvino.Core` that everybody shares and nobody gives up.

    On a processor with AMX a core gives its thread a stack for signals, and puts the one before it back when it is
    collected. Two cores that go in the order in which they came leave the thread with the stack of the first, which is
    freed by then: the next signal, Ctrl-C for instance, crashes the process.
    """
    import openvino

    return openvino.Core()
