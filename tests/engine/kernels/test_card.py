"""What only an NVIDIA card can show; skips where there is none."""

import cv2
import numpy as np
import pytest

from engine.kernels import bandwidth
from engine.kernels.blend import blend_buffers, blend_faces, place_patches
from engine.masks import MaskShape
from tests.engine.kernels.cases import aligned, blended, edits, face_at, levels, logits, masks, noise, united
from tests.engine.kernels.test_restore import faces as restored_faces
from tests.engine.kernels.test_restore import given_back

SIZE_PX = (640, 360)


@pytest.fixture
def card(device, open_bench):
    """The bench on a card; skips where there is none."""
    if device != "cuda":
        pytest.skip("only an NVIDIA card can show this, and here is none")
    return open_bench(device)


def test_a_card_gives_what_the_host_gives(card, open_bench):
    faces = [face_at((200, 100), 40, 5), face_at((400, 200), 300, -20), face_at((600, 300), 140), face_at((10, 10), 90)]
    host = open_bench("cpu")
    crops = [aligned(bench, bench.put(noise()), SIZE_PX, faces) for bench in (card, host)]
    assert levels(*crops) <= 1.0
    frames = []
    for bench in (card, host):
        frame = bench.put(noise())
        blended(bench, frame, SIZE_PX, faces, bench.put(edits(4)), bench.put(masks(4)))
        frames.append(bench.get(frame))
    assert cv2.absdiff(*frames).max() <= 1
    np.testing.assert_allclose(*(united(b, logits(3, 128, 128), MaskShape()) for b in (card, host)), atol=1e-6)
    np.testing.assert_allclose(*(given_back(b, restored_faces(4)) for b in (card, host)), atol=1e-4)


def test_a_card_allocates_nothing_and_a_graph_follows_the_faces(card, open_bench):
    """After a first frame, nothing is allocated; a graph captured once blends where the records say."""
    import cupy

    class Allocations(cupy.cuda.MemoryHook):
        name = "allocations"
        count = 0

        def malloc_preprocess(self, **arguments):
            self.count += 1

    kernels = card.kernels
    buffers = blend_buffers(kernels, 1)
    frame, images, soft = card.put(noise()), card.put(edits(1)), card.put(masks(1))
    start = card.put(noise())
    first, second = face_at((200, 150), 90.0, 5.0), face_at((400, 200), 120.0, -9.0)
    place_patches(kernels, [first], SIZE_PX, buffers)
    blend_faces(kernels, frame, images, soft, buffers, SIZE_PX)
    kernels.stream.synchronize()
    with kernels.stream:
        kernels.stream.begin_capture()
        blend_faces(kernels, frame, images, soft, buffers, SIZE_PX)
        graph = kernels.stream.end_capture()
    for face in (first, second):
        with Allocations() as allocations:
            place_patches(kernels, [face], SIZE_PX, buffers)
            frame.data.copy_from_device_async(start.data, frame.nbytes, kernels.stream)
            graph.launch(kernels.stream)
            kernels.stream.synchronize()
        assert allocations.count == 0
        expected = noise().copy()
        blended(open_bench("cpu"), expected, SIZE_PX, [face], edits(1), masks(1))
        assert cv2.absdiff(card.get(frame), expected).max() <= 1


def test_a_card_keeps_to_the_time_that_the_bytes_need(card):
    slow = [timing for timing in bandwidth.run(card.kernels) if not timing.within]
    assert not slow, "\n".join(map(str, slow))
