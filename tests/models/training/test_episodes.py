"""Episodes: order, one degradation each, and a canvas on which a picture that stands stands still."""

import itertools

import numpy as np
import pytest
import torch

from engine.errors import UsageError
from models.training import episodes
from models.training.augment import change_light, cut_off, draw_degradation, misalign
from models.training.episodes import EpisodeSource, drift, from_clip
from models.training.losses import unalign
from models.training.pack_files import ClipSequence

SIDE = 256


def smooth(seed: int = 0) -> np.ndarray:
    """A picture without detail finer than a few pixels, uint8 RGB [256, 256, 3]."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=SIDE, mode="bicubic").clamp(0, 1)
    return (255 * fine[0].permute(1, 2, 0)).numpy().astype(np.uint8)


def clip(frames: int) -> ClipSequence:
    crops = np.stack([np.full((SIDE, SIDE, 3), (10 * t) % 256, np.uint8) for t in range(frames)])
    return ClipSequence("clip", crops, np.repeat(np.eye(2, 3)[None], frames, axis=0))


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, n)) for n in range(count)]


def test_episodes_keep_the_order_of_their_clip():
    source = EpisodeSource([], [clip(8)], clip_share=1.0)
    for seed in range(8):
        levels = source.draw(3, generators(1, seed)).crops.mean(dim=(1, 2, 3, 4))
        assert levels[0] <= levels[1] <= levels[2]


def test_an_episode_is_a_function_of_its_generator():
    source = EpisodeSource([smooth()], [clip(8)])
    once, again = source.draw(3, generators(4)), source.draw(3, generators(4))
    assert torch.equal(once.crops, again.crops)
    assert torch.equal(once.canvas_from_crop, again.canvas_from_crop)
    assert once.crops.shape == (3, 4, 3, SIDE, SIDE)
    assert once.canvas_from_crop.shape == (3, 4, 2, 3)
    alone = source.draw(3, generators(4)[2:3])
    assert torch.equal(alone.crops[:, 0], once.crops[:, 2])


def test_a_drifting_still_stands_still_on_the_canvas(monkeypatch: pytest.MonkeyPatch):
    """Flipped or not: the canvas knows where each crop lies."""
    monkeypatch.setattr(episodes, "CHANGING_LIGHT", 0.0)
    source = EpisodeSource([smooth()], [])
    for seed in range(6):
        episode = source.draw(5, generators(1, seed))
        middle = episode.crops[2]
        for crop, to in zip(episode.crops, episode.canvas_from_crop, strict=True):
            inner = (..., slice(40, -40), slice(40, -40))
            laid, still = unalign(crop, to)[inner], middle[inner]
            # Noise and JPEG differ from frame to frame in a degraded episode; a shift by a pixel would be larger.
            assert (laid - still).mean().abs() < 0.01
            blurred = torch.nn.functional.avg_pool2d((laid - still).abs(), 16)
            assert blurred.mean() < 0.06


def test_drift_starts_at_the_still_and_moves():
    frames, places = drift(smooth(), 3, np.random.default_rng(1))
    assert np.array_equal(frames[0], smooth())
    assert not np.array_equal(frames[1], frames[2])
    np.testing.assert_allclose(places[0], np.eye(2, 3), atol=1e-12)


def test_a_stretch_of_a_clip_never_leaves_it():
    for frames in (3, 4, 8, 40):
        for seed in range(20):
            chosen, _ = from_clip(clip(frames), 3, np.random.default_rng(seed))
            levels = [int(frame[0, 0, 0]) for frame in chosen]
            steps = {(b - a) % 256 for a, b in itertools.pairwise(levels)}
            assert len(steps) == 1
            assert steps <= {10, 20, 30}


def test_an_episode_longer_than_every_clip_is_refused_with_the_longest_length():
    with pytest.raises(UsageError, match=r"an episode has 6 frames, the longest clip 4"):
        EpisodeSource([smooth()], [clip(4), clip(3)]).check(6)
    with pytest.raises(UsageError, match="neither a clip"):
        EpisodeSource([], []).check(3)


def test_degradations_keep_size_and_type():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), np.uint8)
    for _ in range(12):
        seen = draw_degradation(rng).apply(misalign(image, rng), rng)
        assert seen.shape == image.shape
        assert seen.dtype == np.uint8


def test_light_changes_evenly_and_the_first_frame_keeps_it():
    """Dark pictures, so that nothing is cut off at white."""
    frames = [smooth() // 2] * 4
    ends = []
    for seed in range(20):
        changed = change_light(frames, np.random.default_rng(seed))
        assert np.array_equal(changed[0], frames[0])
        levels = [frame.mean() / frames[0].mean() for frame in changed]
        assert levels == pytest.approx(levels[-1] ** np.linspace(0, 1, 4), rel=0.02)
        ends.append(levels[-1])
    assert min(ends) < 0.5
    assert max(ends) > 1.1


def test_beyond_its_border_a_picture_is_mirrored():
    frames = [smooth(0), smooth(1)]
    untouched = 0
    for seed in range(20):
        first, second = cut_off(frames, np.random.default_rng(seed))
        same = (first == frames[0]).all(axis=2)
        rows, columns = same.all(axis=1).nonzero()[0], same.all(axis=0).nonzero()[0]
        middle = slice(SIDE // 4, -SIDE // 4)
        assert np.array_equal(first[middle, middle], frames[0][middle, middle])
        assert np.array_equal(second[middle, middle], frames[1][middle, middle])
        if len(rows) == len(columns) == SIDE:
            untouched += 1
        top = next(n for n in range(SIDE) if same[n, middle].all())
        assert np.array_equal(first[:top, middle], frames[0][top : 2 * top][::-1, middle])
    assert 0 < untouched < 10
