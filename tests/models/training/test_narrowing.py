"""Narrowing a generator: which inputs a linear map gives up, and that nothing is lost where something is redundant."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.mobile_stylegan import Layer, MobileStyleGan, MobileStyleGanConfig, inverse_haar
from models.training.narrowing import band_channels, eliminate, first_narrower, fit_linear, gigaflops, narrow

WIDE = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)


@pytest.fixture
def wide() -> MobileStyleGan:
    torch.manual_seed(0)
    network = MobileStyleGan(WIDE).eval().requires_grad_(False)
    for layer in network.layers:
        assert isinstance(layer, Layer)
        for conv in (layer.conv1, layer.conv2):
            nn.init.normal_(conv.bias, std=0.3)
            nn.init.normal_(conv.noise, std=0.1)
    return network


@pytest.fixture
def codes() -> Tensor:
    return torch.randn(12, WIDE.latent_rows, 512, generator=torch.Generator().manual_seed(5))


def test_elimination_loses_what_least_squares_would(wide: MobileStyleGan):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 10, generator=generator) @ torch.randn(10, 10, generator=generator)
    weight = torch.randn(4, 10, generator=generator)
    found = eliminate(x.T @ x, weight)
    y = (x @ weight.T).double()
    assert sorted(found.order.tolist()) == list(range(10))
    for count in (1, 4, 7, 9):
        kept = x[:, found.kept(count)].double()
        left = y - kept @ torch.linalg.lstsq(kept, y).solution
        expected = left.square().sum() / y.square().sum()
        assert float(found.error[10 - count - 1]) == pytest.approx(float(expected), rel=0.05)


def test_what_is_not_used_goes_first():
    moments = torch.eye(6)
    weight = torch.tensor([[0.0, 3.0, 0.0, 1.0, 0.0, 2.0]])
    found = eliminate(moments, weight)
    assert set(found.order[:3].tolist()) == {0, 2, 4}
    assert found.order[3:].tolist() == [3, 5, 1]
    assert found.kept(2).tolist() == [1, 5]


def test_groups_are_what_the_wavelet_makes_one_channel_of():
    x = torch.randn(1, 24, 4, 4, generator=torch.Generator().manual_seed(2))
    groups = torch.tensor([1, 4])
    assert torch.equal(inverse_haar(x[:, band_channels(groups, 24)]), inverse_haar(x)[:, groups])


def test_a_fit_finds_the_map_that_made_the_pairs():
    generator = torch.Generator().manual_seed(3)
    weight, shift = torch.randn(2, 5, generator=generator), torch.randn(2, generator=generator)
    images = [torch.randn(1, 5, 8, 8, generator=generator) for _ in range(3)]
    pairs = ((x, torch.einsum("oc,bchw->bohw", weight, x) + shift[None, :, None, None]) for x in images)
    found = fit_linear(pairs)
    torch.testing.assert_close(found[0], weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], shift, atol=1e-3, rtol=0)


@pytest.mark.parametrize("noise_upto", [32, 16])
def test_redundant_channels_go_without_a_loss(wide: MobileStyleGan, codes: Tensor, noise_upto: int):
    """The second half of the last layer's inner channels repeat the first half; a flat noise is as good as a bias."""
    layer = wide.layers[2]
    assert isinstance(layer, Layer)
    for tensor in (layer.conv1.pointwise, layer.conv2.modulation.weight, layer.conv2.modulation.bias):
        tensor[8:] = tensor[:8]
    layer.conv1.bias[:, 8:] = layer.conv1.bias[:, :8]
    layer.conv2.depthwise[8:] = layer.conv2.depthwise[:8]
    if noise_upto < 32:
        for conv in (layer.conv1, layer.conv2):
            assert conv.noise is not None
            conv.noise.fill_(0.4)
    config = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16, inner=(16, 16, 8), noise_upto=noise_upto)
    student = narrow(wide, config, codes)
    assert ("layers.2.conv1.noise" in student.state_dict()) == (noise_upto == 32)
    expected, found = wide(codes[:3]), student(codes[:3])
    assert float((found - expected).square().mean() / expected.var()) < 1e-4


def test_fitting_beats_taking_the_same_channels(wide: MobileStyleGan, codes: Tensor):
    """Both widths of the upper layers are cut; what the fit is for shows in unseen codes."""
    config = MobileStyleGanConfig(widths=(16, 12, 12), stem_width=16, inner=(16, 12, 12))
    student = narrow(wide, config, codes)
    unseen = torch.randn(4, WIDE.latent_rows, 512, generator=torch.Generator().manual_seed(6))
    expected, fitted = wide(unseen), student(unseen)
    assert student.config == config
    assert not any(parameter.requires_grad for parameter in student.parameters())
    for name, tensor in student.state_dict().items():
        if name.startswith(("conv1.", "input", "layers.0.")):
            assert torch.equal(tensor, wide.state_dict()[name]), name
    for conv in (student.layers[1].conv2, student.layers[2].conv2):  # type: ignore[union-attr]
        conv.pointwise.mul_(1.2)
    spoilt = student(unseen)
    error, worse = ((made - expected).square().mean() / expected.var() for made in (fitted, spoilt))
    assert error < 0.5
    assert error < worse


def test_only_narrower_networks_are_made():
    assert first_narrower(WIDE, MobileStyleGanConfig(widths=(16, 16, 12), stem_width=16)) == 2
    assert first_narrower(WIDE, MobileStyleGanConfig(WIDE.widths, 16, inner=(16, 8, 16))) == 1
    with pytest.raises(AssertionError):
        first_narrower(WIDE, MobileStyleGanConfig(widths=(16, 32, 16), stem_width=16))


@pytest.mark.parametrize("inner", [None, (16, 8, 4)])
def test_arithmetic_is_what_torch_counts(inner: tuple[int, ...] | None):
    config = MobileStyleGanConfig(widths=(16, 16, 8), stem_width=16, inner=inner)
    network = MobileStyleGan(config).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, config.latent_rows, 512))
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert gigaflops(config) == pytest.approx(convolutions / 1e9, rel=1e-6)
