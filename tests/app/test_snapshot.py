"""A snapshot is the frame itself, or there is no file."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from app.snapshot import write_png
from engine.errors import SinkError
from tests.app.clips import numbered


def test_the_file_holds_the_frame_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    write_png(numbered(77), path)
    np.testing.assert_array_equal(cv2.imread(str(path)), numbered(77))
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SinkError, match="snapshot"):
        write_png(numbered(1), tmp_path / "file" / "a.png")
