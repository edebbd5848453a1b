"""Scenes have as many faces as asked for, each of the same size in pixels, and play without a cut."""

from itertools import pairwise

import numpy as np
import pytest

from app.bench.scene import Clip, ClipSource, cells, compose, read_clip
from app.bench.settings import Scene, Size
from engine.errors import UsageError
from tests.app.fakes import PatternSource

SCENES = [Scene(faces, size) for faces in (1, 2, 3, 4) for size in (None, Size(64, 64), Size(400, 200))]


def white(count: int = 3, width: int = 160, height: int = 80) -> Clip:
    return Clip(tuple(np.full((height, width, 3), 255, np.uint8) for _ in range(count)), 25.0)


@pytest.mark.parametrize("scene", SCENES)
def test_the_picture_is_in_every_cell_and_has_one_size_in_all_scenes(scene: Scene) -> None:
    (image, *_) = compose(white(), SCENES)[scene].images
    assert image.shape == ((scene.size.height, scene.size.width, 3) if scene.size else (80, 160, 3))
    white_px = [int((image[place] == 255).all(axis=2).sum()) for place in cells(scene.faces, Size(*image.shape[1::-1]))]
    assert white_px == [32 * 16] * scene.faces, "the smallest cell is 32 px wide"


def test_alone_and_unscaled_the_frames_are_the_clips_own() -> None:
    clip = white()
    assert compose(clip, [Scene()])[Scene()].images is clip.images
    (image, *_) = compose(clip, [Scene(1, Size(200, 100))])[Scene(1, Size(200, 100))].images
    assert (image == 255).all(axis=2).sum() == 160 * 80, "never enlarged, not made smaller without need"


def test_a_frame_without_room_is_refused() -> None:
    with pytest.raises(UsageError, match="no room for 4 faces"):
        compose(white(), [Scene(4, Size(60, 60))])


def test_the_clip_plays_to_and_fro_and_its_time_goes_on() -> None:
    clip = Clip(tuple(np.full((8, 8, 3), level, np.uint8) for level in range(4)), 25.0)
    source = ClipSource(clip, first=2)
    frames = [source.read() for _ in range(9)]
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [2, 3, 2, 1, 0, 1, 2, 3, 2]
    assert [frame.index for frame in frames] == list(range(2, 11))
    assert {b.captured_ns - a.captured_ns for a, b in pairwise(frames)} == {40_000_000}


def test_one_picture_is_enough() -> None:
    source = ClipSource(white(1), first=0)
    assert [source.read().index for _ in range(3)] == [0, 1, 2]


def test_no_more_is_read_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_clip(PatternSource(9), 5).images) == 5
    assert len(read_clip(PatternSource(4), 5).images) == 4
    monkeypatch.setattr("app.bench.scene._MEMORY_BYTES", 3 * 64 * 48 * 3)
    assert len(read_clip(PatternSource(9), 5).images) == 3
