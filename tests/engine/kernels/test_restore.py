"""What the inversions lost, given back by the kernels as `restoring.give_back` does."""

import numpy as np
import pytest

from engine.directions import Reach
from engine.geometry import CROP_SIZE
from engine.kernels.restore import give_back_faces, restore_buffers
from engine.restoring import give_back
from tests.engine.kernels.host_kernels import planted

IMAGE = (3, CROP_SIZE, CROP_SIZE)


def faces(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops, inversions beyond their range, and edits: of all, of colours and two corners, of one pixel, of nothing."""
    rng = np.random.default_rng(count)
    crops = rng.uniform(-1.0, 1.0, (count, *IMAGE)).astype(np.float32)
    inversions = rng.uniform(-1.3, 1.3, (count, *IMAGE)).astype(np.float32)
    shade = np.linspace(-0.3, 0.3, CROP_SIZE, dtype=np.float32) * np.float32([[1.0], [-0.5], [0.3]])
    edits = inversions + rng.normal(0.0, 0.1, (count, *IMAGE)).astype(np.float32) + shade[:, None]
    for n in range(count):
        if n % 4 == 1:
            edits[n] = inversions[n] + shade[:, None]
            edits[n, :, 176:, 100:] = 0.9
            edits[n, :, 200:, :70] = rng.uniform(-1.3, 1.3, (3, 56, 70))
        elif n % 4 == 2:
            edits[n] = inversions[n]
            edits[n, :, 0, -1] = -40.0
        elif n % 4 == 3:
            edits[n] = inversions[n]
    return crops, inversions, edits


def given_back(bench, arrays, real=np.float32) -> np.ndarray:
    kernels, count = bench.kernels, len(arrays[0])
    out = kernels.empty((count, *IMAGE), real)
    placed = [bench.put(array.astype(real)) for array in arrays]
    on_device = Reach(*map(bench.put, reach(count)[:-1]))
    give_back_faces(kernels, *placed, on_device, restore_buffers(kernels, count + 1), out)
    return bench.get(out)


def reach(count: int) -> Reach:
    """Of each face another."""
    nothing = np.zeros(count, np.float32)
    features = (part(count) for part in (hair, outline, eyes, mouth))
    return Reach(*features, nothing, *(part(count) for part in (reshaped, tones, zones, shifts)))


def hair(count: int) -> np.ndarray:
    """With the face, without it, none, and a part of it."""
    return np.array([1.0, 2.0, 0.0, 0.4], np.float32)[:count]


def reshaped(count: int) -> np.ndarray:
    """Painted anew, a part of it and not at all."""
    return np.array([1.0, 0.7, 0.0, 0.4], np.float32)[:count]


def tones(count: int) -> np.ndarray:
    """Skin of its own colour, a part of the edit's, and all of it."""
    return np.array([0.0, 0.3, 1.0, 0.0], np.float32)[:count]


def outline(count: int) -> np.ndarray:
    """The edit's, between the two, and the frame's."""
    return np.array([1.0, 0.4, 0.0, 0.5], np.float32)[:count]


def eyes(count: int) -> np.ndarray:
    """The edit's, the frame's, and between the two."""
    return np.array([1.0, 0.0, 0.2, 0.7], np.float32)[:count]


def mouth(count: int) -> np.ndarray:
    """The same, of other faces."""
    return np.array([1.0, 0.6, 0.0, 0.0], np.float32)[:count]


def zones(count: int) -> np.ndarray:
    """All rows, then each face its own."""
    shares = np.random.default_rng(1).uniform(0.0, 1.0, (count, CROP_SIZE)).astype(np.float32)
    shares[0] = 1.0
    return shares


def shifts(count: int) -> np.ndarray:
    """None, then each face its own."""
    return np.array([(0, 0), (23, -5), (-31, 0), (1, 255)], np.int32)[:count]


def defined(arrays) -> np.ndarray:
    of_all = reach(len(arrays[0]))
    return np.stack([give_back(*face, of_all.of(n)) for n, face in enumerate(zip(*arrays, strict=True))])


@pytest.mark.parametrize("count", [1, 4])
def test_what_is_given_back_is_the_definitions(bench, count):
    arrays = faces(count)
    np.testing.assert_allclose(given_back(bench, arrays), defined(arrays), atol=1e-4)


def test_without_a_change_it_is_the_crop(bench):
    crops, inversions, _ = faces(1)
    np.testing.assert_allclose(given_back(bench, (crops, inversions, inversions)), crops, atol=1e-6)


def test_half_precision_networks(device, open_bench):
    arrays = [array.astype(np.float16) for array in faces(3)]
    got = given_back(open_bench(device, np.float16), arrays, np.float16)
    expected = defined([array.astype(np.float32) for array in arrays])
    np.testing.assert_allclose(got.astype(np.float32), expected, atol=2e-3)


def test_images_of_another_type_are_refused(bench):
    with pytest.raises(AssertionError, match="float16 where float32"):
        given_back(bench, faces(1), np.float16)


MISTAKES = {
    "one square for another": ("clamped(x + clamped(n, -reach, reach)", "clamped(x + clamped(n, -reach, reach - 1)"),
    "lower squares": ("clamped(y + clamped(n, -reach, reach)", "clamped(y + clamped(n, -reach, reach - 1)"),
    "two channels": ("+ changes[2 * plane + column]", ""),
    "a blur along the row alone": ("blurred[mirrored(y + j, side) * side]", "blurred[y * side]"),
    "a border with its edge pixel": ("n < 0 ? -n : (n", "n < 0 ? -n - 1 : (n"),
    "the other border with its edge pixel": ("2 * count - 2 - n", "2 * count - 1 - n"),
    "gates half a pixel off": ("(n + 0.5f) * ((float)count / size) - 0.5f", "n * ((float)count / size)"),
    "the generator's range left open": ("own[channel] - clipped(inversions[place])",
                                        "own[channel] - read(inversions[place])"),
    "one zone for all": ("zones[face * size + row]", "zones[row]"),
    "the zone of where it is moved to": ("zones[face * size + row]", "zones[face * size + y]"),
    "one face's eyes for all": ("1.0f - eyes[face]", "1.0f - eyes[0]"),
    "one face's mouth for all": ("1.0f - mouth[face]", "1.0f - mouth[0]"),
    "one face's outline for all": ("1.0f - outline[face]) * beyond", "1.0f - outline[0]) * beyond"),
    "an outline everywhere": ("* beyond[y * side + x]", ""),
    "an outline that is kept from colours": ("shapes * (1.0f - outline", "(1.0f - outline"),
    "eyes for a mouth": ("parts[2 * plane + of]", "parts[plane + of]"),
    "parts of where they are moved to": ("of = row * size + column", "of = y * size + x"),
    "parts kept from colours": ("1.0f - shapes * left", "1.0f - left"),
    "hair of any colour": ("per_step, of_hair)", "per_step, 0.0f * of_hair)"),
    "one face's hair for all": ("fminf(hair[face], 1.0f)", "fminf(hair[0], 1.0f)"),
    "hair alone counted twice": ("fminf(hair[face], 1.0f)", "hair[face]"),
    "hair of other shapes held too": ("1.0f) * (1.0f - outline[face])", "1.0f)"),
    "a face held to hair's colours": ("shapes * parts[of])", "shapes)"),
    "hair as red as it was": ("fmaxf(own_red, 0.0f) + more", "fmaxf(own_red, 0.0f)"),
    "hair as yellow as it was": ("fminf(own_blue, 0.0f) - more", "fminf(own_blue, 0.0f)"),
    "hair as blue as it was": ("fmaxf(own_blue - more, 0.0f)", "fmaxf(own_blue, 0.0f)"),
    "hair as green as it was": ("fminf(own_red + more, 0.0f)", "fminf(own_red, 0.0f)"),
    "hair that grows darker": ("/ OF_GREEN", ""),
    "one shift for all": ("right = shifts[2 * face]", "right = shifts[0]"),
    "moved the other way": ("clamped(y - down", "clamped(y + down"),
    "no fading at the upper border": ("by > 0 ? source", "by > 0 ? by"),
    "no fading at the lower border": ("size - 1 - source) + 0.5f", "by) + 0.5f"),
    "another crop than where it is moved to": ("there = read(crops[place])", "there = own[channel]"),
    "a gate that closes too slowly": ("expf(-share * share)", "expf(-share)"),
    "one least gate for all": ("per_change, shapes = reshaped[face]", "per_change, shapes = reshaped[0]"),
    "the first face for all": ("gates + (long long)face * side * side, side", "gates, side"),
    "colours of skin left to the edit": ("clipped(edits[place]) - tone", "clipped(edits[place]) - 0.0f * tone"),
    "the first face's colours for all": ("tones + (3 * face + channel) * cells", "tones + channel * cells"),
    "one share of them for all": ("1.0f - keeps[face]", "1.0f - keeps[0]"),
    "a blurred colour that is not shared out": ("sum / (count + least)", "sum"),
    "a blur of colours along the column alone": ("mirrored(x + i, side);", "x;"),
    "what changes much taken for skin": ("expf(-change * change)", "expf(-0.0f * change)"),
    "eyes taken for skin": ("share = skin[place] *", "share ="),
    "a cell's first row": ("CELL * y + n / CELL", "CELL * y"),
    "a face without an end": ("* within[y * side + x]", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_shows(name, open_bench):
    right, wrong = MISTAKES[name]
    bench = type(open_bench("cpu"))(planted("restore", right, wrong))
    arrays = faces(4)
    assert np.abs(given_back(bench, arrays) - defined(arrays)).max() > 0.005
