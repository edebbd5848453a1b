"""The sound of a file that plays over and over."""

from pathlib import Path

import numpy as np
import pytest

from app.sound_tap import LoopingSound
from tests.app.clips import clip

FOR_EVER_NS = 10**12


@pytest.mark.parametrize(
    ("name", "sound"), [("plain.mp4", "aac"), ("plain.mov", "pcm_s16le"), ("stream.ts", "aac"), ("old.mpg", "mp2")]
)
def test_a_file_that_starts_over_sounds_the_same(tmp_path: Path, name: str, sound: str) -> None:
    codec = "mpeg1video" if name.endswith(".mpg") else "libx264"
    looping = LoopingSound(str(clip(tmp_path / name, 50, codec=codec, sound=sound)))
    looping.follow(FOR_EVER_NS, 0, again=False)
    once, place = looping.tap.since(0)
    looping.follow(FOR_EVER_NS, 0, again=True)
    again, _ = looping.tap.since(place)
    looping.close()
    assert len(once) > 40
    assert [piece.start_ns for piece in again] == [piece.start_ns for piece in once]
    for piece, other in zip(again, once, strict=True):
        assert np.abs(piece.samples - other.samples).max() < 0.01, piece.start_ns
