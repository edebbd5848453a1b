"""e4e (Tov et al. 2021): the encoder of the paper's size, an aligned crop to its W+ code (w_t of rigid.md).

An IR-SE50 backbone gives features at 16, 32 and 64 px, joined from coarse to fine; every W+ row has a head of its own.
Row 0 is a code by itself, every other row is row 0 plus what its head adds. Parameters are named as in the public
checkpoints, without their prefix `encoder.`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import EqualLinear


@dataclass(frozen=True)
class E4eConfig:
    """Size of the encoder.

    widths, units: channels and residual units of the backbone's four stages, each of which halves the resolution.
    middle, fine: the first rows whose heads read the features at 32 and at 64 px.
    """

    latent_rows: int = 14
    latent_dim: int = 512
    resolution: int = 256
    stem: int = 64
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    units: tuple[int, int, int, int] = (3, 4, 14, 3)
    middle: int = 3
    fine: int = 7


class SqueezeExcite(nn.Module):
    """Scale each channel by what a small network makes of all channels' means."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.fc1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.fc2 = nn.Conv2d(narrow, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


class ResidualUnit(nn.Module):
    """Improved residual unit of ArcFace with squeeze and excitation: [B, C, H, W] -> [B, C', H / s, W / s]."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        if c_in == c_out:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
            nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            SqueezeExcite(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class StyleHead(nn.Module):
    """Features [B, C, S, S] -> one row [B, D]: convolutions with stride 2 down to one pixel, then a linear layer."""

    def __init__(self, c_in: int, latent_dim: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(side))):
            layers += [nn.Conv2d(c_in, latent_dim, 3, stride=2, padding=1), nn.LeakyReLU(0.01)]
            c_in = latent_dim
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(latent_dim, latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class E4eEncoder(nn.Module):
    """crop [B, 3, 256, 256], RGB [-1, 1] -> ws [B, L, 512], the average code `latent_avg` [L, 512] included."""

    latent_avg: Tensor

    def __init__(self, config: E4eConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or E4eConfig()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, config.stem, 3, padding=1, bias=False), nn.BatchNorm2d(config.stem), nn.PReLU(config.stem)
        )
        self.body, c_in = nn.Sequential(), config.stem
        for width, units in zip(config.widths, config.units, strict=True):
            for unit in range(units):
                self.body.append(ResidualUnit(c_in, width, stride=1 if unit else 2))
                c_in = width
        self.styles = nn.ModuleList(StyleHead(c_in, config.latent_dim, self._side(row)) for row in range(self.rows))
        self.latlayer1 = nn.Conv2d(config.widths[2], c_in, 1)
        self.latlayer2 = nn.Conv2d(config.widths[1], c_in, 1)
        self.register_buffer("latent_avg", torch.zeros(self.rows, config.latent_dim))

    @property
    def rows(self) -> int:
        """Rows of W+."""
        return self.config.latent_rows

    def _side(self, row: int) -> int:
        """Side in px of the features that a row's head reads."""
        c = self.config
        return c.resolution // (16 if row < c.middle else 8 if row < c.fine else 4)

    def backbone(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features after the last three stages: at 64, 32 and 16 px."""
        ends = [sum(self.config.units[: stage + 1]) for stage in range(4)]
        x, found = self.input_layer(crop), []
        for unit, layer in enumerate(self.body, 1):
            x = layer(x)
            if unit in ends[1:]:
                found.append(x)
        return found[0], found[1], found[2]

    def forward(self, crop: Tensor, rows: int | None = None, stage: int | None = None) -> Tensor:
        """rows: only the first so many, at the cost of their heads alone. stage: how many rows after row 0 have their
        delta already, the others repeat row 0; training raises it step by step, None is all of them.
        """
        rows = self.rows if rows is None else rows
        stage = rows - 1 if stage is None else stage
        fine, middle, coarse = self.backbone(crop)
        features = coarse
        code = self.styles[0](coarse)
        ws = [code]
        for row in range(1, rows):
            if row > stage:
                ws.append(code)
                continue
            if row == self.config.middle:
                features = _join(features, self.latlayer1(middle))
            elif row == self.config.fine:
                features = _join(features, self.latlayer2(fine))
            ws.append(code + self.styles[row](features))
        return torch.stack(ws, dim=1) + self.latent_avg[:rows]


class FormerRows(nn.Module):
    """crop -> the first rows of an encoder's code: what every frame but a track's first needs (Eq. 3)."""

    def __init__(self, encoder: E4eEncoder, rows: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.rows = rows

    def forward(self, crop: Tensor) -> Tensor:
        ws: Tensor = self.encoder(crop, self.rows)
        return ws


def _join(coarse: Tensor, lateral: Tensor) -> Tensor:
    """The coarse features at twice their resolution plus the lateral ones."""
    return F.interpolate(coarse, size=lateral.shape[-2:], mode="bilinear", align_corners=True) + lateral
