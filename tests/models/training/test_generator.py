"""The generator's training: patches are places of the whole image, only the top learns, and a run leaves weights."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import UsageError
from models.checkpoints.published import trained_tensors
from models.discriminator import Discriminator, doubling_widths
from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig
from models.perceptual import StLpips
from models.training import distillation, generator_start, loop
from models.training import generator as training
from models.training.distillation import (
    Batch,
    Criticism,
    Distillation,
    LowerLayers,
    TopLayers,
    frozen_features,
    windows,
)
from models.training.loop import fit, loop_options
from tests.models.waves import random_trunk

CONFIG = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)
"""Of images of 64 px, and 16 px activations below the last layer."""
FIRST = 2
TARGETS, HELD_OUT = 6, 2


pytestmark = pytest.mark.usefixtures("one_thread")


def small_generator() -> MobileStyleGan:
    torch.manual_seed(0)
    generator = MobileStyleGan(CONFIG).eval()
    generator.last_layer.conv1.noise.data = torch.randn(1, 1, 32, 32)
    return generator


def l1(made: Tensor, real: Tensor) -> Tensor:
    return (made - real).abs().mean(dim=(1, 2, 3))


def batch_of(generator: MobileStyleGan, patch: int, margin: int, first: int = FIRST) -> Batch:
    ws, corners, scale = torch.randn(2, CONFIG.latent_rows, 512), torch.tensor([[1, 1], [1, 1]]), 64 // (4 << first)
    with torch.no_grad():
        features = LowerLayers(generator, first)(ws)
        target = windows(generator(ws), scale * (corners + margin), scale * (patch - 2 * margin))
    return windows(features, corners, patch), ws, corners, target


def test_windows_lie_where_their_corners_say() -> None:
    images = torch.arange(2 * 36.0).view(2, 1, 6, 6)
    cut = windows(images, torch.tensor([[1, 2], [4, 0]]), 2)
    assert cut[:, 0].tolist() == [[[8, 9], [14, 15]], [[60, 61], [66, 67]]]


@torch.no_grad()
@pytest.mark.parametrize(("first", "patch"), [(2, 12), (1, 7)])
def test_patches_equal_their_places_in_the_whole_images(first: int, patch: int) -> None:
    generator = small_generator()
    features, ws, corners, target = batch_of(generator, patch, 2, first)
    top, scale = TopLayers(generator, first), 64 // (4 << first)
    assert torch.allclose(top.compared((features, ws, corners, target)), target, atol=1e-4)
    elsewhere = top.compared((features, ws, corners - 1, target))
    assert not torch.allclose(elsewhere, target, atol=1e-3), "the constant noise is of another place"
    whole = windows(generator(ws), scale * corners, scale * patch)
    assert not torch.allclose(top(features, ws, corners), whole, atol=1e-4), "the border sees no padding"
    assert torch.allclose(top(LowerLayers(generator, first)(ws), ws), generator(ws), atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_the_frozen_layers_compute_the_same_compiled() -> None:
    generator = MobileStyleGan(MobileStyleGanConfig(widths=(16, 16), stem_width=16))
    ws = torch.randn(3, generator.config.latent_rows, 512)
    found = frozen_features(generator, 1, torch.device("cpu"))(ws)
    assert torch.allclose(found, LowerLayers(generator, 1)(ws).detach(), atol=1e-4)


def test_the_trained_parameters_have_their_names_in_the_generator() -> None:
    generator = small_generator()
    named = TopLayers(generator, FIRST).state_dict(keep_vars=True)
    assert {name: id(p) for name, p in named.items()} == {
        n: id(p) for n, p in trained_tensors(generator, FIRST).items()
    }


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_the_gradient_reaches_the_trained_tensors_alone(adversarial: float) -> None:
    generator = small_generator()
    batch = batch_of(generator, 12, 2)
    top = TopLayers(generator.requires_grad_(False), FIRST)
    critic = Discriminator(32, (4, 8)).requires_grad_(False)
    loss, told = Distillation(top, l1, critic, adversarial)((*batch[:3], batch[3] + 0.1))
    loss.backward()
    reached = {name for name, parameter in generator.named_parameters() if parameter.grad is not None}
    assert reached == {name for name in trained_tensors(generator, FIRST) if not name.endswith(".noise")}
    assert all(p.grad.any() for p in generator.parameters() if p.grad is not None)
    assert all(p.grad is None for p in critic.parameters())
    distilled = told["l1"] + 4.0 * 0.01 + 0.3 * told["st_lpips"]
    wanted = distilled + (adversarial * told["realness"] if adversarial else 0.0)
    assert torch.allclose(loss, wanted, atol=1e-3)


def test_the_critics_gradient_stays_with_it_and_r1_comes_every_eighth_step() -> None:
    generator = small_generator()
    batch = batch_of(generator, 12, 2)
    critic = Discriminator(32, (4, 8))
    plain, judged = (
        Criticism(critic, TopLayers(generator, FIRST), 0.0),
        Criticism(critic, TopLayers(generator, FIRST), 3.0),
    )
    for step in range(distillation.R1_EVERY + 1):
        torch.manual_seed(step)
        loss, told = judged(batch)
        torch.manual_seed(step)
        extra = loss - plain(batch)[0]
        if step % distillation.R1_EVERY:
            assert "r1" not in told
            assert extra == 0.0
        else:
            assert torch.allclose(extra, 0.5 * 3.0 * distillation.R1_EVERY * told["r1"], rtol=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in critic.parameters())
    assert all(p.grad is None for p in generator.parameters())


def test_playing_against_a_critic_moves_the_patches_towards_what_it_likes() -> None:
    """A critic that likes bright pixels: the adversarial term alone makes them brighter."""
    generator = small_generator()
    batch = batch_of(generator, 12, 2)
    top = TopLayers(generator.requires_grad_(False), FIRST)

    class Bright(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.mean(dim=(1, 2, 3))[:, None]

    objective = Distillation(top, l1, Bright(), 100.0)
    before = top.compared(batch).mean()
    loss, _ = objective(batch)
    loss.backward()
    with torch.no_grad():
        top.to_rgb.bias -= 0.1 * top.to_rgb.bias.grad.sign()
    assert top.compared(batch).mean() > before


def in_torch(network: nn.Module, example: Tensor) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Stands for `compile_network`, which takes longer than these networks run."""
    return lambda ws: network(torch.from_numpy(ws)).detach().numpy()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> MobileStyleGan:
    """A teacher of the student's size: its images are the targets."""
    teacher = small_generator()
    ws = torch.randn(TARGETS, CONFIG.latent_rows + 4, 512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = teacher(ws[:, : CONFIG.latent_rows]).permute(0, 2, 3, 1).numpy()
    images = np.clip((made + 1.0) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    monkeypatch.setattr(training, "HELD_OUT", HELD_OUT)
    monkeypatch.setattr(training, "teacher_targets", lambda count, exact: (ws.numpy(), images))
    monkeypatch.setattr(training, "published_generator", lambda config: small_generator())
    monkeypatch.setattr(StLpips, "load", random_trunk)
    for module in (generator_start, distillation):
        monkeypatch.setattr(module, "compile_network", in_torch)
    monkeypatch.setattr(loop, "WARMUP_STEPS", 1)
    return teacher


def arguments(folder: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    places = ["--out", str(folder / "out"), "--checkpoints", str(folder / "run")]
    return parser.parse_args([*places, "--workers", "0", "--batch", "2", "--log-every", "1", *words])


def task_of(
    args: argparse.Namespace, load: Callable[[Path], MobileStyleGan] = lambda folder: small_generator()
) -> training.GeneratorTask:
    """The training of the last layer of the small network."""
    network = small_generator().requires_grad_(False)

    def start(ws: Tensor, images: NDArray[np.uint8]) -> None:
        training.start_head(network, ws, images, HELD_OUT, args.pixel_steps, args.seed)

    return training.GeneratorTask(args, training.Subject("wide", network, FIRST, start, load))


@pytest.mark.parametrize("adversarial", ["0", "0.1"])
def test_two_steps_leave_weights_and_the_next_run_begins_from_them(
    tiny: MobileStyleGan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adversarial: str
) -> None:
    words = ("--patch", "12", "--pixel-steps", "2", "--adversarial", adversarial, "--critic-width", "2")
    assert training.run(arguments(tmp_path, "--steps", "2", *words)) == 0
    left = load_file(tmp_path / "out" / "wide.safetensors")
    assert left.keys() == trained_tensors(tiny, FIRST).keys()
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert all(name in log for name in ("psnr_db", "st_lpips", "detail"))
    assert ("critic_r1" in log) == (adversarial != "0")

    def newest(folder: Path) -> MobileStyleGan:
        generator = small_generator()
        generator.load_state_dict(load_file(folder / "wide.safetensors"), strict=False)
        return generator

    task = task_of(arguments(tmp_path, "--steps", "1", "--init", *words), newest)
    assert task.start_from(tmp_path / "out") == f"the weights in {tmp_path / 'out'}"
    for name, value in TopLayers(task._subject.network, FIRST).state_dict().items():
        assert torch.equal(value.half(), left[name].half()), name


def test_a_resumed_run_has_no_start(tiny: MobileStyleGan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--patch", "12", "--pixel-steps", "0")
    assert training.run(arguments(tmp_path, "--steps", "1", *words)) == 0
    monkeypatch.setattr(training, "start_head", None)
    assert training.run(arguments(tmp_path, "--steps", "2", "--resume", *words)) == 0
    assert '"step": 2' in (tmp_path / "run" / "log.jsonl").read_text()


def test_steps_on_patches_lower_the_loss(tiny: MobileStyleGan, tmp_path: Path) -> None:
    """From a head of zeros, with the teacher's own images to be found again."""
    args = arguments(tmp_path, "--steps", "12", "--patch", "12", "--pixel-steps", "0", "--rate", "10", "--init")
    task = task_of(args)
    task.start_from = lambda folder: str(nn.init.zeros_(task._top.to_rgb.weight) is None)
    average = fit(task, loop_options(args)).average
    assert task.score(average, HELD_OUT)["psnr_db"] > task.score(_without_head(task), HELD_OUT)["psnr_db"] + 0.1


def _without_head(task: training.GeneratorTask) -> TopLayers:
    top = TopLayers(small_generator(), FIRST)
    nn.init.zeros_(top.to_rgb.weight)
    return top


def test_batches_are_a_function_of_seed_step_and_sample(tiny: MobileStyleGan, tmp_path: Path) -> None:
    args = arguments(tmp_path, "--steps", "1", "--patch", "12", "--pixel-steps", "0")
    task = task_of(args)
    assert len(task.players) == 1
    both, second = task.draw(5, range(2)), task.draw(5, range(1, 2))
    assert all(torch.equal(a[1:], b) for a, b in zip(both, second, strict=True))
    assert not torch.equal(task.draw(6, range(2))[0], both[0])
    known = {tuple(code.flatten().tolist()) for code in task._ws[HELD_OUT:]}
    drawn = [task.draw(step, range(4))[1] for step in range(8)]
    assert {tuple(code.flatten().tolist()) for codes in drawn for code in codes} == known


def test_whole_images_are_patches_without_a_margin(tiny: MobileStyleGan, tmp_path: Path) -> None:
    task = task_of(arguments(tmp_path, "--steps", "1", "--patch", "16", "--pixel-steps", "0"))
    assert len(task.players) == 1
    features, _, corners, target = task.draw(0, range(1))
    assert (features.shape[-1], corners.tolist(), target.shape[-1]) == (16, [[0, 0]], 64)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--patch", "11"), "--patch is 11; 12 to 64"),
        (("--patch", "65"), "--patch is 65"),
        (("--adversarial", "-1"), "--adversarial is -1"),
        (("--adversarial", "nan"), "--adversarial is nan"),
        (("--targets", "100"), "--targets is 100; at least 101"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        training.run(arguments(tmp_path, *words))


@pytest.mark.parametrize("first", [3, 4])
def test_the_widths_fit_every_patch(first: int) -> None:
    side, scale = 4 << first, 64 >> first
    for patch in range(2 * training.MARGIN + training.LEAST_IMAGE // scale, side + 1):
        resolution = scale * (patch - 2 * training.MARGIN) if patch < side else 256
        widths = doubling_widths(resolution, 1)
        assert resolution % (1 << len(widths)) == 0
