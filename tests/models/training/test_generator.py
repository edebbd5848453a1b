"""The generator's training: its shortcuts compute what the whole network computes."""

import numpy as np
import torch

from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig, inverse_haar
from models.training.generator import BeforeLastPointwise, Pixels, TopLayers, fit_head, haar, pixel_bands
from models.training.samples import image_tensor

CONFIG = MobileStyleGanConfig(widths=(16, 16, 16, 16, 16), stem_width=16)


def small_generator() -> MobileStyleGan:
    torch.manual_seed(0)
    return MobileStyleGan(CONFIG).eval()


def all_pixels(generator: MobileStyleGan, ws: torch.Tensor, images: torch.Tensor) -> Pixels:
    inputs = BeforeLastPointwise(generator)(ws).flatten(2).transpose(1, 2)
    noise = generator.last_layer.conv2.noise.flatten()[None, :, None].expand(len(ws), -1, -1)
    return Pixels(inputs, haar(images).flatten(2).transpose(1, 2), noise)


def test_haar_undoes_inverse_haar() -> None:
    bands = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(haar(inverse_haar(bands)), bands, atol=1e-6)


@torch.no_grad()
def test_pixels_equal_the_whole_head() -> None:
    generator = small_generator()
    ws = torch.randn(2, CONFIG.latent_rows, 512)
    image = generator(ws)
    pixels = all_pixels(generator, ws, image)
    assert torch.allclose(pixel_bands(generator, pixels, torch.arange(2), ws), pixels.bands, atol=1e-4)


@torch.no_grad()
def test_a_patch_equals_its_place_in_the_whole_image() -> None:
    generator = small_generator()
    generator.last_layer.conv1.noise.data = torch.randn(1, 1, 128, 128)
    ws = torch.randn(1, CONFIG.latent_rows, 512)
    features = generator.features(ws, upto=-1)
    patch = TopLayers(generator)(features[:, :, 10:38, 20:48], ws, (10, 20))
    whole = generator(ws)[:, :, 40:152, 80:192]
    assert torch.allclose(patch[..., 8:-8, 8:-8], whole[..., 8:-8, 8:-8], atol=1e-4)
    assert not torch.allclose(patch, whole, atol=1e-4)


@torch.no_grad()
def test_closed_form_head_finds_an_unmodulated_head() -> None:
    generator = small_generator()
    head = generator.to_rgb
    head.modulation.weight.zero_()
    head.modulation.bias.fill_(1.0 / head.modulation.gain)
    ws = torch.randn(2, CONFIG.latent_rows, 512)
    image = generator(ws)
    pixels = all_pixels(generator, ws, image)
    head.weight.normal_()
    fit_head(generator, pixels, ridge=1e-9)
    assert (generator(ws) - image).abs().max() < 0.02 * image.std()


def test_image_tensor_range_and_layout() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 1] = (255, 0, 127)
    tensor = image_tensor(image)
    assert tensor.shape == (1, 3, 2, 2)
    assert torch.allclose(tensor[0, :, 0, 1], torch.tensor([1.0, -1.0, 127 / 127.5 - 1.0]))
