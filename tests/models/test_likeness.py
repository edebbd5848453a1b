"""The search for a likeness, on tiny random networks whose answer is known."""

import copy
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.bundle import open_bundle
from engine.errors import BundleError
from engine.runtimes.select import open_networks, select
from models.likeness import LISTENING, Compensation, Painter, check_generator, descend, processor_s, refine, settled
from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig
from models.perceptual import StLpips
from tests.engine.tiny_bundle import DIM, ROWS, build
from tests.models.waves import CODE_ROWS, SIDE, WIDTH, anybody, wave_painter

FRAMES, FORMER = 3, 3

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def painter() -> Painter:
    return wave_painter()


@pytest.fixture
def codes() -> np.ndarray:
    return (0.4 * np.random.default_rng(1).standard_normal((FRAMES, CODE_ROWS, WIDTH))).astype(np.float32)


@pytest.fixture
def lacking() -> np.ndarray:
    return (0.3 * np.random.default_rng(2).standard_normal((CODE_ROWS, WIDTH))).astype(np.float32)


@torch.no_grad()
def drawn(painter: Painter, codes: np.ndarray, noise: Tensor | None = None) -> np.ndarray:
    return painter.generator(torch.from_numpy(codes), noise).numpy()


def nothing(offset: np.ndarray) -> Compensation:
    return Compensation(torch.zeros(FRAMES, FORMER, WIDTH), torch.zeros(FRAMES, 1, SIDE, SIDE))


def ticking(steps: int):
    """A clock on which so many steps take the whole of one second."""
    ticks = count()
    return lambda: next(ticks) / steps


def test_one_offset_for_all_frames_brings_back_what_their_codes_lack(painter, codes, lacking) -> None:
    wanted = drawn(painter, codes + lacking)
    found = refine(painter, wanted, codes, nothing, 1.0, clock=ticking(90))
    before, after = (np.square(drawn(painter, codes + each) - wanted).mean() for each in (0 * lacking, found))
    assert found.shape == lacking.shape
    assert after < 0.3 * before


def test_who_the_person_is_has_a_say(painter, codes, lacking) -> None:
    def redness(images: Tensor) -> Tensor:
        return 10.0 * images[:, 0].mean(dim=(1, 2))[:, None]

    wanted = drawn(painter, codes + lacking)
    apart = []
    for embed in (anybody, redness):
        found = refine(replace(painter, embed=embed), wanted, codes, nothing, 1.0, clock=ticking(60))
        made, real = (redness(torch.from_numpy(each)) for each in (drawn(painter, codes + found), wanted))
        apart.append(float((made - real).square().mean()))
    assert apart[1] < 0.7 * apart[0]


def test_what_the_loop_adds_is_left_to_the_loop(painter, codes, lacking) -> None:
    """With nothing lacking but what the loop adds, the offset stays small once the loop was asked."""
    dws = torch.from_numpy(np.repeat(lacking[None, :FORMER], FRAMES, axis=0))
    noise = torch.zeros(FRAMES, 1, SIDE, SIDE)
    wanted = drawn(painter, codes + np.pad(lacking[:FORMER], ((0, CODE_ROWS - FORMER), (0, 0))))
    asked: list[np.ndarray] = []

    def compensate(offset: np.ndarray) -> Compensation:
        asked.append(offset.copy())
        return Compensation(dws, noise)

    found = refine(painter, wanted, codes, compensate, 1.0, clock=ticking(90))
    alone = refine(painter, wanted, codes, nothing, 1.0, clock=ticking(90))
    assert len(asked) == len(LISTENING)
    assert np.square(asked[0]).mean() > 0  # it had begun without
    assert np.square(found).mean() < 0.5 * np.square(alone).mean()


def test_the_search_ends_in_time_and_says_how_far_it_is(painter, codes, lacking) -> None:
    told: list[float] = []
    refine(painter, drawn(painter, codes), codes, nothing, 1.0, told.append, ticking(10))
    assert told[-1] == 1.0
    assert told == sorted(told)
    assert len(told) <= 10


def test_who_listens_can_break_it_off(painter, codes) -> None:
    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        refine(painter, drawn(painter, codes), codes, nothing, 1.0, stop, ticking(10))


def test_descending_ends_at_the_minimum() -> None:
    place = torch.tensor([3.0, -2.0], requires_grad=True)
    descend([(place, 0.2)], lambda step: place.square().sum(), lambda steps: steps / 100)
    assert place.abs().max() < 0.05


@pytest.fixture
def networks(tmp_path):
    opened = open_networks(open_bundle(build(tmp_path / "tiny")), select("onnxruntime"))
    yield opened
    opened.close()


def test_what_the_loop_adds_depends_on_the_offset_and_is_that_of_each_frame(networks) -> None:
    images = np.random.default_rng(5).uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    none = np.zeros((ROWS, DIM), np.float32)
    both, alone = settled(networks, images, none), settled(networks, images[1:], none)
    assert both.dws.shape == (2, networks.former_rows, DIM)
    np.testing.assert_allclose(both.noise[1:], alone.noise, atol=1e-5)
    moved = settled(networks, images, none + 1.0)
    assert not torch.allclose(moved.dws, both.dws)


def test_a_generator_of_another_shape_is_refused(networks) -> None:
    light = Painter(MobileStyleGan(MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)), StLpips(), anybody)
    with pytest.raises(BundleError, match="default bundle"):
        check_generator(networks, light, np.zeros((1, ROWS, DIM), np.float32))


def test_the_same_generator_in_another_arithmetic_is_taken() -> None:
    torch.manual_seed(3)
    generator = MobileStyleGan(MobileStyleGanConfig(widths=(16, 16, 16, 16), stem_width=16)).requires_grad_(False)

    class Same:
        spec = type("Spec", (), {"inputs": {"noise": ("B", 16, 32, 32)}})

        def __call__(self, ws: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
            return {"image": generator(torch.from_numpy(ws), torch.from_numpy(noise)).numpy()}

    half = Painter(copy.deepcopy(generator).bfloat16(), StLpips(), anybody, torch.bfloat16)
    ws = np.full((1, generator.config.latent_rows, 512), 0.1, np.float32)
    check_generator(type("Opened", (), {"generator": Same()}), half, ws)
    half.generator.to_rgb.bias.add_(0.5)
    with pytest.raises(BundleError, match="default bundle"):
        check_generator(type("Opened", (), {"generator": Same()}), half, ws)


def test_time_on_the_processor_is_shared_by_the_threads() -> None:
    one, four = processor_s(1), processor_s(4)
    assert four == pytest.approx(one / 4, rel=0.2)
