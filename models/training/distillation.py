"""What the generator's training minimises: its patches against the teacher's, and what a discriminator makes of them.

Only the highest layers and the RGB head are trained, from activations of the frozen layers below them.
"""

import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.compiled import compile_network
from models.discriminator import Discriminator, r1_penalty
from models.mobile_stylegan import LATENT_DIM, LEAKY_SLOPE, Layer, MobileStyleGan, SeparableConv
from models.training.losses import Distance

SQUARED_WEIGHT = 4.0
PERCEPTUAL_WEIGHT = 0.3
R1_EVERY = 8
"""Steps from one gradient penalty to the next, which then counts as often (lazy: Karras et al. 2020, Sec. 4.1)."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Windows P x P of the frozen layers' activations [B, C, P, P], codes [B, L, 512], the windows' top left corners
[B, 2] as (y, x), and the teacher's image of them [B, 3, T, T] in [-1, 1], T at most what the windows make: what lies
around it is not compared, because a window's border sees zero padding that the whole image does not have."""


class LowerLayers(nn.Module):
    """ws [B, L, 512] -> activations before layer `first`, [B, C, 4 << first, 4 << first]."""

    def __init__(self, generator: MobileStyleGan, first: int) -> None:
        super().__init__()
        self.generator, self.first = generator, first

    def forward(self, ws: Tensor) -> Tensor:
        return self.generator.features(ws, upto=self.first)


def frozen_features(generator: MobileStyleGan, first: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """`LowerLayers` without gradients, on OpenVINO on a CPU; for any thread."""
    network = LowerLayers(generator, first)
    if device.type == "cuda":
        network = network.to(device)

        def run(ws: Tensor) -> Tensor:
            with torch.no_grad():
                features: Tensor = network(ws.to(device))
            return features

        return run
    compiled = compile_network(network, torch.zeros(1, generator.config.latent_rows, LATENT_DIM))
    one_at_a_time = threading.Lock()

    def infer(ws: Tensor) -> Tensor:
        with one_at_a_time:
            return torch.cat([torch.from_numpy(compiled(code.numpy())) for code in ws.split(1)])

    return infer


def windows(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Of each image [B, C, H, W] the square at its corner (y, x): [B, C, size, size]. corners: int64 [B, 2]."""
    cut = [image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners.tolist(), strict=True)]
    return torch.stack(cut)


class TopLayers(nn.Module):
    """The layers from `first` on and the RGB head: what is trained. Parameters have their names in the generator."""

    def __init__(self, generator: MobileStyleGan, first: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(i): generator.layers[i] for i in range(first, len(generator.layers))})
        self.to_rgb = generator.to_rgb
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.endswith(".noise"))

    def forward(self, x: Tensor, ws: Tensor, corners: Tensor | None = None) -> Tensor:
        """Image of windows [B, C, P, P] of the activations below, at `corners` [B, 2], or of all of them."""
        for name, layer in self.layers.items():
            assert isinstance(layer, Layer)
            first, second = ws[:, 2 * int(name) + 1], ws[:, 2 * int(name) + 2]
            corners = None if corners is None else 2 * corners
            x = _convolve(layer.conv1, layer.doubled(x, first), corners)
            x = _convolve(layer.conv2, layer.conv2.modulation(x, second), corners)
        image: Tensor = self.to_rgb(x, ws[:, -1])
        return image

    def compared(self, batch: Batch) -> Tensor:
        """Its image of a batch's windows, cut to the teacher's, in float32."""
        features, ws, corners, target = batch
        made = self(features, ws, corners)
        margin = (made.shape[-1] - target.shape[-1]) // 2
        return F.pad(made, (-margin,) * 4).float()


def _convolve(conv: SeparableConv, x: Tensor, corners: Tensor | None) -> Tensor:
    """`SeparableConv.convolve` of windows, with the constant noise of their places."""
    if corners is None or conv.noise is None:
        return conv.convolve(x)
    noise = windows(conv.noise.expand(len(x), -1, -1, -1), corners, x.shape[-1])
    x = F.conv2d(x, conv.depthwise, padding=1, groups=x.shape[1])
    return F.leaky_relu(F.conv2d(x, conv.pointwise) + noise + conv.bias, LEAKY_SLOPE)


def shifted(images: Tensor) -> Tensor:
    """All of them rolled by 0 or 1 px each way, from torch's generator.

    The critic's wavelet cells then lie across the generator's half of the time, so that it sees the pattern that a
    generator's cells would otherwise leave unpunished.
    """
    y, x = (int(v) for v in torch.randint(2, (2,)))
    return images.roll((y, x), dims=(2, 3))


class Distillation(nn.Module):
    """L1 + squared error + ST-LPIPS, and the adversarial weight times the non-saturating loss."""

    def __init__(self, top: TopLayers, distance: Distance, critic: nn.Module, adversarial: float) -> None:
        super().__init__()
        self.top = top
        self._frozen = (critic,)
        self._distance, self._adversarial = distance, adversarial

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        made, target = self.top.compared(batch), batch[-1]
        l1, perceptual = F.l1_loss(made, target), self._distance(made, target).mean()
        loss = l1 + SQUARED_WEIGHT * F.mse_loss(made, target) + PERCEPTUAL_WEIGHT * perceptual
        if not self._adversarial:
            return loss, {"l1": l1, "st_lpips": perceptual}
        real = F.softplus(-self._frozen[0](shifted(made)).float()).mean()
        return loss + self._adversarial * real, {"l1": l1, "st_lpips": perceptual, "realness": real}


class Criticism(nn.Module):
    """The discriminator's non-saturating loss, with R1 on the teacher's images in every `R1_EVERY`th step."""

    steps: Tensor

    def __init__(self, critic: Discriminator, top: TopLayers, r1: float) -> None:
        super().__init__()
        self.critic = critic
        self._frozen = (top,)
        self._r1 = r1
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            images = shifted(torch.cat((batch[-1], self._frozen[0].compared(batch))))
        on_real, on_made = self.critic(images).float().chunk(2)
        loss = F.softplus(-on_real).mean() + F.softplus(on_made).mean()
        scalars = {"real": on_real.mean(), "made": on_made.mean()}
        if self.steps % R1_EVERY == 0:
            scalars["r1"] = r1_penalty(self.critic, images[: len(images) // 2])
            loss = loss + 0.5 * self._r1 * R1_EVERY * scalars["r1"]
        self.steps += 1
        return loss, scalars
