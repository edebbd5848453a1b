"""The visible net: its shape, its range, and that it can tell the better neighbour."""

import torch
from torch.nn import functional as F

from models.visibility import LIGHT, VisibleNet, VisibleNetConfig

TINY = VisibleNetConfig(widths=(4, 4, 8, 8, 8), kernel=3)


def test_visibility_is_one_number_a_pixel_between_0_and_1() -> None:
    torch.manual_seed(0)
    network = VisibleNet(TINY)
    visibility = network(100 * torch.randn(2, 6, 48, 80))
    assert visibility.shape == (2, 1, 48, 80)
    assert ((visibility >= 0) & (visibility <= 1)).all()
    assert visibility.std() > 0


def test_five_convolutions_and_five_transposed_ones() -> None:
    with torch.device("meta"):
        parts = list(VisibleNet().modules())
    assert [type(part) for part in parts].count(torch.nn.Conv2d) == 5
    assert [type(part) for part in parts].count(torch.nn.ConvTranspose2d) == 5
    assert [type(part) for part in parts].count(torch.nn.BatchNorm2d) == 9


def test_light_form_fits_a_cpu() -> None:
    with torch.device("meta"):
        network = VisibleNet(LIGHT)
    assert 0.4e6 < sum(parameter.numel() for parameter in network.parameters()) < 0.6e6


def test_it_learns_which_neighbour_is_torn() -> None:
    """The right half of the first neighbour and the left half of the second are noise."""
    torch.manual_seed(0)
    network = VisibleNet(TINY)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(50):
        frame = F.interpolate(torch.rand(2, 3, 4, 4) * 2 - 1, size=32, mode="bilinear")
        first, second = frame.clone(), frame.clone()
        first[..., 16:] = torch.rand(2, 3, 32, 16) * 2 - 1
        second[..., :16] = torch.rand(2, 3, 32, 16) * 2 - 1
        visibility = network(torch.cat((first, second), dim=1))
        loss = F.l1_loss(visibility * first + (1 - visibility) * second, frame)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert visibility[..., :14].mean() > 0.8
    assert visibility[..., 18:].mean() < 0.2
