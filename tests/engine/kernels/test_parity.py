"""The kernels against the CPU's code that defines them, on every device there is.

On a machine with no card the same sources run on the CPU, thread by thread. Differences are in grey levels, of 255.
"""

import cv2
import numpy as np
import pytest

from engine.geometry import translation
from engine.imaging import Kept
from engine.kernels import bandwidth
from engine.kernels.blend import blend_buffers, blend_faces, place_patches
from engine.kernels.warp import BLOCKS_SIDE, crop_buffers, place_crops
from engine.masks import MaskShape
from tests.engine.kernels.cases import (
    PLACES,
    aligned,
    blended,
    defined_blend,
    defined_crops,
    defined_masks,
    edits,
    face_at,
    levels,
    logits,
    masks,
    nearly_unchanged,
    noise,
    reach_of,
    united,
)
from tests.engine.kernels.host_kernels import planted

SIZE_PX = (640, 360)

WIDE = MaskShape(4, 8)
"""An edge that takes both boxes."""

EVERY_HALF_SIDE = (0.5, 20.0, 90.0, 128.0, 140.0, 250.0, 256.0, 400.0, 3000.0)
"""From one pixel to more than the frame; 128 is the crop's own size, 256 and above take block means."""


@pytest.fixture(autouse=True)
def _exact_opencv():
    """Before version 5 OpenCV's warps placed pixels to 1/32 only: several levels of difference in noise."""
    ramp = np.tile(100.0 * np.arange(30, dtype=np.float32), (30, 1))
    moved = cv2.warpAffine(ramp, translation(0.01, 0.0), (30, 30), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    if abs(float(moved[9, 9]) - 901.0) > 0.1:
        pytest.skip(f"OpenCV {cv2.__version__} places pixels to 1/32 only")


@pytest.mark.parametrize("half_side_px", EVERY_HALF_SIDE)
def test_crops_are_the_definitions(bench, half_side_px):
    faces = [face_at(centre, half_side_px, degrees) for centre, degrees in PLACES]
    got = aligned(bench, bench.put(noise()), SIZE_PX, faces)
    assert levels(got, defined_crops(noise(), faces)) <= 1.0


def test_faces_of_one_launch_do_not_touch_one_another(bench):
    faces = [face_at((200, 100), 40, 5), face_at((400, 200), 300, -20), face_at((600, 300), 140), face_at((10, 10), 90)]
    frame = bench.put(noise())
    together = aligned(bench, frame, SIZE_PX, faces)
    for face, crop in zip(faces, together, strict=True):
        np.testing.assert_array_equal(aligned(bench, frame, SIZE_PX, [face])[0], crop)


@pytest.mark.parametrize("view", ["every_other", "mirrored", "upside_down", "rgb", "bgra", "odd"])
def test_any_view_is_a_frame(bench, view):
    cut = {
        "every_other": lambda base: base[1::2, ::3, :3],
        "mirrored": lambda base: base[:, ::-1, :3],
        "upside_down": lambda base: base[::-1, :, :3],
        "rgb": lambda base: base[..., 2::-1],
        "bgra": lambda base: base[..., :3],
        "odd": lambda base: base[3:200, 5:306, 1:],
    }[view]
    frame = cut(noise(361, 643, 4))
    height, width = frame.shape[:2]
    faces = [face_at((width / 2, height / 2), 60.0, 20.0), face_at((width, 0), 150.0)]
    base = bench.put(noise(361, 643, 4))
    got = aligned(bench, cut(base), (width, height), faces)
    assert levels(got, defined_crops(frame, faces)) <= 1.0

    images, soft = edits(2), masks(2)
    blended(bench, cut(base), (width, height), faces, bench.put(images), bench.put(soft))
    after, expected = bench.get(base), noise(361, 643, 4).copy()
    cut(expected)[...] = defined_blend(frame, faces, images, soft)
    assert np.abs(after.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("half_side_px", [0.5, 90.0, 180.0, 400.0])
def test_nv12_is_converted_on_the_way(bench, half_side_px):
    nv12 = noise(540, 640, 1)[..., 0]
    faces = [face_at(centre, half_side_px, degrees) for centre, degrees in PLACES]
    got = aligned(bench, bench.put(nv12), SIZE_PX, faces)
    assert levels(got, defined_crops(cv2.cvtColor(nv12, cv2.COLOR_YUV2BGR_NV12), faces)) <= 1.0


def test_nv12_with_padded_rows(bench):
    base = noise(540, 672, 1)[..., 0]
    faces = [face_at((320, 180), 90.0)]
    got = aligned(bench, bench.put(base)[:, 16:656], SIZE_PX, faces)
    bgr = cv2.cvtColor(np.ascontiguousarray(base[:, 16:656]), cv2.COLOR_YUV2BGR_NV12)
    assert levels(got, defined_crops(bgr, faces)) <= 1.0


@pytest.mark.parametrize("size_px", [(1, 1), (2, 3), (5, 64)])
def test_frames_smaller_than_a_block(bench, size_px):
    frame = noise(*size_px[::-1])
    faces = [face_at((1, 1), half_side_px, 15.0) for half_side_px in (2.0, 140.0, 700.0)]
    assert levels(aligned(bench, bench.put(frame), size_px, faces), defined_crops(frame, faces)) <= 1.0


@pytest.mark.parametrize("half_side_px", [90.0, 300.0, 900.0])
def test_a_face_far_from_the_corner_of_a_4k_frame(bench, half_side_px):
    frame = noise(2160, 3840)
    faces = [face_at((3333.3, 1777.7), half_side_px, 12.0)]
    on_device = bench.put(frame)
    assert levels(aligned(bench, on_device, (3840, 2160), faces), defined_crops(frame, faces)) <= 1.0
    blended(bench, on_device, (3840, 2160), faces, bench.put(edits(1)), bench.put(masks(1)))
    expected = defined_blend(frame, faces, edits(1), masks(1))
    assert cv2.absdiff(bench.get(on_device), expected).max() <= 1


def test_half_precision_networks(device, open_bench):
    bench = open_bench(device, np.float16)
    faces = [face_at((320, 180), half_side_px, 8.0) for half_side_px in (60.0, 180.0, 300.0)]
    crops = aligned(bench, bench.put(noise()), SIZE_PX, faces, np.float16)
    # Half precision has 0.06 of a grey level between two values.
    assert levels(crops, defined_crops(noise(), faces)) <= 1.07

    images, frame = edits(3).astype(np.float16), bench.put(noise())
    blended(bench, frame, SIZE_PX, faces, bench.put(images), bench.put(masks(3)))
    expected = defined_blend(noise(), faces, images.astype(np.float32), masks(3))
    assert cv2.absdiff(bench.get(frame), expected).max() <= 1

    answer = logits(2, 128, 128).astype(np.float16)
    assert np.abs(united(bench, answer, MaskShape()) - defined_masks(answer, MaskShape())).max() <= 1 / 255


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (96, 64), (512, 512)], ids=str)
@pytest.mark.parametrize("shape", [MaskShape(), WIDE, MaskShape(15, 30), MaskShape(4, 5), MaskShape(0, 0)], ids=str)
def test_masks_are_the_definitions(bench, size, shape):
    answer = logits(3, *size)
    answer[0, 0, 7, 9] = np.nan
    answer[1, 1, 20, 20] = np.inf
    answer[4, [1, 3], 30, 30] = -np.inf
    expected = defined_masks(answer, shape)
    assert 0.08 <= expected[0].mean() < 1.0
    np.testing.assert_allclose(united(bench, answer, shape), expected, atol=1e-6)

    reach = reach_of(3)
    without = defined_masks(answer, shape, reach)
    assert shape.erode_px > 10 or np.abs(without - expected).mean(axis=(1, 2)).max() > 0.05
    np.testing.assert_allclose(united(bench, answer, shape, reach), without, atol=1e-6)


@pytest.mark.parametrize("half_side_px", [*EVERY_HALF_SIDE, 63.0, 193.0])
def test_the_blend_is_the_definitions(bench, half_side_px):
    for n, (centre, degrees) in enumerate(PLACES):
        face, images, soft = [face_at(centre, half_side_px, degrees)], edits(1), masks(3)[n % 3 :][:1]
        frame = bench.put(noise())
        blended(bench, frame, SIZE_PX, face, bench.put(images), bench.put(soft))
        assert cv2.absdiff(bench.get(frame), defined_blend(noise(), face, images, soft)).max() <= 1


@pytest.mark.parametrize("half_side_px", [20.0, 90.0, 129.0, 160.0, 193.0, 400.0])
def test_the_frames_own_detail_is_kept_as_the_definition_keeps_it(bench, half_side_px):
    for centre, degrees in PLACES:
        faces = [face_at(centre, half_side_px, degrees)]
        crops, images, soft = *nearly_unchanged(noise(), faces), masks(1)
        for reshaped in (1.0, 0.4):
            frame, kept = bench.put(noise()), Kept(crops, *np.float32([[reshaped], [0.3]]))
            blended(bench, frame, SIZE_PX, faces, *map(bench.put, (images, soft)), Kept(*map(bench.put, kept)))
            expected = defined_blend(noise(), faces, images, soft, kept)
            # Edit, crop and frame are rounded each before they are summed.
            difference = cv2.absdiff(bench.get(frame), expected)
            assert difference.max() <= 2
            assert (difference > 1).mean() < 1e-3


def test_faces_that_overlap_lie_over_one_another_in_order(bench):
    faces = [
        face_at((200, 150), 90, 5),
        face_at((260, 190), 150, -20),
        face_at((320, 180), 60),
        face_at((250, 170), 20),
    ]
    frame = bench.put(noise())
    blended(bench, frame, SIZE_PX, faces, bench.put(edits(4)), bench.put(masks(4)))
    # Two faces over one pixel may each be off by one, the upper one's share of it.
    assert cv2.absdiff(bench.get(frame), defined_blend(noise(), faces, edits(4), masks(4))).max() <= 2
    other_order = defined_blend(noise(), faces[::-1], edits(4)[::-1], masks(4)[::-1])
    assert cv2.absdiff(bench.get(frame), other_order).max() > 20


def test_where_the_mask_is_0_the_frame_is_exact(bench):
    soft = masks(2)[1:].copy()
    soft[:, :, 120:] = 0.0
    frame = bench.put(noise())
    blended(bench, frame, SIZE_PX, [face_at((320, 180), 64.0)], bench.put(edits(1)), bench.put(soft))
    after = bench.get(frame)
    np.testing.assert_array_equal(after[:, 318:], noise()[:, 318:])
    assert (after[130:230, 262:310] != noise()[130:230, 262:310]).any()


def test_no_face_in_the_frame_leaves_it_alone(bench):
    faces = [face_at((-500, -500), 40.0), face_at((2000, 100), 90.0)]
    frame = bench.put(noise())
    blended(bench, frame, SIZE_PX, faces, bench.put(edits(2)), bench.put(masks(2)))
    np.testing.assert_array_equal(bench.get(frame), noise())


def test_the_cost_of_a_blend_follows_the_face_not_the_frame(bench):
    """The same rectangle of threads for a face in 360p and in 4K, and few more of them than pixels in it."""
    extents = []
    for size_px in (SIZE_PX, (3840, 2160)):
        buffers = blend_buffers(bench.kernels, 1)
        extents.append(place_patches(bench.kernels, [face_at((320.4, 180.1), 90.0, 7.0)], size_px, buffers))
    assert extents[0] == extents[1]
    assert max(extents[0]) < 2.1 * 90.0 * (np.cos(np.deg2rad(7.0)) + np.sin(np.deg2rad(7.0)))


def test_a_launch_made_for_larger_faces_serves_smaller_ones(bench):
    """As a captured CUDA graph is: the grid stays, the records change."""
    faces = [face_at((320, 180), 150.0, 5.0)]
    buffers = blend_buffers(bench.kernels, 1)
    extent_px = place_patches(bench.kernels, faces, SIZE_PX, buffers)
    frame = bench.put(noise())
    larger = (extent_px[0] + 200, extent_px[1] + 100)
    blend_faces(bench.kernels, frame, bench.put(edits(1)), bench.put(masks(1)), buffers, larger)
    assert cv2.absdiff(bench.get(frame), defined_blend(noise(), faces, edits(1), masks(1))).max() <= 1


def test_block_means_of_any_face_fit_their_buffer(bench):
    rng = np.random.default_rng(0)
    for _ in range(300):
        face = face_at(rng.uniform(0, 4000, 2), 2.0 ** rng.uniform(8, 14), rng.uniform(-180, 180))
        buffers = crop_buffers(bench.kernels, 1)
        assert max(place_crops(bench.kernels, [face], (30000, 30000), buffers)) <= BLOCKS_SIDE
    almost_two = 511.999 * 2.0 ** np.arange(4)
    for half_side_px in almost_two:
        face = face_at((15000.3, 15000.7), half_side_px, 45.0)
        assert max(place_crops(bench.kernels, [face], (30000, 30000), crop_buffers(bench.kernels, 1))) <= BLOCKS_SIDE


def test_a_wrong_array_is_refused(bench):
    faces = [face_at((320, 180), 90.0)]
    frame = bench.put(noise())
    with pytest.raises(AssertionError, match="float16 where float32"):
        aligned(bench, frame, SIZE_PX, faces, np.float16)
    with pytest.raises(AssertionError, match="expected"):
        blended(bench, frame, SIZE_PX, faces, bench.put(edits(2)), bench.put(masks(1)))
    with pytest.raises(AssertionError, match="not finite"):
        aligned(bench, frame, SIZE_PX, [np.full((2, 3), np.nan)])
    with pytest.raises(AssertionError, match="NV12"):
        aligned(bench, bench.put(noise(541, 640, 1)[..., 0]), SIZE_PX, faces)


MISTAKES = {
    "crops half a pixel off": ("warp", "+ crop.uc)", "+ crop.uc + 0.5f)"),
    "crops half a pixel down": ("warp", "+ crop.vc)", "+ crop.vc + 0.5f)"),
    "a border without its edge pixel": ("warp", "2 * count - 1 - n", "2 * count - 2 - n"),
    "red for blue": ("warp", "plane + at, rintf(colour.b)", "plane + at, rintf(colour.r)"),
    "blocks one too far": ("warp", "(long long)x * block,", "(long long)x * block + 1,"),
    "chroma half a pixel off": ("warp", "x / 2 * 2", "(x + 1) / 2 * 2"),
    "patches half a pixel off": ("blend", "* dy + patch.image_uc", "* dy + patch.image_uc + 0.5f"),
    "masks half a pixel off": ("blend", "* dy + patch.mask_vc", "* dy + patch.mask_vc + 0.5f"),
    "doubling from the corner": ("blend", "x * 0.5f - 0.25f", "x * 0.5f"),
    "detail laid over once more": ("blend", "- taken;", "+ taken;"),
    "no detail in the frame": ("blend", "colour.g + open * g", "colour.g"),
    "gates of the corner": ("blend", "side, side, x, y, size)", "side, side, 0, 0, size)"),
    "the last face below": ("blend", "for (; face < faces; ++face)", "for (int n = 0; n < 1; ++n)"),
    "masks from the corner": ("mask", "(n + 0.5f) * ((float)count / size) - 0.5f", "n * ((float)count / size)"),
    "cores one too small": ("mask", "clamped(v, -core, core)", "clamped(v, -core, core - 1)"),
    "a mean of other pixels": ("mask", "clamped(n, -reach, reach)", "clamped(n, -reach, reach - 1)"),
    "a mean of too few": ("mask", "abs(n) <= reach ?", "abs(n) < reach ?"),
    "the mean of the first face for all": ("mask", "(long long)of[0] * room + face", "(long long)of[0] * room"),
    "growth one too few": ("mask", "clamped(n, -growth, growth)", "clamped(n, -growth, growth - 1)"),
    "growth along the row alone": ("mask", "grown(near + first + x, width, y,", "grown(near + first + x, 0, y,"),
    "the frame's margins for the edit's": (
        "mask",
        "(long long)image * classes",
        "(image % faces) * classes",
    ),
    "erosion one too few": ("mask", "y + clamped(n, -erode, erode)", "y + clamped(n, -erode, erode - 1)"),
    "the edit's skin left out": ("mask", "+ 0.25f * span)", "- 0.9f * span)"),
    "the frame's hair painted over": ("mask", "fminf(-of_hair[n],", "fmaxf(-of_hair[n],"),
    "the frame's face painted over": ("mask", "bare : -of_frame[n]", "bare : of_frame[n]"),
    "a hard hairline": ("mask", "+ 1)) / span", "+ 1)) / span * 9.0f"),
    "hair of the first face for all": ("mask", "bald, hair[face]", "bald, hair[0]"),
    "an outline of the first face for all": ("mask", "1.0f - outline[face]", "1.0f - outline[0]"),
    "an outline everywhere": ("mask", "* beyond[place]", ""),
    "an outline without its hair": ("mask", "(1.0f - dye)", "(1.0f - 0.0f * dye)"),
    "hair alone beyond the outline of one who leaves it": ("mask", "fminf(hair[face], 1.0f)", "1.0f"),
    "one box for two": ("mask", "slope < narrow ? slope : narrow", "slope > 0 ? narrow : 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_shows(name, open_bench):
    source, right, wrong = MISTAKES[name]
    bench = type(open_bench("cpu"))(planted(source, right, wrong))
    faces = [face_at((330.0, 150.0), 400.0), face_at((317.3, 181.7), 90.0, 33.0)]
    nv12 = noise(540, 640, 1)[..., 0]
    if source == "warp":
        found = levels(aligned(bench, noise(), SIZE_PX, faces), defined_crops(noise(), faces))
        bgr = cv2.cvtColor(nv12, cv2.COLOR_YUV2BGR_NV12)
        found = max(found, levels(aligned(bench, nv12, SIZE_PX, faces), defined_crops(bgr, faces)))
    elif source == "blend":
        frame, soft = noise().copy(), np.ascontiguousarray(masks(2)[::-1])
        crops, images = nearly_unchanged(noise(), faces)
        kept = Kept(crops, *np.float32([[1.0, 1.0], [1.0, 0.2]]))
        blended(bench, frame, SIZE_PX, faces, images, soft, kept)
        found = cv2.absdiff(frame, defined_blend(noise(), faces, images, soft, kept)).max()
    else:
        answer = 0.3 * logits(3, 128, 128)  # less sure, so that things grow further
        reach = reach_of(3)
        found = 255.0 * np.abs(united(bench, answer, WIDE, reach) - defined_masks(answer, WIDE, reach)).max()
    assert found > 4.0, found


def test_the_timing_counts_every_step(bench, monkeypatch):
    """Bytes and limits only: how long it takes is for a card to say (`bandwidth.run`)."""
    launched, runs, launch = [], [], type(bench.kernels).launch

    def counted(self, source, name, *rest):
        launched.append(name)
        launch(self, source, name, *rest)

    monkeypatch.setattr(type(bench.kernels), "launch", counted)

    def timer(run):
        launched.clear()
        run()
        runs.append(list(launched))
        return 10.0

    near, far = bandwidth.Case((640, 360), 90.0, 2), bandwidth.Case((1280, 720), 300.0, 1)
    timings = [*bandwidth.measure(bench.kernels, near, timer), *bandwidth.measure(bench.kernels, far, timer)]
    assert [t.step for t in timings] == ["align", "steady", "restore", "mask", "blend"] * 2
    assert [t.launches for t in timings] == list(map(len, runs))
    assert [t.launches for t in timings] == [1, 1, 8, 20, 7, 2, 1, 8, 20, 7]
    # Twice 200 x 200 pixels of the frame at three bytes, and two crops of 3 x 256 x 256 floats.
    assert timings[0].least_bytes == pytest.approx(2 * 200 * 200 * 3 + 2 * 3 * 65536 * 4, rel=0.02)
    judged = bandwidth.judged(timings[0], bytes_per_us=1e6)
    assert judged.limit_us == pytest.approx(1.5 * timings[0].least_bytes / 1e6 + 3.0)
    assert not judged.within
    assert bandwidth.judged(timings[0], bytes_per_us=1e5).within
