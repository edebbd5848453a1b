"""RIGID's recurrent encoder (rigid.md, Eq. 1): compensates the image-based code and draws the spatial noise map.

It sees the last crop, this one, and the inversion and edit that were made of the last one, 12 channels in all; state
goes in and comes out as arguments, in torch and in ONNX alike.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAKY_SLOPE = 0.2


@dataclass(frozen=True)
class RecurrentConfig:
    """Widths of the light form.

    shrink: average pooling before the first convolution. stem: channels at a quarter of the crop. map_width: channels
    at 32 px. deep: channels at 16 px. hidden: channels of the ConvLSTM at 8 px. rank: width before the code offset.
    """

    former_rows: int = 10
    latent_dim: int = 512
    map_channels: int = 512
    shrink: int = 2
    stem: int = 64
    map_width: int = 96
    deep: int = 160
    hidden: int = 96
    rank: int = 96


class ConvLstm(nn.Module):
    """x [B, C, S, S], h, c [B, H, S, S] -> h, c; one 3x3 convolution, gates in the order i, f, o, g."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)
        with torch.no_grad():
            # An open forget gate at the start lets the first trainings see gradients through time.
            cast(Tensor, self.gates.bias)[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.gates(torch.cat((x, h), dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class RecurrentEncoder(nn.Module):
    """One step: four images [B, 3, 256, 256] and the state -> (dws, noise map, h, c).

    dws [B, former, 512] is w'_t on the former rows; noise [B, 512, 32, 32] is n_t; h and c [B, hidden, 8, 8].
    Seven convolutions with leaky ReLU, one ConvLSTM and the linear maps out, as in the paper, narrower. The two outputs
    start at zero, so that training starts from the base encoder's inversion.
    """

    def __init__(self, config: RecurrentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RecurrentConfig()
        c, quarter = config, 12 * 4
        self.stem = nn.Conv2d(quarter, c.stem, 3, padding=1)
        self.down32 = nn.Conv2d(c.stem, c.map_width, 3, stride=2, padding=1)
        self.mid32 = nn.Conv2d(c.map_width, c.map_width, 3, padding=1)
        self.down16 = nn.Conv2d(c.map_width, c.deep, 3, stride=2, padding=1)
        self.down8 = nn.Conv2d(c.deep, c.deep, 3, stride=2, padding=1)
        self.lstm = ConvLstm(c.deep, c.hidden)
        self.reduce = nn.Linear(c.hidden * 64, c.rank)
        self.to_dws = nn.Linear(c.rank, c.former_rows * c.latent_dim)
        self.context = nn.Conv2d(c.hidden, c.map_width, 1)
        self.join = nn.Conv2d(2 * c.map_width, c.map_width, 1)
        self.draw = nn.Conv2d(c.map_width, c.map_width, 3, padding=1)
        self.to_map = nn.Conv2d(c.map_width, c.map_channels, 1)
        for last in (self.to_dws, self.to_map):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def state_shape(self) -> tuple[int, int, int]:
        """Shape of h and of c without the batch."""
        return self.config.hidden, 8, 8

    def forward(
        self, crop_prev: Tensor, crop: Tensor, inversion_prev: Tensor, edit_prev: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Generated images overshoot what a crop can hold.
        images = torch.cat((crop_prev, crop, inversion_prev, edit_prev), dim=1).clamp(-1.0, 1.0)
        x = F.pixel_unshuffle(F.avg_pool2d(images, self.config.shrink), 2)
        x = _act(self.down32(_act(self.stem(x))))
        at_32 = _act(self.mid32(x))
        deep = _act(self.down8(_act(self.down16(at_32))))
        h, c = self.lstm(deep, h, c)
        dws = self.to_dws(_act(self.reduce(h.flatten(1))))
        context = F.interpolate(_act(self.context(h)), scale_factor=4.0, mode="bilinear", align_corners=False)
        drawn = _act(self.join(torch.cat((at_32, context), dim=1)))
        noise = self.to_map(_act(self.draw(drawn)) + drawn)
        return dws.unflatten(1, (self.config.former_rows, self.config.latent_dim)), noise, h, c


def _act(x: Tensor) -> Tensor:
    """Leaky ReLU with the gain sqrt(2) that keeps the variance, as StyleGAN2's fused one."""
    return F.leaky_relu(x, LEAKY_SLOPE) * 2**0.5
