"""RIGID's recurrent encoder (rigid.md, Eq. 1): compensates the image-based code and draws the spatial noise map.

It sees the last crop, this one, and the inversion and edit that were made of the last one, 12 channels in all; state
goes in and comes out as arguments, in torch and in ONNX alike. One class serves both sizes, `PAPER` and `LIGHT`.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Blur, activate, shrink_kernel

CROP_RESOLUTION = 256
MAP_RESOLUTION = 32
IMAGE_CHANNELS = 12

Shape = tuple[int, int, int]


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
    on the code offset. remembered: the largest share of its cells that the ConvLSTM takes over from frame to frame;
    trained on a few frames at a time, cells that add up for ever drift over minutes. map_width: channels of the small
    network that draws the map, which also sees the ConvLSTM; its memory takes the place of the ConvLSTM's own output h
    in the state. None: the activations at 32 px are the map.
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
    remembered: float = 0.98
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
    def state_shapes(self) -> tuple[Shape, Shape]:
        """Shapes of h and of c without the batch."""
        cell = self.hidden, self.sides[-1], self.sides[-1]
        return cell if self.map_width is None else (self.map_width, MAP_RESOLUTION, MAP_RESOLUTION), cell

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
    remembered=1.0,
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
    """x [B, C, S, S], h, c [B, H, S, S] -> h, c; one 3x3 convolution, gates in the order i, f, o, g.

    looped: the gates see h; else h may be None. remembered: what an open forget gate lets through, at most 1.
    """

    def __init__(self, channels: int, hidden: int, looped: bool = True, remembered: float = 1.0) -> None:
        super().__init__()
        self.remembered = remembered
        self.gates = nn.Conv2d(channels + hidden * looped, 4 * hidden, 3, padding=1)
        with torch.no_grad():
            # An open forget gate at the start lets the first trainings see gradients through time.
            cast(Tensor, self.gates.bias)[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor, h: Tensor | None, c: Tensor) -> tuple[Tensor, Tensor]:
        seen = x if h is None else torch.cat((x, h), dim=1)
        i, f, o, g = self.gates(seen).chunk(4, dim=1)
        c = self.remembered * torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class MapHead(nn.Module):
    """Draws the noise map [B, C, 32, 32] from the activations at 32 px, the ConvLSTM's output, and what it drew before.

    m_t = keep . m_{t-1} + (1 - keep) . drawn + correction; m_t [B, width, 32, 32] is the memory, and the map is linear
    in it. keep is a gate for each place and channel. The correction sees the images themselves, above all what the last
    inversion lacks of its crop: added up over frames it removes what a single glance gets wrong, as an integrating
    controller does. A new head draws nothing, corrects nothing and keeps half.
    """

    def __init__(self, c_in: int, fine: tuple[int, int], hidden: int, width: int, channels: int) -> None:
        """fine: channels and side of the images as the first convolution gets them."""
        super().__init__()
        cells = fine[1] // MAP_RESOLUTION
        self.context = nn.Conv2d(hidden, width, 1)
        self.join = nn.Conv2d(c_in + width, width, 1)
        self.draw = nn.Conv2d(width, width, 3, padding=1)
        self.to_map = nn.Conv2d(width, channels, 1)
        self.recall = nn.Conv2d(width, width, 1, bias=False)
        self.keep = nn.Conv2d(width, width, 1)
        self.correct = nn.Conv2d(width, width, 1)
        self.glance = nn.Conv2d(fine[0], width, cells, stride=cells, bias=False)
        for layer in (self.to_map, self.recall, self.keep, self.correct, self.glance):
            _zero(layer)

    def forward(self, at_32: Tensor, said: Tensor, fine: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The noise map and the memory after it. said: the ConvLSTM's output."""
        joined = activate(self.joined(at_32, said) + self.recall(memory))
        detail = activate(self.draw(joined))
        keep = torch.sigmoid(self.keep(joined))
        drawn = detail + joined
        memory = drawn + keep * (memory - drawn) + self.correct(detail) + self.glance(fine)
        return self.to_map(memory), memory

    def joined(self, at_32: Tensor, said: Tensor) -> Tensor:
        """What is seen of this frame, before the activation, [B, width, 32, 32]."""
        enlargement = float(MAP_RESOLUTION // said.shape[-1])
        context = activate(self.context(said))
        context = F.interpolate(context, scale_factor=enlargement, mode="bilinear", align_corners=False)
        joined: Tensor = self.join(torch.cat((at_32, context), dim=1))
        return joined


class Seen(NamedTuple):
    """What is seen of one frame alone: the last activations, those at 32 px, and what the first convolution gets."""

    deep: Tensor
    at_32: Tensor
    fine: Tensor


class RecurrentEncoder(nn.Module):
    """One step: four images [B, 3, 256, 256] and the state -> (dws, noise map, h, c).

    dws [B, former, 512] is w'_t on the former rows; noise [B, 512, 32, 32] is n_t; h and c have the shapes that
    `RecurrentConfig.state_shapes` tells.
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
        self.lstm = ConvLstm(c_in, config.hidden, looped=config.map_width is None, remembered=config.remembered)
        seen = config.hidden * config.sides[-1] ** 2
        self.reduce = None if config.rank is None else nn.Linear(seen, config.rank)
        self.to_dws = nn.Linear(config.rank or seen, config.former_rows * config.latent_dim)
        _zero(self.to_dws)
        self.map_head = None
        if config.map_width is not None:
            at_32 = config.convs[config.map_conv].channels
            fine = len(shrink), CROP_RESOLUTION // config.pool // config.unshuffle
            self.map_head = MapHead(at_32, fine, config.hidden, config.map_width, config.map_channels)

    def empty_state(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """h and c of a track that begins, for a batch like that of `like`."""
        h, c = (like.new_zeros(len(like), *shape) for shape in self.config.state_shapes)
        return h, c

    def forward(
        self, crop_prev: Tensor, crop: Tensor, inversion_prev: Tensor, edit_prev: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.step(self.look(torch.cat((crop_prev, crop, inversion_prev, edit_prev), dim=1)), h, c)

    def step(self, seen: Seen, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From what is seen of a frame, and the state, to (dws, noise map, h, c)."""
        if self.map_head is None:
            h, c = self.lstm(seen.deep, h, c)
            return self.offset(h), seen.at_32, h, c
        said, c = self.lstm(seen.deep, None, c)
        noise, h = self.map_head(seen.at_32, said, seen.fine, h)
        return self.offset(said), noise, h, c

    def look(self, images: Tensor) -> Seen:
        """images [B, 12, 256, 256]."""
        # Generated images overshoot what a crop can hold.
        x = images.clamp(-1.0, 1.0)
        x = at_32 = fine = F.conv2d(x, self.shrink, stride=self.shrink.shape[-1]) if self.shrink.shape[-1] > 1 else x
        for i, conv in enumerate(self.convs):
            x = activate(conv(x))
            if i == self.config.map_conv:
                at_32 = x
        return Seen(x, at_32, fine)

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
