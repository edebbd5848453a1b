"""The start of the generator's training: its shortcut computes what the whole head computes."""

import numpy as np
import torch

from models.mobile_stylegan import MobileStyleGan, MobileStyleGanConfig, haar
from models.training.generator_start import (
    BeforeLastPointwise,
    Pixels,
    fit_head,
    pixel_bands,
    psnr_db,
    train_on_pixels,
)
from models.training.samples import image_tensor

CONFIG = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)


def small_generator() -> MobileStyleGan:
    torch.manual_seed(0)
    return MobileStyleGan(CONFIG).eval()


def all_pixels(generator: MobileStyleGan, ws: torch.Tensor, images: torch.Tensor) -> Pixels:
    inputs = BeforeLastPointwise(generator)(ws).flatten(2).transpose(1, 2)
    noise = generator.last_layer.conv2.noise.flatten()[None, :, None].expand(len(ws), -1, -1)
    return Pixels(ws, inputs, haar(images).flatten(2).transpose(1, 2), noise)


@torch.no_grad()
def test_pixels_equal_the_whole_head() -> None:
    generator = small_generator()
    ws = torch.randn(2, CONFIG.latent_rows, 512)
    pixels = all_pixels(generator, ws, generator(ws))
    assert torch.allclose(pixel_bands(generator, pixels), pixels.bands, atol=1e-4)


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


def test_steps_on_pixels_come_nearer_and_are_the_same_for_the_same_seed() -> None:
    generator = small_generator()
    ws = torch.randn(4, CONFIG.latent_rows, 512)
    with torch.no_grad():
        pixels = all_pixels(generator, ws, generator(ws))
    chosen = [pixels.inputs[:, :64], pixels.bands[:, :64], pixels.noise[:, :64]]
    before, found = [], []
    for _ in range(2):
        other = small_generator()
        torch.nn.init.zeros_(other.to_rgb.weight)
        before.append(psnr_db(other, Pixels(ws, *chosen)))
        train_on_pixels(other, Pixels(ws, *chosen), 20, torch.Generator().manual_seed(3))
        found.append(psnr_db(other, Pixels(ws, *chosen)))
    assert found[0] > before[0]
    assert found[0] == found[1]


def test_image_tensor_range_and_layout() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 1] = (255, 0, 127)
    tensor = image_tensor(image)
    assert tensor.shape == (1, 3, 2, 2)
    assert torch.allclose(tensor[0, :, 0, 1], torch.tensor([1.0, -1.0, 127 / 127.5 - 1.0]))
