"""The frames of a bench: a clip's pictures, composed before the clock starts and played to and fro from memory."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np

from app.bench.settings import Scene, Size
from app.sources import Closing, Source, SourceInfo
from engine.errors import UsageError
from engine.frames import CameraFrame, ImageU8

_MEMORY_BYTES = 512 << 20
"""What all composed frames together may take."""

_GREY = 127
_FPS = 25.0


@dataclass(frozen=True)
class Clip:
    """Pictures of one size. images: uint8 BGR [H, W, 3], in order. fps: their rate."""

    images: tuple[ImageU8, ...]
    fps: float

    @property
    def size(self) -> Size:
        """Of every picture."""
        height, width = self.images[0].shape[:2]
        return Size(width, height)


def read_clip(source: Source, count: int) -> Clip:
    """The first pictures of a file, at most `count` and at most what fits the memory."""
    fitting = _MEMORY_BYTES // (3 * source.info.width_px * source.info.height_px)
    frames = iter(source.read, None)
    images = tuple(frame.image for frame in islice(frames, max(min(count, fitting), 2)))
    return Clip(images, source.info.fps if source.info.fps > 0 else _FPS)


def compose(clip: Clip, scenes: Sequence[Scene]) -> dict[Scene, Clip]:
    """The clip as each scene wants it.

    The picture is made smaller until it fits the smallest place that any scene has for it, and never larger: a face
    has the same size in pixels in all scenes. Around it the frame is grey.
    """
    cells = {scene: _cell(scene, clip.size) for scene in scenes}
    scale = min(1.0, *(min(c.width / clip.size.width, c.height / clip.size.height) for c in cells.values()))
    placed = clip if scale == 1.0 else Clip(tuple(_reduced(image, scale) for image in clip.images), clip.fps)
    return {scene: _composed(placed, scene, scene.size or clip.size, len(scenes)) for scene in scenes}


def cells(faces: int, size: Size) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each face's place in a frame."""
    columns, rows = _grid(faces)
    width, height = size.width // columns, size.height // rows
    for number in range(faces):
        row, column = divmod(number, columns)
        yield slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)


def _grid(faces: int) -> tuple[int, int]:
    """Columns and rows."""
    columns = math.ceil(math.sqrt(faces))
    return columns, math.ceil(faces / columns)


def _cell(scene: Scene, own: Size) -> Size:
    columns, rows = _grid(scene.faces)
    width, height = scene.size or own
    if width // columns < 32 or height // rows < 32:
        raise UsageError(f"a frame of {width}x{height} has no room for {scene.faces} faces; expected 32 px for each")
    return Size(width // columns, height // rows)


def _reduced(image: ImageU8, scale: float) -> ImageU8:
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _composed(clip: Clip, scene: Scene, size: Size, scenes: int) -> Clip:
    if size == clip.size and scene.faces == 1:
        return clip
    fitting = _MEMORY_BYTES // (3 * size.width * size.height * scenes)
    return Clip(tuple(_placed(image, scene.faces, size) for image in clip.images[: max(fitting, 2)]), clip.fps)


def _placed(image: ImageU8, faces: int, size: Size) -> ImageU8:
    """The picture in the middle of each cell of a frame."""
    canvas = np.full((size.height, size.width, 3), _GREY, np.uint8)
    height, width = image.shape[:2]
    for place in cells(faces, size):
        cell = canvas[place]
        top, left = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
        cell[top : top + height, left : left + width] = image
    return canvas


class ClipSource(Closing):
    """Plays a clip from memory, to and fro without end, so that there never is a cut."""

    def __init__(self, clip: Clip, first: int) -> None:
        """first: the index of the first frame; a frame's time and picture follow from its index."""
        self._clip = clip
        self._next = first
        width, height = clip.size
        self._info = SourceInfo("memory", width, height, clip.fps)

    @property
    def info(self) -> SourceInfo:
        """The clip's size and rate."""
        return self._info

    def read(self) -> CameraFrame:
        """The next frame."""
        index, last = self._next, len(self._clip.images) - 1
        self._next += 1
        there_and_back = last - abs(last - index % (2 * last or 1))
        return CameraFrame(index, round(index * 1e9 / self._clip.fps), self._clip.images[there_and_back])

    def cancel(self) -> None:
        """Nothing to do: reading never waits."""
