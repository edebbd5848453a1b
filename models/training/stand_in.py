"""Generators that encoders are trained through: frozen, in bf16, at full size or as a stand-in three times cheaper."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints.published import load_light_generator
from models.mobile_stylegan import MobileStyleGan, haar, inverse_haar
from models.training.samples import image_tensor, synthetic_pack

Synthesis = Callable[[Tensor, Tensor | None], Tensor]
"""ws [B, L, 512], noise map [B, 512, 32, 32] or None -> image [B, 3, S, S], S 256 or, from the stand-in, 128."""

STAND_IN_RESOLUTION = 128


class StandIn(nn.Module):
    """The generator up to 64 px and a linear head fitted to its images: ws, noise -> image [B, 3, 128, 128]."""

    def __init__(self, generator: MobileStyleGan) -> None:
        super().__init__()
        self.generator = generator
        self.head = nn.Conv2d(generator.config.widths[-2], 12, 1)

    def forward(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        return inverse_haar(self.head(self.generator.features(ws, noise, upto=-1)))

    @torch.no_grad()
    def fit(self, ws: Tensor, images: Tensor, ridge: float = 1e-3) -> None:
        """Least squares on images [N, 3, 128, 128] of codes ws [N, L, 512]."""
        width = self.head.in_channels + 1
        gram, cross = torch.zeros(width, width), torch.zeros(width, 12)
        for code, image in zip(ws.split(4), images.split(4), strict=True):
            x = self.generator.features(code, upto=-1).flatten(2).transpose(1, 2).reshape(-1, width - 1)
            x = torch.cat((x, torch.ones(len(x), 1)), dim=1)
            gram += x.T @ x
            cross += x.T @ haar(image).flatten(2).transpose(1, 2).reshape(-1, 12)
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, cross)
        self.head.weight.copy_(solution[:-1].T[:, :, None, None])
        cast(Tensor, self.head.bias).copy_(solution[-1])


def build_stand_in(generator: MobileStyleGan, count: int = 160) -> StandIn:
    """The stand-in with its head fitted to the generator's own images."""
    stand_in = StandIn(generator)
    codes, images = synthetic_pack(4000)
    ws = torch.from_numpy(codes[:count])[:, None].repeat(1, generator.config.latent_rows, 1)
    stand_in.fit(ws, shrink(image_tensor(images[:count]), STAND_IN_RESOLUTION))
    return stand_in


def open_synthesis(full: bool, device: torch.device) -> Synthesis:
    """The light generator, or its stand-in, ready to be trained through. Raises AssetMissing, CheckpointError."""
    generator = load_light_generator()
    return frozen(generator if full else build_stand_in(generator), device)


def frozen(network: nn.Module, device: torch.device) -> Synthesis:
    """bf16, channels last: four times the speed of f32 where the processor multiplies bf16 matrices."""
    network = network.to(device, torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_(False)

    def run(ws: Tensor, noise: Tensor | None) -> Tensor:
        noise = None if noise is None else noise.to(torch.bfloat16)
        image: Tensor = network(ws.to(torch.bfloat16), noise).float()
        return image

    return run


def shrink(image: Tensor, size: int) -> Tensor:
    """Average down to `size`, a whole fraction of the image's."""
    return F.avg_pool2d(image, image.shape[-1] // size)


def enlarge(image: Tensor, size: int = 256) -> Tensor:
    """Repeat pixels up to `size`; the recurrent encoder averages down again, so nothing is lost."""
    return F.interpolate(image, scale_factor=size // image.shape[-1], mode="nearest")
