"""The recurrent encoder in both sizes: state in and out, what it starts from, and what it must keep on being."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import shrink_kernel
from models.recurrent import (
    LIGHT,
    PAPER,
    BlurredConv,
    ConvLstm,
    ConvSpec,
    MapHead,
    RecurrentConfig,
    RecurrentEncoder,
    Seen,
)

NARROW = RecurrentConfig(
    former_rows=3,
    map_channels=4,
    convs=(ConvSpec(8), ConvSpec(8, stride=2), ConvSpec(8), ConvSpec(8, stride=2), ConvSpec(8, stride=2)),
    map_width=8,
    hidden=4,
    rank=4,
)
NARROW_PAPER = RecurrentConfig(
    former_rows=3,
    map_channels=8,
    pool=1,
    unshuffle=1,
    convs=(ConvSpec(4, kernel=1), *(ConvSpec(8, stride=2) for _ in range(6))),
    blur=True,
    hidden=4,
    rank=None,
    activated=True,
    map_width=None,
)
"""The paper's shape with few channels."""


def random_images(count: int) -> Tensor:
    return torch.randn(count, 4, 1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def analytic_images(t: int) -> list[Tensor]:
    """Four smooth images [1, 3, 256, 256], the same on every machine."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    return [
        torch.stack((torch.sin(3 * x + k + t), torch.cos(5 * y - k), torch.sin(7 * x * y + t)))[None] for k in range(4)
    ]


@torch.no_grad()
def fill(network: RecurrentEncoder) -> RecurrentEncoder:
    """Give every parameter values that only its name's place in the alphabet and its shape decide."""
    for n, (_, parameter) in enumerate(sorted(network.named_parameters())):
        wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (1.7 + n))
        parameter.copy_((wave * parameter[0].numel() ** -0.5).reshape(parameter.shape))
    return network.eval()


def test_starts_as_the_base_encoder_alone() -> None:
    network = RecurrentEncoder(NARROW)
    dws, noise, _, _ = network(*random_images(1)[0], *network.empty_state(torch.empty(1)))
    assert dws.shape == (1, 3, 512)
    assert noise.shape == (1, 4, 32, 32)
    assert not dws.any()
    assert not noise.any()


LIGHT_SHAPES = {
    "convs.0": (64, 48, 3, 3),
    "convs.1": (96, 64, 3, 3),
    "convs.2": (96, 96, 3, 3),
    "convs.3": (160, 96, 3, 3),
    "convs.4": (160, 160, 3, 3),
    "lstm.gates": (384, 160, 3, 3),
    "reduce": (96, 6144),
    "to_dws": (5120, 96),
    "map_head.context": (96, 96, 1, 1),
    "map_head.join": (96, 192, 1, 1),
    "map_head.draw": (96, 96, 3, 3),
    "map_head.to_map": (512, 96, 1, 1),
    "map_head.recall": (96, 96, 1, 1),
    "map_head.keep": (96, 96, 1, 1),
    "map_head.correct": (96, 96, 1, 1),
    "map_head.glance": (96, 48, 2, 2),
}
"""Trained weights lie in files under these names."""

WITHOUT_BIAS = ("map_head.recall", "map_head.glance")


def test_light_form_keeps_its_names_and_shapes() -> None:
    state = RecurrentEncoder(LIGHT).state_dict()
    assert {
        name.removesuffix(".weight"): tuple(state[name].shape) for name in state if name.endswith("t")
    } == LIGHT_SHAPES
    assert len(state) == 2 * len(LIGHT_SHAPES) - len(WITHOUT_BIAS)


@torch.no_grad()
def test_light_form_computes_what_its_weights_were_trained_for() -> None:
    """Three frames with made-up weights, against numbers of the first version with a memory of the map."""
    network = fill(RecurrentEncoder(replace(LIGHT, remembered=1.0)))
    h, c = network.empty_state(torch.empty(1))
    for t in range(3):
        *found, h, c = network(*analytic_images(t), h, c)
    expected = {
        "dws": ([-0.082082, 0.484033, -0.747019, 0.876083], 0.637909),
        "noise": ([0.109628, -0.301385, 0.614817, -0.972837], 0.659110),
        "h": ([-0.18007, 0.40139, 0.975646, -0.414173], 1.031500),
        "c": ([0.500045, -0.061759, -0.991955, 0.549299], 0.476860),
    }
    for tensor, (samples, mean) in zip((*found, h, c), expected.values(), strict=True):
        flat = tensor.flatten()
        assert flat[:: len(flat) // 4].tolist() == pytest.approx(samples, abs=1e-3)
        assert float(flat.abs().mean()) == pytest.approx(mean, abs=1e-4)


@torch.no_grad()
def test_cells_that_never_forget_come_to_rest() -> None:
    """All gates open and the same frame over and over: the sum of 1 + r + r^2 + ..., instead of one more each frame."""
    kept = 0.9
    lstm = ConvLstm(1, 1, looped=False, remembered=kept)
    lstm.gates.weight.zero_()
    lstm.gates.bias.fill_(50.0)
    c = torch.zeros(1, 1, 1, 1)
    for _ in range(300):
        _, c = lstm(torch.zeros(1, 1, 1, 1), None, c)
    assert c.item() == pytest.approx(1.0 / (1.0 - kept))


def test_paper_form_has_the_papers_shape() -> None:
    with torch.device("meta"):
        network = RecurrentEncoder(PAPER).eval()
        state = network.empty_state(torch.empty(2))
        dws, noise, h, c = network(*torch.empty(4, 2, 3, 256, 256), *state)
    assert PAPER.sides == (256, 128, 64, 32, 16, 8, 4)
    assert (dws.shape, noise.shape) == ((2, 10, 512), (2, 512, 32, 32))
    assert h.shape == c.shape == (2, 512, 4, 4)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"convs", "lstm", "to_dws"}
    assert [type(conv) is BlurredConv for conv in network.convs] == [False] + [True] * 6


@torch.no_grad()
def test_paper_forms_map_is_the_activation_at_32_px() -> None:
    network = fill(RecurrentEncoder(NARROW_PAPER))
    seen: list[Tensor] = []
    network.convs[3].register_forward_hook(lambda _, __, output: seen.append(output))
    _, noise, _, _ = network(*random_images(1)[0], *network.empty_state(torch.empty(1)))
    assert torch.equal(noise, torch.nn.functional.leaky_relu(seen[0], 0.2) * 2**0.5)


@torch.no_grad()
def test_blurring_before_the_stride_removes_what_would_alias() -> None:
    conv = BlurredConv(1, 1, 3)
    conv.weight.fill_(1 / 9)
    conv.bias.zero_()
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 1, 32, 32)
    assert conv(stripes).shape == (1, 1, 16, 16)
    assert conv(stripes)[..., 2:-2, 2:-2].abs().max() < 1e-6
    flat = conv(torch.ones(1, 1, 32, 32))
    torch.testing.assert_close(flat[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))


@torch.no_grad()
@pytest.mark.parametrize("config", [NARROW, NARROW_PAPER], ids=["light", "paper"])
def test_single_steps_equal_one_unrolled_run(config: RecurrentConfig) -> None:
    """T steps equal the convolutions of all frames as one batch, then the memory alone frame by frame."""
    network = fill(RecurrentEncoder(config))
    images = random_images(4)
    h, c = network.empty_state(torch.empty(1))
    stepped = []
    for frame in images:
        dws, noise, h, c = network(*frame, h, c)
        stepped.append((dws, noise, h, c))
    seen = network.look(images.flatten(1, 3))
    h, c = network.empty_state(torch.empty(1))
    for t, expected in enumerate(stepped):
        dws, noise, h, c = network.step(Seen(*(part[t : t + 1] for part in seen)), h, c)
        for found, wanted in zip((dws, noise, h, c), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_state_is_all_that_one_frame_leaves_to_the_next() -> None:
    """Steps with the state handed over equal the same steps run again from a stored state."""
    torch.manual_seed(0)
    network = RecurrentEncoder(NARROW).eval()
    torch.nn.init.normal_(network.to_dws.weight)
    h, c = network.empty_state(torch.empty(1))
    outputs, states = [], []
    with torch.no_grad():
        for images in random_images(4):
            states.append((h, c))
            dws, _, h, c = network(*images, h, c)
            outputs.append(dws)
        for images, (h, c), expected in zip(random_images(4), states, outputs, strict=True):
            assert torch.equal(network(*images, h, c)[0], expected)
    again = network.empty_state(torch.empty(1))
    assert not torch.allclose(network(*random_images(4)[3], *again)[0], outputs[3])


@torch.no_grad()
def test_map_memory_by_hand() -> None:
    """m_t = keep . m_{t-1} + (1 - keep) . drawn + correction, and the map is linear in it."""
    head = MapHead(2, (5, 64), 3, 4, 6)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    at_32, h, fine, memory = (torch.randn(1, *shape) for shape in ((2, 32, 32), (3, 8, 8), (5, 64, 64), (4, 32, 32)))
    noise, after = head(at_32, h, fine, memory)
    joined = F.leaky_relu(head.joined(at_32, h) + F.conv2d(memory, head.recall.weight), 0.2) * 2**0.5
    detail = F.leaky_relu(head.draw(joined), 0.2) * 2**0.5
    keep, correction = torch.sigmoid(head.keep(joined)), head.correct(detail) + head.glance(fine)
    torch.testing.assert_close(after, keep * memory + (1 - keep) * (detail + joined) + correction)
    torch.testing.assert_close(noise, head.to_map(after))


@torch.no_grad()
def test_a_new_memory_keeps_half_and_corrects_nothing() -> None:
    head = MapHead(2, (5, 64), 3, 4, 6)
    torch.nn.init.normal_(head.to_map.weight)
    at_32, h, fine = (torch.randn(1, *shape) for shape in ((2, 32, 32), (3, 8, 8), (5, 64, 64)))
    first, memory = head(at_32, h, fine, torch.zeros(1, 4, 32, 32))
    joined = F.leaky_relu(head.joined(at_32, h), 0.2) * 2**0.5
    drawn = head.to_map(F.leaky_relu(head.draw(joined), 0.2) * 2**0.5 + joined)
    torch.testing.assert_close(first, 0.5 * drawn, atol=1e-5, rtol=1e-4)
    second, _ = head(at_32, h, fine, memory)
    torch.testing.assert_close(second, 0.75 * drawn, atol=1e-5, rtol=1e-4)


def test_conv_lstm_by_hand() -> None:
    """One pixel, one channel: the gates in the order i, f, o, g."""
    cell = ConvLstm(1, 1)
    with torch.no_grad():
        cell.gates.weight.zero_()
        cell.gates.weight[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 3.0, 0.5])
        cell.gates.bias.zero_()
    x, c0 = torch.full((1, 1, 1, 1), 0.7), torch.full((1, 1, 1, 1), -0.4)
    h, c = cell(x, torch.zeros(1, 1, 1, 1), c0)
    s = torch.sigmoid
    expected = s(torch.tensor(1.4)) * -0.4 + s(torch.tensor(0.7)) * torch.tanh(torch.tensor(0.35))
    assert torch.isclose(c.squeeze(), expected)
    assert torch.isclose(h.squeeze(), s(torch.tensor(2.1)) * torch.tanh(expected))


@pytest.mark.parametrize(("pool", "unshuffle"), [(2, 2), (1, 2), (2, 1), (3, 2)])
def test_shrinking_is_one_convolution(pool: int, unshuffle: int) -> None:
    images = torch.rand(2, 5, 24, 24, generator=torch.Generator().manual_seed(1))
    shrunk = F.conv2d(images, shrink_kernel(5, pool, unshuffle), stride=pool * unshuffle)
    torch.testing.assert_close(shrunk, F.pixel_unshuffle(F.avg_pool2d(images, pool), unshuffle))
