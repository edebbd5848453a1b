"""The recurrent encoder: state in and out, and what it starts from."""

import torch
from torch import Tensor

from models.recurrent import ConvLstm, RecurrentConfig, RecurrentEncoder

NARROW = RecurrentConfig(former_rows=3, map_channels=4, stem=8, map_width=8, deep=8, hidden=4, rank=4)


def random_images(count: int) -> Tensor:
    return torch.randn(count, 4, 1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def test_starts_as_the_base_encoder_alone() -> None:
    network = RecurrentEncoder(NARROW)
    state = torch.zeros(1, *network.state_shape())
    dws, noise, _, _ = network(*random_images(1)[0], state, state)
    assert dws.shape == (1, 3, 512)
    assert noise.shape == (1, 4, 32, 32)
    assert not dws.any()
    assert not noise.any()


def test_state_is_all_that_one_frame_leaves_to_the_next() -> None:
    """Steps with the state handed over equal the same steps run again from a stored state."""
    torch.manual_seed(0)
    network = RecurrentEncoder(NARROW).eval()
    torch.nn.init.normal_(network.to_dws.weight)
    h = c = torch.zeros(1, *network.state_shape())
    outputs, states = [], []
    with torch.no_grad():
        for images in random_images(4):
            states.append((h, c))
            dws, _, h, c = network(*images, h, c)
            outputs.append(dws)
        for images, (h, c), expected in zip(random_images(4), states, outputs, strict=True):
            assert torch.equal(network(*images, h, c)[0], expected)
    again = torch.zeros_like(states[0][0])
    assert not torch.allclose(network(*random_images(4)[3], again, again)[0], outputs[3])


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
