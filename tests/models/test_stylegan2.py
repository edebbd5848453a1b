"""StyleGAN2: constant weights are the same function as modulated ones, and names and rows are the public ones."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import blur_kernel
from models.stylegan2 import ModulatedConv, RgbHead, StyleGan2, StyleGan2Config

TINY = StyleGan2Config(resolution=64, latent_dim=8, widest=8, budget=256)
WIDE = StyleGan2Config(resolution=32, widest=64, budget=2048)


def insert_zeros(x: Tensor) -> Tensor:
    """Every pixel followed by a zero in both directions: [B, C, H, W] -> [B, C, 2H, 2W]."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[..., ::2, ::2] = x
    return out


def filtered(x: Tensor, pad: tuple[int, int]) -> Tensor:
    """4 times the 4x4 blur of the padded image (`upfirdn2d` of StyleGAN2)."""
    x = F.pad(x, (*pad, *pad))
    return F.conv2d(x, blur_kernel(x.shape[1], gain=4.0), groups=x.shape[1])


def modulated_by_weight(layer: ModulatedConv, x: Tensor, w: Tensor) -> Tensor:
    """The published definition, sample by sample: the style scales the weights, which are then normalised."""
    styles = F.linear(w, layer.modulation.weight / w.shape[1] ** 0.5, layer.modulation.bias)
    made = []
    for image, style in zip(x, styles, strict=True):
        weight = layer.weight / layer.weight[0].numel() ** 0.5 * style[:, None, None]
        if layer.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if layer.blur is None:
            made.append(F.conv2d(image[None], weight, padding=weight.shape[-1] // 2))
        else:
            made.append(filtered(F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2), (1, 1)))
    return torch.cat(made)


@pytest.mark.parametrize("kind", [{}, {"up": True}, {"kernel": 1, "demodulate": False}])
def test_scaling_activations_equals_modulating_weights(kind: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(**{"c_in": 128, "c_out": 96, "kernel": 3, "latent_dim": 512, **kind})
    x, w = torch.randn(3, 128, 16, 16), torch.randn(3, 512)
    with torch.no_grad():
        expected, found = modulated_by_weight(layer, x, w), layer(x, w)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_whole_image_equals_modulating_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = StyleGan2(WIDE)
    ws = torch.randn(2, WIDE.latent_rows, 512)
    with torch.no_grad():
        found = network(ws)
        monkeypatch.setattr(ModulatedConv, "forward", modulated_by_weight)
        expected = network(ws)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_rgb_is_doubled_by_zeros_and_a_blur() -> None:
    torch.manual_seed(0)
    head = RgbHead(4, 8)
    x, w, image = torch.randn(2, 4, 16, 16), torch.randn(2, 8), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        doubled = head(x, w, image) - head(x, w)
    torch.testing.assert_close(doubled, filtered(insert_zeros(image), (2, 1)), atol=1e-5, rtol=1e-5)


def public_names() -> set[str]:
    """Tensors of a public 256 px checkpoint, its constant blur kernels left out."""
    styled = ("conv.weight", "conv.modulation.weight", "conv.modulation.bias", "noise.weight", "activate.bias")
    rgb = ("conv.weight", "conv.modulation.weight", "conv.modulation.bias", "bias")
    names = {f"style.{n}.{kind}" for n in range(1, 9) for kind in ("weight", "bias")}
    names |= {f"{conv}.{part}" for conv in ("conv1", *(f"convs.{n}" for n in range(12))) for part in styled}
    names |= {f"{head}.{part}" for head in ("to_rgb1", *(f"to_rgbs.{n}" for n in range(6))) for part in rgb}
    return names | {"input.input"} | {f"noises.noise_{n}" for n in range(13)}


def test_names_are_those_of_public_checkpoints() -> None:
    with torch.device("meta"):
        network = StyleGan2()
    assert set(network.state_dict()) == public_names()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["convs.10.conv.weight"] == (128, 256, 3, 3)
    assert shapes["to_rgbs.5.conv.weight"] == (3, 128, 1, 1)
    assert [shapes[f"noises.noise_{n}"][-1] for n in range(13)] == [4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]


def test_rows_are_the_public_ones() -> None:
    config = StyleGan2Config()
    assert (config.latent_rows, config.former_rows) == (14, 10)
    assert config.row_names()[9] == ("convs.8", 128)
    assert [resolution for _, resolution in config.row_names()][::2] == [4, 8, 16, 32, 64, 128, 256]


def test_each_row_styles_its_layer_and_the_rgb_head_before_it() -> None:
    torch.manual_seed(0)
    network, ws = StyleGan2(TINY), torch.randn(1, TINY.latent_rows, 8)
    layers = {"conv1": [], "to_rgb1": [], "convs.0": [], "convs.1": [], "to_rgbs.0": [], "convs.2": []}
    for name, seen in layers.items():
        network.get_submodule(name).register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[1]))
    with torch.no_grad():
        network(ws)
    rows = {
        name: next(row for row in range(len(ws[0])) if torch.equal(seen[0], ws[:, row]))
        for name, seen in layers.items()
    }
    assert rows == {"conv1": 0, "to_rgb1": 1, "convs.0": 1, "convs.1": 2, "to_rgbs.0": 3, "convs.2": 3}


def test_noise_map_enters_both_convolutions_at_32_px_only() -> None:
    torch.manual_seed(0)
    network = StyleGan2(TINY)
    ws, noise = torch.randn(2, TINY.latent_rows, 8), torch.randn(2, TINY.width(32), 32, 32)
    with torch.no_grad():
        assert torch.equal(network(ws), network(ws, noise))  # the learned scalars start at zero
        for j, conv in enumerate(network.convs):
            conv.noise.weight.fill_(0.5)
            assert torch.allclose(network(ws), network(ws, noise)) == (j not in (4, 5)), j
            conv.noise.weight.zero_()
        network.convs[5].noise.weight.fill_(0.5)
        torch.testing.assert_close(network(ws, torch.zeros_like(noise)), network(ws))


def test_mapping_scales_weights_and_biases_by_its_rate() -> None:
    torch.manual_seed(0)
    network, z = StyleGan2(TINY), torch.randn(3, 8)
    with torch.no_grad():
        x = z / z.square().mean(dim=1, keepdim=True).sqrt()
        for layer in network.style[1:]:
            layer.bias.normal_()
            x = F.leaky_relu(F.linear(x, 0.01 * layer.weight / 8**0.5, 0.01 * layer.bias), 0.2) * 2**0.5
        torch.testing.assert_close(network.map(z), x, atol=1e-5, rtol=1e-4)
    assert 60 < layer.weight.std() < 160  # stored at a hundred times its size in use
