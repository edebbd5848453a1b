"""The face's rectangle in full frames, and pictures pasted into it."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.bundle import open_bundle
from engine.geometry import CROP_SIZE, Affine, align, crop_corners_px, face_rectangle_px
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks
from models.evaluation.clips import AlignedClip
from models.evaluation.rollout import LoadedBundle
from models.evaluation.view import LONGEST_SIDE_PX, take_view
from tests.engine import tiny_bundle
from tests.engine.fakes import crop_at, picture

FRAMES, FIRST = 6, 2


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedBundle]:
    bundle = open_bundle(tiny_bundle.build(Path(tmp_path_factory.mktemp("view")) / "tiny"))
    networks = open_networks(bundle, OnnxRuntime(threads=1), "cpu", "fp32")
    yield LoadedBundle("tiny", bundle, networks)
    networks.close()


def write_clip(path: Path, width: int, height: int) -> list[np.ndarray]:
    """Frames of one picture that gets brighter, lossless; the first two are before the face."""
    frames = [picture(5, width, height) + np.uint8(n) for n in range(FIRST + FRAMES)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return frames


def aligned(frames: list[np.ndarray], crops_of: list[Affine]) -> AlignedClip:
    crops = [align(frame, crop)[..., ::-1] for frame, crop in zip(frames[FIRST:], crops_of, strict=True)]
    return AlignedClip("clip.avi", FIRST, len(frames), np.stack(crops), tuple(crops_of))


def test_view_is_the_union_of_the_face_rectangles(tmp_path: Path, loaded: LoadedBundle) -> None:
    frames = write_clip(tmp_path / "clip.avi", 320, 240)
    crops_of = [crop_at(150.3 + 4 * n, 110.4, 60) for n in range(FRAMES)]
    clip = aligned(frames, crops_of)
    view = take_view(tmp_path / "clip.avi", clip, loaded)
    x0, y0, _, y1 = face_rectangle_px(crops_of[0], (320, 240))
    x1 = face_rectangle_px(crops_of[-1], (320, 240))[2]
    # Nothing is scaled: the view is a part of the frames, pixel for pixel, from the run's first frame on.
    np.testing.assert_array_equal(view.frames, [frame[y0:y1, x0:x1] for frame in frames[FIRST:]])
    np.testing.assert_array_equal(view.rgb[0], frames[FIRST][y0:y1, x0:x1, ::-1])
    for n in range(FRAMES):
        left, top, right, bottom = face_rectangle_px(crops_of[n], (320, 240))
        inside = np.zeros((y1 - y0, x1 - x0))
        inside[top - y0 : bottom - y0, left - x0 : right - x0] = 1
        np.testing.assert_array_equal(view.faces[n], inside)


def test_own_crops_change_nothing_and_others_only_the_face(tmp_path: Path, loaded: LoadedBundle) -> None:
    frames = write_clip(tmp_path / "clip.avi", 320, 240)
    clip = aligned(frames, [crop_at(150 + 4 * n, 110, 60) for n in range(FRAMES)])
    view = take_view(tmp_path / "clip.avi", clip, loaded)
    assert np.abs(view.with_crops(clip.crops).astype(int) - view.rgb).max() <= 3
    dark = view.with_crops(np.zeros_like(clip.crops))
    changed = (dark != view.rgb).any(axis=-1)
    assert 0.1 < changed.mean() < 0.6
    # The first frame's face is the left part of the view, the last one's the right.
    assert changed[0].any(axis=0).argmax() + 15 < changed[-1].any(axis=0).argmax()
    later = view.without_first()
    np.testing.assert_array_equal(later.with_crops(np.zeros_like(clip.crops[1:])), dark[1:])


def test_a_large_face_is_scaled_down(tmp_path: Path, loaded: LoadedBundle) -> None:
    frames = write_clip(tmp_path / "clip.avi", 900, 700)
    clip = aligned(frames, [crop_at(430, 360, 300)] * FRAMES)
    view = take_view(tmp_path / "clip.avi", clip, loaded)
    height, width = view.frames.shape[1:3]
    assert max(height, width) == LONGEST_SIDE_PX
    corners = crop_corners_px(view.crop_from_view[0])
    np.testing.assert_allclose(corners.min(axis=0), -0.5, atol=1.0)
    np.testing.assert_allclose(corners.max(axis=0), (width - 0.5, height - 0.5), atol=1.0)
    assert view.faces.all()
    # What is seen there is the crop, at another size.
    small = cv2.resize(clip.crops[0], (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - view.rgb[0]).mean() < 3
    assert clip.crops.shape[1] == CROP_SIZE
