"""What an edit lays bare, filled by the kernels as `surroundings.cut_out` does."""

import numpy as np
import pytest

from engine.directions import Reach
from engine.geometry import CROP_SIZE
from engine.kernels.mask import mask_buffers
from engine.kernels.surroundings import cut_out_faces, surround_buffers
from engine.masks import MaskShape
from engine.surroundings import cut_out
from tests.engine.kernels.cases import PARTS, logits, parses, reach_of
from tests.engine.kernels.host_kernels import planted

IMAGE = (3, CROP_SIZE, CROP_SIZE)


def pictures(faces, real=np.float32):
    """Crops and edits: in blocks, and noise on them; the last edit is next to its crop."""
    rng = np.random.default_rng(faces)
    coarse = rng.uniform(-1.0, 1.0, (2, faces, 3, 8, 8)).repeat(32, axis=3).repeat(32, axis=4)
    crops, edits = coarse + rng.normal(0.0, 0.1, coarse.shape)
    edits[-1] = crops[-1] + 0.02
    return crops.astype(real), edits.astype(real)


def made(bench, answer, crops, edits, real=np.float32):
    """The kernels' images and masks."""
    kernels, (twice, _, height, width) = bench.kernels, answer.shape
    faces = twice // 2
    of_masks = mask_buffers(kernels, faces, PARTS, (width, height), MaskShape())
    buffers = surround_buffers(kernels, faces + 1, (width, height))
    out, masks = kernels.empty((faces, *IMAGE), real), kernels.empty((faces, CROP_SIZE, CROP_SIZE), np.float32)
    placed = [bench.put(array) for array in (answer, crops, edits)]
    reach = Reach(*(bench.put(part) for part in reach_of(faces)[:-1]))
    cut_out_faces(kernels, *placed, reach, of_masks, buffers, out, masks)
    return bench.get(out), bench.get(masks)


def defined(answer, crops, edits):
    reach = reach_of(len(crops))
    parts = reach.hair, reach.glasses, reach.outline
    faces = zip(crops.astype(np.float32), edits.astype(np.float32), parses(answer), *parts, strict=True)
    cut = [cut_out(crop, edit, parse, MaskShape(), *parts) for crop, edit, parse, *parts in faces]
    images, masks = zip(*cut, strict=True)
    return np.stack(images), np.stack(masks)


@pytest.mark.parametrize("size", [(128, 128), (64, 64), (256, 128)], ids=str)
@pytest.mark.parametrize("faces", [1, 3])
def test_it_is_the_definitions(bench, size, faces):
    answer, (crops, edits) = 4.0 * logits(faces, *size), pictures(faces)
    answer[0, 0, 7, 9] = np.nan
    answer[faces, 1, 20, 20] = np.inf
    images, masks = made(bench, answer, crops, edits)
    expected_images, expected_masks = defined(answer, crops, edits)
    if faces > 1:
        assert np.abs(expected_images[0] - edits[0]).max() > 0.5  # something is filled
    # What the definition takes for nothing to be seen, the kernels do.
    np.testing.assert_allclose(images, expected_images, atol=1.0 / 255.0)
    np.testing.assert_allclose(images[0], expected_images[0], atol=1e-4)
    np.testing.assert_allclose(masks, expected_masks, atol=1e-6)


def test_half_precision_networks(device, open_bench):
    answer, (crops, edits) = (4.0 * logits(2, 128, 128)).astype(np.float16), pictures(2, np.float16)
    images, masks = made(open_bench(device, np.float16), answer, crops, edits, np.float16)
    expected_images, expected_masks = defined(answer, crops, edits)
    np.testing.assert_allclose(images.astype(np.float32), expected_images, atol=6e-3)
    assert np.abs(masks - expected_masks).max() <= 1 / 255


def test_a_parser_whose_pixels_do_not_fit_is_refused(bench):
    with pytest.raises(AssertionError, match="96"):
        surround_buffers(bench.kernels, 1, (96, 64))


MISTAKES = {
    "bare where nothing is hidden": ("fminf(near, risen(no_face - late, span))",
                                     "risen(no_face - late, span)"),
    "bare earlier": ("no_face - late", "no_face"),
    "colours of what is hidden": ("1.0f - sum / pixels", "1.0f"),
    "hidden in the first line alone": ("last / across * width", "0 * width"),
    "the first pixel for all": ("shares.at[u] * values.at[u]", "shares.at[u] * values.at[0]"),
    "the first face's known for all": ("(long long)(plane / 3) * side * side", "0 * side"),
    "the first face's colours for all": ("values(planes + (long long)plane * side * side)",
                                         "values(planes + (long long)(plane % 3) * side * side)"),
    "not filled beyond the second grid": ("v, enlarged_of(few,", "v, 0.0f * enlarged_of(few,"),
    "a change of one channel": ("fabsf(of_edit - of_crop)", "(plane % 3 ? 0.0f : fabsf(of_edit - of_crop))"),
    "hair that is long in the first columns": ("four(lowest + start + 4 * u)", "four(lowest)"),
    "long hair that leaves late": ("early - edit,", "-edit,"),
    "long hair filled with the wall": ("(1.0f - kept) * open", "open"),
    "the first face's hair for all": ("enlarged(stays + first,", "enlarged(stays,"),
    "the edit given twice": ("share * (here[channel] - edit[channel])", "share * here[channel]"),
    "glasses of the first face for all": ("1.0f - glasses[face]", "1.0f - glasses[0]"),
    "glasses without a soft edge": ("worn[first + v * width + u] / rise", "9.0f * worn[first + v * width + u]"),
    "another change behind glasses": ("crop[channel] + change[channel]", "crop[channel] - change[channel]"),
    "all of the change behind glasses": ("expf(-(apart", "expf(-0.0f * (apart"),
    "one block for what is around": ("y + n / 3 - 1", "y"),
    "the first row alone": ("y * BLOCK + row) * size + x * BLOCK;\n            crop",
                            "y * BLOCK) * size + x * BLOCK;\n            crop"),
}  # fmt: skip


OF_MASKS = {
    "a border that the frame's face alone goes beyond": ("enlarged(drawn + face", "enlarged(found + face"),
    "one that the edit's alone does": ("enlarged(found + face", "enlarged(drawn + face"),
    "one fade for all": ("beyond - fade) *", "beyond - fade) * 0.0f *"),
    "a border gone beyond at once": ("- late) / span, 0.0f, 1.0f)", ") / span, 0.0f, 1.0f)"),
}


@pytest.mark.parametrize("name", [*MISTAKES, *OF_MASKS])
def test_a_planted_mistake_shows(name, open_bench):
    source, (right, wrong) = ("mask", OF_MASKS[name]) if name in OF_MASKS else ("surroundings", MISTAKES[name])
    bench = type(open_bench("cpu"))(planted(source, right, wrong))
    answer, (crops, edits) = 4.0 * logits(3, 128, 128), pictures(3)
    pairs = zip(made(bench, answer, crops, edits), defined(answer, crops, edits), strict=True)
    assert max(np.abs(got - expected).max() for got, expected in pairs) > 0.02
