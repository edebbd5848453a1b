"""`rigid-live train generator`: give the published generator, cut at 256 px, an RGB head of its own.

The export lacks the 256 px head, so it is fitted to the 1024 px image scaled down. Everything from the last pointwise
convolution on works pixel by pixel, which makes most of the training a small perceptron on sampled pixels; then the
whole 128 px layer is unfrozen and trained on patches by L1 + ST-LPIPS. Only these tensors are ours.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints.weights import FRESH, fitting, load_weights, save_fresh
from models.mobile_stylegan import LEAKY_SLOPE, LIGHT_256, MobileStyleGan, inverse_haar
from models.perceptual import StLpips
from models.training.log import Budget, TrainingLog, checkpoint_dir, cosine_rate, ema_copy, ema_update
from models.training.samples import image_tensor, published_generator, teacher_targets

HELD_OUT = 100
PIXELS_AN_IMAGE = 640
PATCH = 28  # 64 px features a patch side; the image patch is 4 times that
MARGIN = 2  # of them, cut away: a patch's border sees zero padding that the whole image does not have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=15.0, help="wall-clock budget, a quarter of it for pixels")
    parser.add_argument("--targets", type=int, default=1300, help="teacher images to make, the first 100 held out")
    parser.add_argument("--refine", action="store_true", help="start from the newest weights, without the pixel stage")
    parser.add_argument("--out", type=Path, default=FRESH, help="folder of the trained weights")


class BeforeLastPointwise(nn.Module):
    """ws -> what the last pointwise convolution sees: [B, 256, 128, 128]."""

    def __init__(self, generator: MobileStyleGan) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ws: Tensor) -> Tensor:
        layer = self.generator.last_layer
        x = inverse_haar(layer.up(self.generator.features(ws, upto=-1), ws[:, -3]))
        x = layer.conv2.modulation(layer.conv1(x, ws[:, -3]), ws[:, -2])
        return F.conv2d(x, layer.conv2.depthwise, padding=1, groups=x.shape[1])


class LowerLayers(nn.Module):
    """ws -> the 64 px activations [B, 512, 64, 64]."""

    def __init__(self, generator: MobileStyleGan) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ws: Tensor) -> Tensor:
        return self.generator.features(ws, upto=-1)


def compile_network(
    network: nn.Module, example: Tensor | tuple[Tensor, ...], precision: str = "f32"
) -> Callable[..., NDArray[np.float32]]:
    """`network` on OpenVINO at the example's shape: ten times the speed of eager torch on a CPU."""
    model = ov.convert_model(network.eval(), example_input=example)
    examples = example if isinstance(example, tuple) else (example,)
    model.reshape({i: tuple(e.shape) for i, e in enumerate(examples)})
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return lambda *arrays: compiled(list(arrays))[0]


def haar(image: Tensor) -> Tensor:
    """Inverse of `inverse_haar`: [B, C, 2H, 2W] -> [B, 4C, H, W], details as (C, 3)."""
    a, b, c, d = F.pixel_unshuffle(image, 2).unflatten(1, (-1, 4)).unbind(2)
    low, vertical = a + b + c + d, a + b - c - d
    horizontal, diagonal = a - b + c - d, a - b - c + d
    details = torch.stack((vertical, horizontal, diagonal), dim=2).flatten(1, 2)
    return torch.cat((low, details), dim=1) * 0.5


@dataclass(frozen=True)
class Pixels:
    """Sampled pixels of each image: inputs fp16 [N, P, 256], Haar bands [N, P, 12], constant noise [N, P, 1]."""

    inputs: Tensor
    bands: Tensor
    noise: Tensor


@torch.no_grad()
def sample_pixels(generator: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8], rng: torch.Generator) -> Pixels:
    network = compile_network(BeforeLastPointwise(generator), ws[:1])
    constant = generator.last_layer.conv2.noise.flatten()
    inputs, bands, noise = [], [], []
    for i in range(len(ws)):
        where = torch.randperm(128 * 128, generator=rng)[:PIXELS_AN_IMAGE]
        features = torch.from_numpy(network(ws[i : i + 1].numpy())[0]).flatten(1)
        inputs.append(features[:, where].T.half())
        bands.append(haar(image_tensor(images[i : i + 1]))[0].flatten(1)[:, where].T)
        noise.append(constant[where, None])
    return Pixels(torch.stack(inputs), torch.stack(bands), torch.stack(noise))


def pixel_bands(generator: MobileStyleGan, pixels: Pixels, chosen: Tensor, ws: Tensor) -> Tensor:
    """The head's output for sampled pixels: [B, P, 12]."""
    conv, head = generator.last_layer.conv2, generator.to_rgb
    x = F.linear(pixels.inputs[chosen].float(), conv.pointwise[:, :, 0, 0]) + pixels.noise[chosen] + conv.bias.flatten()
    style = F.linear(ws[:, -1], head.modulation.weight, head.modulation.bias) * head.modulation.gain
    x = F.leaky_relu(x, LEAKY_SLOPE) * style[:, None]
    return F.linear(x, head.weight[:, :, 0, 0]) + head.bias.flatten()


@torch.no_grad()
def fit_head(generator: MobileStyleGan, pixels: Pixels, ridge: float = 1e-3) -> None:
    """Closed-form start without modulation: least squares from the last activations to the image's Haar bands."""
    conv, head = generator.last_layer.conv2, generator.to_rgb
    x = F.linear(pixels.inputs.float(), conv.pointwise[:, :, 0, 0]) + pixels.noise + conv.bias.flatten()
    acts = F.leaky_relu(x, LEAKY_SLOPE).flatten(0, 1)
    acts = torch.cat((acts, torch.ones(len(acts), 1)), dim=1)
    gram = acts.T @ acts
    identity = torch.eye(len(gram))
    solution = torch.linalg.solve(gram + ridge * gram.diagonal().mean() * identity, acts.T @ pixels.bands.flatten(0, 1))
    head.modulation.weight.zero_()
    head.modulation.bias.fill_(1.0 / head.modulation.gain)
    head.weight.copy_(solution[:-1].T[:, :, None, None])
    head.bias.copy_(solution[-1].view(1, 12, 1, 1))


def train_on_pixels(generator: MobileStyleGan, pixels: Pixels, ws: Tensor, minutes: float, log: TrainingLog) -> None:
    """Fit the last pointwise convolution and the head to the sampled pixels by squared error."""
    conv, head = generator.last_layer.conv2, generator.to_rgb
    optimizer = torch.optim.Adam([conv.pointwise, conv.bias, *head.parameters()])
    budget, step = Budget(minutes), 0
    while not budget.exhausted:
        optimizer.param_groups[0]["lr"] = cosine_rate(budget.progress, 1e-3)
        chosen = torch.randint(HELD_OUT, len(ws), (16,))
        loss = F.mse_loss(pixel_bands(generator, pixels, chosen, ws[chosen]), pixels.bands[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 200 == 0:
            log.write(stage="pixels", step=step, psnr_db=held_out_psnr(generator, pixels, ws), loss=loss)


@torch.no_grad()
def held_out_psnr(generator: MobileStyleGan, pixels: Pixels, ws: Tensor) -> float:
    """PSNR on [-1, 1] over the held-out images' sampled pixels; the Haar transform is orthonormal."""
    chosen = torch.arange(HELD_OUT)
    errors = (pixel_bands(generator, pixels, chosen, ws[chosen]) - pixels.bands[chosen]).square().mean(dim=(1, 2))
    return float((10 * torch.log10(4.0 / errors)).mean())


class TopLayers(nn.Module):
    """The 128 px layer and the RGB head: what the patch stage trains."""

    def __init__(self, generator: MobileStyleGan) -> None:
        super().__init__()
        self.layer = generator.last_layer
        self.to_rgb = generator.to_rgb

    def forward(self, features: Tensor, ws: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Image patch of the 64 px activations [B, 512, P, P] whose top left corner lies at `corner`."""
        size = 2 * features.shape[-1]
        window = (..., slice(2 * corner[0], 2 * corner[0] + size), slice(2 * corner[1], 2 * corner[1] + size))
        first, second = self.layer.conv1, self.layer.conv2
        x = inverse_haar(self.layer.up(features, ws[:, -3]))
        for conv, w in ((first, ws[:, -3]), (second, ws[:, -2])):
            x = F.conv2d(conv.modulation(x, w), conv.depthwise, padding=1, groups=x.shape[1])
            x = F.leaky_relu(F.conv2d(x, conv.pointwise) + (conv.noise[window] + conv.bias), LEAKY_SLOPE)
        image: Tensor = self.to_rgb(x, ws[:, -1])
        return image


def train_on_patches(
    generator: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8], minutes: float, log: TrainingLog
) -> None:
    """Unfreeze the 128 px layer: L1 + squared error + ST-LPIPS on random patches; leaves the running average."""
    top, perceptual = TopLayers(generator), StLpips.load()
    lower = compile_network(LowerLayers(generator), ws[:1])
    groups = [{"params": top.to_rgb.parameters(), "peak": 3e-4}, {"params": top.layer.parameters(), "peak": 1e-4}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    average, budget, step, reported = ema_copy(top), Budget(minutes), 0, 0.0
    while not budget.exhausted:
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(budget.progress, group["peak"])
        chosen = torch.randint(HELD_OUT, len(ws), (4,))
        y, x = (int(v) for v in torch.randint(0, 64 - PATCH + 1, (2,)))
        features = np.concatenate([lower(ws[i : i + 1].numpy())[:, :, y : y + PATCH, x : x + PATCH] for i in chosen])
        made = top(torch.from_numpy(features), ws[chosen], (y, x))
        target = image_tensor(images[chosen.numpy(), 4 * y : 4 * (y + PATCH), 4 * x : 4 * (x + PATCH)])
        inner = (..., slice(4 * MARGIN, -4 * MARGIN), slice(4 * MARGIN, -4 * MARGIN))
        made, target = made[inner], target[inner]
        loss = F.l1_loss(made, target) + 4.0 * F.mse_loss(made, target) + 0.3 * perceptual(made, target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        ema_update(average, top, 0.99, step)
        if time.monotonic() - reported > 60:
            log.write(stage="patches", step=step, minutes=budget.spent_s / 60, loss=loss)
            reported = time.monotonic()
    top.load_state_dict(average.state_dict())


def trained_tensors(generator: MobileStyleGan) -> dict[str, Tensor]:
    """The parameters of `generator` that this training owns, by their names in the generator."""
    prefixes = (f"layers.{len(generator.layers) - 1}.", "to_rgb.")
    return {name: p for name, p in generator.named_parameters() if name.startswith(prefixes)}


def load_light_generator(folder: Path | None = None) -> MobileStyleGan:
    """The light bundle's generator: published weights, our last layer and RGB head.

    folder: of fresh weights; what ships without it. Raises AssetMissing, CheckpointError.
    """
    generator = published_generator(LIGHT_256)
    ours = fitting(load_weights("generator", folder), trained_tensors(generator), "generator")
    generator.load_state_dict(ours, strict=False)
    return generator.eval().requires_grad_(False)


@torch.no_grad()
def score(generator: MobileStyleGan, ws: Tensor, images: NDArray[np.uint8]) -> dict[str, float]:
    """PSNR on [-1, 1] (mean over images) and ST-LPIPS (Alex) at 256 px against the teacher's images."""
    perceptual, psnr, distance = StLpips.load(), [], []
    network = compile_network(generator, ws[:1])
    for code, image_u8 in zip(ws, images, strict=True):
        image = image_tensor(image_u8[None])
        made = torch.from_numpy(network(code[None].numpy())).clamp(-1, 1)
        psnr.append(10 * torch.log10(4.0 / (made - image).square().mean()))
        distance.append(perceptual(made, image))
    return {"psnr_db": float(torch.stack(psnr).mean()), "st_lpips": float(torch.cat(distance).mean())}


def run(args: argparse.Namespace) -> int:
    torch.manual_seed(0)
    codes, images = teacher_targets(args.targets, HELD_OUT)
    ws = torch.from_numpy(codes)[:, : LIGHT_256.latent_rows].contiguous()
    log = TrainingLog(checkpoint_dir("generator") / "log.jsonl")
    if args.refine:
        generator = load_light_generator(args.out).requires_grad_(True)
        minutes = args.minutes
    else:
        generator, minutes = published_generator(LIGHT_256), 0.75 * args.minutes
        pixels = sample_pixels(generator, ws, images, torch.Generator().manual_seed(0))
        fit_head(generator, pixels)
        log.write(stage="closed form", psnr_db=held_out_psnr(generator, pixels, ws))
        train_on_pixels(generator, pixels, ws, args.minutes - minutes, log)
    save_fresh("generator", trained_tensors(generator), args.out)
    if minutes > 0.5:
        train_on_patches(generator, ws, images, minutes, log)
        save_fresh("generator", trained_tensors(generator), args.out)
    log.write(stage="done", **score(generator, ws[:HELD_OUT], images[:HELD_OUT]))
    return 0
