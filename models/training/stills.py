"""Held-out stills during a training: the light generator, scores, and sheets to look at."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints.published import load_light_generator
from models.compiled import compile_network
from models.identity import FaceIdentity
from models.mobile_stylegan import LATENT_DIM, haar
from models.perceptual import StLpips


class Generator:
    """ws [1, L, 512], noise map [1, C, 32, 32] or None -> image [1, 3, 256, 256]; for scores, without gradients.

    On OpenVINO, or in torch where that has a graphics card; what goes in and out lies on the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        network = load_light_generator()
        no_map = torch.zeros(1, network.config.widths[2], 32, 32)
        self._device, self._no_map = device, no_map
        self._run: Callable[[Tensor, Tensor], Tensor] = network.to(device)
        if device.type == "cpu":
            run = compile_network(network, (torch.zeros(1, network.config.latent_rows, LATENT_DIM), no_map))
            self._run = lambda ws, noise: torch.from_numpy(run(ws.numpy(), noise.numpy()))

    @torch.no_grad()
    def __call__(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        noise = self._no_map if noise is None else noise
        return self._run(ws.to(self._device), noise.to(self._device)).cpu()


@dataclass(frozen=True)
class StillJudge:
    """Scores inversions of stills. device: where its networks lie."""

    distance: StLpips
    identity: FaceIdentity
    device: torch.device

    @classmethod
    def load(cls, device: torch.device) -> Self:
        """With the published networks; raises AssetMissing, CheckpointError."""
        return cls(StLpips.load().to(device), FaceIdentity.load().to(device), device)

    def scores(self, made: Tensor, faces: Tensor) -> dict[str, float]:
        """Means over images [N, 3, 256, 256]: MSE x100 on [-1, 1], ST-LPIPS, distance of dlib's embeddings."""
        distances, people = [], []
        made, faces = made.to(self.device), faces.to(self.device)
        for ours, theirs in zip(made.split(1), faces.split(1), strict=True):
            distances.append(self.distance(ours, theirs))
            people.append((self.identity(ours.clamp(-1.0, 1.0)) - self.identity(theirs)).norm(dim=1))
        means = {"mse_x100": 100.0 * F.mse_loss(made, faces), "st_lpips": torch.cat(distances).mean()}
        return {name: float(mean) for name, mean in (means | {"dlib": torch.cat(people).mean()}).items()}


@torch.no_grad()
def likeness(made: Iterable[Tensor], wanted: Iterable[Tensor], judge: StLpips) -> dict[str, float]:
    """Means over images [1, 3, S, S]: PSNR on [-1, 1] and ST-LPIPS of what a generator made of the wanted ones.

    detail: energy of the finest Haar bands as a share of the wanted images'; less than 1 is too soft.
    """
    psnr, distance, detail = [], [], []
    for ours, theirs in zip(made, wanted, strict=True):
        psnr.append(10 * torch.log10(4.0 / (ours - theirs).square().mean()))
        distance.append(judge(ours, theirs))
        detail.append(torch.stack([haar(image)[:, 3:].square().mean() for image in (ours, theirs)]))
    finest, expected = torch.stack(detail).mean(dim=0)
    means = {"psnr_db": torch.stack(psnr).mean(), "st_lpips": torch.cat(distance).mean(), "detail": finest / expected}
    return {name: float(mean) for name, mean in means.items()}


def sheet(*rows: Tensor) -> Tensor:
    """Rows of images [N, 3, S, S] below each other, as one image [3, H, W] in [-1, 1]."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(-1.0, 1.0)
