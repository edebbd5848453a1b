"""A session's work on pixels on the CPU: the frame's copy, which large frames have made beside the networks."""

import time

import cv2
import numpy as np
import pytest

from engine.bundle import ParserSpec
from engine.compositing import Patch, blend
from engine.imaging import WORTH_A_THREAD, CpuImaging
from engine.masks import MaskShape, usual_mask
from tests.engine.fakes import crop_at, picture

SMALL, LARGE = (640, 360), (3840, 2160)


@pytest.fixture
def imaging():
    return CpuImaging(ParserSpec(128, ("background", "skin"), ("skin",)), MaskShape())


@pytest.fixture
def one_face():
    """Edits [1, 3, 256, 256], masks [1, 256, 256], and where the face lies."""
    images = np.random.default_rng(0).uniform(-1.0, 1.0, (1, 3, 256, 256)).astype(np.float32)
    return images, usual_mask(256, MaskShape())[None], (crop_at(320.4, 180.2, 120.0),)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("view", [np.s_[:], np.s_[:, ::-1], np.s_[::-1, :, ::-1]])
def test_the_frame_is_not_written_to_and_the_result_is_a_new_one(imaging, one_face, size, view):
    frame = picture(3, *size)[view]
    assert (frame.nbytes >= WORTH_A_THREAD) == (size == LARGE)
    before = frame.copy()
    shown = imaging.blend(imaging.place_frame(frame), *one_face)
    np.testing.assert_array_equal(frame, before)
    assert not np.shares_memory(shown, frame)
    (image,), (mask,), (crop_from_frame,) = one_face
    np.testing.assert_array_equal(shown, blend(frame, [Patch(image, mask, crop_from_frame)]))


def test_a_frame_that_no_face_was_laid_over_leaves_nothing_behind(imaging, one_face):
    """A step that failed half-way, or whose frame is not to be seen."""
    imaging.place_frame(picture(1, *LARGE))
    shown = imaging.blend(imaging.place_frame(picture(2, *LARGE)), *one_face)
    np.testing.assert_array_equal(shown[1000:], picture(2, *LARGE)[1000:])


def test_the_cost_follows_the_face_not_the_frame(imaging, one_face):
    """With the copy, as a session blends: the same face costs in 4K at most 1.3 x what it costs in 360p."""
    frames = [np.full((height, width, 3), 128, np.uint8) for width, height in (SMALL, LARGE)]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # so that the processor time of this thread is all there is
    try:
        took_ns: list[list[int]] = [[], []]
        for _ in range(40):
            for frame, times in zip(frames, took_ns, strict=True):
                placed = imaging.place_frame(frame)
                time.sleep(0.02)  # the networks
                started = time.thread_time_ns()
                imaging.blend(placed, *one_face)
                times.append(time.thread_time_ns() - started)
    finally:
        cv2.setNumThreads(threads)
    small, large = (float(np.median(times)) for times in took_ns)
    assert large <= 1.3 * small, f"{large / 1e6:.2f} ms in 4K, {small / 1e6:.2f} ms in 360p"
