"""TensorBoard files of a training, where the package is installed."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Board:
    """Curves and image sheets under `folder`; look at them with `tensorboard --logdir FOLDER`.

    start: the first step; what the files of earlier runs say about later ones is void.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        self._writer = _open(folder, start)

    def scalars(self, step: int, values: Mapping[str, float], group: str) -> None:
        """One point of every curve `group`/name."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def sheet(self, step: int, image: Tensor) -> None:
        """image: float RGB [3, H, W] in [-1, 1]."""
        if self._writer:
            shown = image.detach().float().cpu().clamp(-1, 1) * 0.5 + 0.5
            self._writer.add_image("sheet", shown, step)
            self._writer.flush()

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer:
            self._writer.close()


def _open(folder: Path, start: int) -> "SummaryWriter | None":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("no TensorBoard files: the package tensorboard is not installed")
        return None
    return SummaryWriter(str(folder), purge_step=start)
