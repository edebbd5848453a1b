"""How `rigid-live train generator` starts: the RGB head in closed form, then with the last pointwise convolution.

Everything from that convolution on works pixel by pixel, so that the start is a small perceptron on sampled pixels of
the teacher's images: minutes on a CPU.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from models.compiled import compile_network
from models.mobile_stylegan import LEAKY_SLOPE, MobileStyleGan, haar
from models.training.log import cosine_rate
from models.training.samples import image_tensor

logger = logging.getLogger(__name__)

PIXELS_AN_IMAGE = 640
IMAGES_A_STEP = 16
PEAK_RATE = 1e-3


class BeforeLastPointwise(nn.Module):
    """ws -> what the last pointwise convolution sees: [B, 256, 128, 128]."""

    def __init__(self, generator: MobileStyleGan) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ws: Tensor) -> Tensor:
        layer = self.generator.last_layer
        x = layer.conv1.convolve(layer.doubled(self.generator.features(ws, upto=-1), ws[:, -3]))
        x = layer.conv2.modulation(x, ws[:, -2])
        return F.conv2d(x, layer.conv2.depthwise, padding=1, groups=x.shape[1])


@dataclass(frozen=True)
class Pixels:
    """Sampled pixels of N images.

    ws: the images' codes [N, L, 512]. inputs: of the last pointwise convolution, fp16 [N, P, 256]. bands: the images'
    Haar bands [N, P, 12]. noise: the constant noise [N, P, 1].
    """

    ws: Tensor
    inputs: Tensor
    bands: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.ws)

    def of(self, images: Tensor | slice) -> "Pixels":
        """Those of the chosen images."""
        return Pixels(self.ws[images], self.inputs[images], self.bands[images], self.noise[images])

    def split(self, size: int) -> Iterator["Pixels"]:
        """`size` images at a time."""
        return (self.of(slice(first, first + size)) for first in range(0, len(self), size))


def start_head(
    generator: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8], held_out: int, steps: int, seed: int
) -> None:
    """Give the generator an RGB head that makes `images` of `ws`; the first `held_out` are for the score alone.

    ws: [N, L, 512]. images: uint8 RGB [N, 256, 256, 3]. steps: on pixels, after the closed form.
    """
    rng = torch.Generator().manual_seed(seed)
    pixels = sample_pixels(generator, ws, images, rng)
    judged, learned = pixels.of(slice(held_out)), pixels.of(slice(held_out, None))
    fit_head(generator, learned)
    logger.info("closed form: %.2f dB on %d held-out images", psnr_db(generator, judged), held_out)
    train_on_pixels(generator, learned, steps, rng)
    logger.info("%d steps on pixels: %.2f dB", steps, psnr_db(generator, judged))


@torch.no_grad()
def sample_pixels(generator: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8], rng: torch.Generator) -> Pixels:
    """`PIXELS_AN_IMAGE` of each image, at places of its own."""
    network = compile_network(BeforeLastPointwise(generator), ws[:1])
    constant = generator.last_layer.conv2.noise
    assert constant is not None, "only layers with constant noise are started this way"
    constant = constant.flatten()
    inputs, bands, noise = [], [], []
    for i in trange(len(ws), desc="pixels", unit="image", disable=None):
        where = torch.randperm(len(constant), generator=rng)[:PIXELS_AN_IMAGE]
        features = torch.from_numpy(network(ws[i : i + 1].numpy())[0]).flatten(1)
        inputs.append(features[:, where].T.half())
        bands.append(haar(image_tensor(images[i : i + 1]))[0].flatten(1)[:, where].T)
        noise.append(constant[where, None])
    return Pixels(ws, torch.stack(inputs), torch.stack(bands), torch.stack(noise))


def last_activations(generator: MobileStyleGan, pixels: Pixels) -> Tensor:
    """What the head sees of sampled pixels: [N, P, 256]."""
    conv = generator.last_layer.conv2
    x = F.linear(pixels.inputs.float(), conv.pointwise[:, :, 0, 0]) + pixels.noise + conv.bias.flatten()
    return F.leaky_relu(x, LEAKY_SLOPE)


def pixel_bands(generator: MobileStyleGan, pixels: Pixels) -> Tensor:
    """The head's output for sampled pixels: [N, P, 12]."""
    head = generator.to_rgb
    style = F.linear(pixels.ws[:, -1], head.modulation.weight, head.modulation.bias) * head.modulation.gain
    x = last_activations(generator, pixels) * style[:, None]
    return F.linear(x, head.weight[:, :, 0, 0]) + head.bias.flatten()


@torch.no_grad()
def fit_head(generator: MobileStyleGan, pixels: Pixels, ridge: float = 1e-3) -> None:
    """Closed form without modulation: least squares from the last activations to the images' Haar bands."""
    head = generator.to_rgb
    width = head.weight.shape[1] + 1
    gram, cross = torch.zeros(width, width), torch.zeros(width, 12)
    for part in pixels.split(64):
        x = last_activations(generator, part).flatten(0, 1)
        x = torch.cat((x, torch.ones(len(x), 1)), dim=1)
        gram += x.T @ x
        cross += x.T @ part.bands.flatten(0, 1)
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, cross)
    head.modulation.weight.zero_()
    head.modulation.bias.fill_(1.0 / head.modulation.gain)
    head.weight.copy_(solution[:-1].T[:, :, None, None])
    head.bias.copy_(solution[-1].view(1, 12, 1, 1))


def train_on_pixels(generator: MobileStyleGan, pixels: Pixels, steps: int, rng: torch.Generator) -> None:
    """Fit the last pointwise convolution and the head to the sampled pixels by squared error."""
    conv, head = generator.last_layer.conv2, generator.to_rgb
    optimizer = torch.optim.Adam([conv.pointwise, conv.bias, *head.parameters()])
    for step in trange(steps, desc="start", unit="step", disable=None):
        optimizer.param_groups[0]["lr"] = cosine_rate(step / steps, PEAK_RATE)
        chosen = pixels.of(torch.randint(len(pixels), (IMAGES_A_STEP,), generator=rng))
        loss = F.mse_loss(pixel_bands(generator, chosen), chosen.bands)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def psnr_db(generator: MobileStyleGan, pixels: Pixels) -> float:
    """PSNR on [-1, 1] of the sampled pixels, mean over images; the Haar transform is orthonormal."""
    errors = (pixel_bands(generator, pixels) - pixels.bands).square().mean(dim=(1, 2))
    return float((10 * torch.log10(4.0 / errors)).mean())
