"""One frame as a PNG file."""

from pathlib import Path

import cv2

from app.files import write_whole
from engine.errors import SinkError
from engine.frames import ImageU8


def write_png(image_u8: ImageU8, path: str | Path) -> None:
    """Writes a BGR frame [H, W, 3] under a temporary name, then renames it; makes the folder where it is missing.

    Raises SinkError when it cannot be written; then nothing is left behind.
    """
    target = Path(path)
    _, encoded = cv2.imencode(".png", image_u8)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, encoded.tobytes())
    except OSError as error:
        raise SinkError(f"snapshot {target} cannot be written: {error.strerror}") from error
