"""RIGID's recurrent encoder (rigid.md, Eq. 1): compensates the image-based code and draws the spatial noise map.

It sees the last crop, this one, and the inversion and edit that were made of the last one, 12 channels in all; state
goes in and comes out as arguments, in torch and in ONNX alike. One class serves both sizes, `PAPER` and `LIGHT`.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Blur, activate, shrink_kernel

CROP_RESOLUTION = 256
MAP_RESOLUTION = 32
IMAGE_CHANNELS = 12


@dataclass(frozen=True)
class ConvSpec:
    """One convolution: channels out, kernel, stride."""

    channels: int
    kernel: int = 3
    stride: int = 1


@dataclass(frozen=True)
class RecurrentConfig:
    """Size of the encoder; the defaults are the light form.

    pool, unshuffle: what the crops go through before the first convolution, average pooling and space to channels.
    convs: the last one at 32 px is where the noise map is taken. blur: low-pass before every stride of 2. hidden:
    channels of the ConvLSTM. rank: width before the code offset, None for a single linear layer. activated: leaky ReLU
    on the code offset. map_width: channels of the small network that draws the map, which also sees the ConvLSTM;
    None: the activations at 32 px are the map.
    """

    former_rows: int = 10
    latent_dim: int = 512
    map_channels: int = 512
    pool: int = 2
    unshuffle: int = 2
    convs: tuple[ConvSpec, ...] = (
        ConvSpec(64),
        ConvSpec(96, stride=2),
        ConvSpec(96),
        ConvSpec(160, stride=2),
        ConvSpec(160, stride=2),
    )
    blur: bool = False
    hidden: int = 96
    rank: int | None = 96
    activated: bool = False
    map_width: int | None = 96

    def __post_init__(self) -> None:
        assert MAP_RESOLUTION in self.sides, "no convolution at the noise map's resolution"
        assert self.map_width is not None or self.convs[self.map_conv].channels == self.map_channels

    @property
    def sides(self) -> tuple[int, ...]:
        """Resolution in px after each convolution."""
        side, sides = CROP_RESOLUTION // self.pool // self.unshuffle, []
        for conv in self.convs:
            side //= conv.stride
            sides.append(side)
        return tuple(sides)

    @property
    def map_conv(self) -> int:
        """Index of the last convolution at 32 px."""
        return max(i for i, side in enumerate(self.sides) if side == MAP_RESOLUTION)


LIGHT = RecurrentConfig()

PAPER = RecurrentConfig(
    pool=1,
    unshuffle=1,
    convs=(
        ConvSpec(128, kernel=1),
        ConvSpec(256, stride=2),
        ConvSpec(512, stride=2),
        ConvSpec(512, stride=2),
        ConvSpec(512, stride=2),
        ConvSpec(512, stride=2),
        ConvSpec(512, stride=2),
    ),
    blur=True,
    hidden=512,
    rank=None,
    activated=True,  # as in the authors' release, so that its weights mean the same here
    map_width=None,
)


class BlurredConv(nn.Conv2d):
    """A low-pass and a convolution with stride 2: [B, C, H, W] -> [B, C', H / 2, W / 2]."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__(c_in, c_out, kernel, stride=2)
        self.blur = Blur(c_in, pad=(kernel + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.blur(x))


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


class MapHead(nn.Module):
    """Draws the noise map from the activations at 32 px and the ConvLSTM's output h: [B, C, 32, 32].

    It starts at zero.
    """

    def __init__(self, c_in: int, hidden: int, width: int, channels: int) -> None:
        super().__init__()
        self.context = nn.Conv2d(hidden, width, 1)
        self.join = nn.Conv2d(c_in + width, width, 1)
        self.draw = nn.Conv2d(width, width, 3, padding=1)
        self.to_map = nn.Conv2d(width, channels, 1)
        _zero(self.to_map)

    def forward(self, at_32: Tensor, h: Tensor) -> Tensor:
        enlargement = float(MAP_RESOLUTION // h.shape[-1])
        context = activate(self.context(h))
        context = F.interpolate(context, scale_factor=enlargement, mode="bilinear", align_corners=False)
        drawn = activate(self.join(torch.cat((at_32, context), dim=1)))
        noise: Tensor = self.to_map(activate(self.draw(drawn)) + drawn)
        return noise


class RecurrentEncoder(nn.Module):
    """One step: four images [B, 3, 256, 256] and the state -> (dws, noise map, h, c).

    dws [B, former, 512] is w'_t on the former rows; noise [B, 512, 32, 32] is n_t; h and c [B, hidden, S, S].
    Convolutions with leaky ReLU, one ConvLSTM and the linear maps out. What the linear maps say starts at zero, so that
    training starts from the base encoder's inversion.
    """

    shrink: Tensor

    def __init__(self, config: RecurrentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LIGHT
        shrink = shrink_kernel(IMAGE_CHANNELS, config.pool, config.unshuffle)
        self.register_buffer("shrink", shrink, persistent=False)
        self.convs, c_in = nn.ModuleList(), len(shrink)
        for spec in config.convs:
            self.convs.append(_conv(c_in, spec, config.blur))
            c_in = spec.channels
        self.lstm = ConvLstm(c_in, config.hidden)
        seen = config.hidden * config.sides[-1] ** 2
        self.reduce = None if config.rank is None else nn.Linear(seen, config.rank)
        self.to_dws = nn.Linear(config.rank or seen, config.former_rows * config.latent_dim)
        _zero(self.to_dws)
        self.map_head = None
        if config.map_width is not None:
            at_32 = config.convs[config.map_conv].channels
            self.map_head = MapHead(at_32, config.hidden, config.map_width, config.map_channels)

    def state_shape(self) -> tuple[int, int, int]:
        """Shape of h and of c without the batch."""
        side = self.config.sides[-1]
        return self.config.hidden, side, side

    def forward(
        self, crop_prev: Tensor, crop: Tensor, inversion_prev: Tensor, edit_prev: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        deep, at_32 = self.look(torch.cat((crop_prev, crop, inversion_prev, edit_prev), dim=1))
        h, c = self.lstm(deep, h, c)
        noise = at_32 if self.map_head is None else self.map_head(at_32, h)
        return self.offset(h), noise, h, c

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen of one frame alone: images [B, 12, 256, 256] -> the last activations, and those at 32 px."""
        # Generated images overshoot what a crop can hold.
        x = images.clamp(-1.0, 1.0)
        x = at_32 = F.conv2d(x, self.shrink, stride=self.shrink.shape[-1]) if self.shrink.shape[-1] > 1 else x
        for i, conv in enumerate(self.convs):
            x = activate(conv(x))
            if i == self.config.map_conv:
                at_32 = x
        return x, at_32

    def offset(self, h: Tensor) -> Tensor:
        """w'_t [B, former, 512] from the ConvLSTM's output."""
        x = h.flatten(1)
        x = self.to_dws(x if self.reduce is None else activate(self.reduce(x)))
        x = activate(x) if self.config.activated else x
        return x.unflatten(1, (self.config.former_rows, self.config.latent_dim))


def _conv(c_in: int, spec: ConvSpec, blur: bool) -> nn.Conv2d:
    if blur and spec.stride == 2:
        return BlurredConv(c_in, spec.channels, spec.kernel)
    return nn.Conv2d(c_in, spec.channels, spec.kernel, spec.stride, padding=spec.kernel // 2)


def _zero(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
