"""ST-LPIPS, the perceptual distance of this project: LPIPS with a shift-tolerant trunk.

The number is NOT the LPIPS of the paper's tables, because the trunk and the heads were trained differently; reports
label it `st_lpips`. Trunks are AlexNet and VGG16 whose strides are replaced by a binomial blur (Ghildyal and Liu,
"Shift-tolerant Perceptual Similarity Metric", ECCV 2022). Weights: stlpips-pytorch 0.0.2, BSD-2-Clause.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.assets import asset_path
from engine.errors import CheckpointError

TrunkName = Literal["alex", "vgg"]

_ASSETS: dict[TrunkName, str] = {"alex": "st_lpips_alex", "vgg": "st_lpips_vgg"}

# The first AlexNet convolution is blurred before its ReLU, every later blur follows a max pool (ECCV 2022, Fig. 3).
_TRUNKS: dict[TrunkName, tuple[tuple[str, ...], ...]] = {
    "alex": (
        ("conv11", "blur", "relu"),
        ("max3", "blur", "conv5", "relu"),
        ("max3", "blur", "conv3", "relu"),
        ("conv3", "relu"),
        ("conv3", "relu"),
    ),
    "vgg": (
        ("conv3", "relu", "conv3", "relu"),
        ("max2", "blur", "conv3", "relu", "conv3", "relu"),
        ("max2", "blur", "conv3", "relu", "conv3", "relu", "conv3", "relu"),
        ("max2", "blur", "conv3", "relu", "conv3", "relu", "conv3", "relu"),
        ("max2", "blur", "conv3", "relu", "conv3", "relu", "conv3", "relu"),
    ),
}

STAGE_WIDTHS: dict[TrunkName, tuple[int, ...]] = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
"""Channels of each stage that `StLpips.features` returns."""

# ImageNet statistics carried from [0, 1] to [-1, 1] inputs (LPIPS v0.1): 2 mean - 1 and 2 std.
IMAGE_SHIFT = (-0.030, -0.088, -0.188)
IMAGE_SCALE = (0.458, 0.448, 0.450)


class BlurDown(nn.Module):
    """Halve the resolution after a 3x3 binomial blur: [B, C, H, W] -> [B, C, (H+1)//2 + 1, (W+1)//2 + 1].

    The border is reflected by two pixels. One depthwise convolution: two box filters do the same without a weight, and
    take five times as long on a CPU.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(taps, taps).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.kernel, stride=2, groups=len(self.kernel))


def trunk_stages(net: TrunkName, widths: Sequence[int] = ()) -> list[nn.Sequential]:
    """The five stages of a trunk with random weights. widths: channels that each of them gives; the published ones'
    without."""
    width, stages = 3, []
    for texts, wanted in zip(_TRUNKS[net], widths or STAGE_WIDTHS[net], strict=True):
        layers = []
        for text in texts:
            layers.append(_layer(text, width, wanted))
            width = wanted if text.startswith("conv") else width
        stages.append(nn.Sequential(*layers))
    return stages


def _layer(text: str, width: int, wanted: int) -> nn.Module:
    """One layer of a trunk's table: `convSIZE` to `wanted` channels, `maxSIZE` (stride 1), `blur` or `relu`."""
    if text.startswith("conv"):
        size = int(text.removeprefix("conv"))
        # AlexNet pads its 11x11 convolution by 2; all the others keep the size.
        return nn.Conv2d(width, wanted, size, padding=2 if size == 11 else size // 2)
    if text.startswith("max"):
        return nn.MaxPool2d(int(text.removeprefix("max")), stride=1)
    return nn.ReLU() if text == "relu" else BlurDown(width)


def folded_stage(stage: nn.Module) -> nn.Sequential:
    """AlexNet's first stage as one convolution and a ReLU, for images unshuffled by 2: [B, 12, H / 2, W / 2].

    The convolution and the binomial blur of stride 2 after it are both linear. Equal but for the border, where the blur
    reflects what this convolution sees as black.
    """
    assert isinstance(stage, nn.Sequential)
    conv, blur = cast(nn.Conv2d, stage[0]), cast(BlurDown, stage[1])
    taps = blur.kernel[:1].to(conv.weight.dtype)
    # 11 taps and 3 make 13, from 4 pixels before; one more makes 7 cells of 2 pixels, from 2 cells before.
    wide = F.conv2d(conv.weight.flatten(0, 1)[:, None], taps, padding=2).view(*conv.weight.shape[:2], 13, 13)
    cells = F.pixel_unshuffle(F.pad(wide, (0, 1, 0, 1)), 2)
    folded = nn.Conv2d(cells.shape[1], len(cells), cells.shape[-1], padding=2)
    folded.load_state_dict({"weight": cells, "bias": cast(Tensor, conv.bias)})
    return nn.Sequential(folded.requires_grad_(False), nn.ReLU()).to(memory_format=torch.channels_last)


class StLpips(nn.Module):
    """Perceptual distance between two images; its weights are frozen, gradients reach the images.

    Built with random weights; `load` gives the published ones.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: TrunkName = "alex") -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(IMAGE_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(IMAGE_SCALE).view(1, 3, 1, 1))
        self.stages = nn.ModuleList(trunk_stages(net))
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, kernel_size=1, bias=False) for width in STAGE_WIDTHS[net])
        self.cell = 1  # side of the cells of pixels that the first stage takes as channels
        # Channels last halves the time on a CPU; `features` brings the images into the same layout.
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path | None = None, net: TrunkName = "alex") -> Self:
        """The published weights of `net`, read from `path` or else from the asset cache.

        Raises CheckpointError when the file's tensors are not those of `net`, AssetMissing when nothing is cached.
        """
        path = asset_path(_ASSETS[net]) if path is None else path
        distance = cls(net)
        published = torch.load(path, map_location="cpu", weights_only=True)
        distance.load_state_dict(_state_from_published(published, distance, path))
        return distance

    def fold(self) -> Self:
        """Takes `folded_stage` for the first stage, with AlexNet only: a sixth faster, for trainings; scores use the
        published network. Returns itself."""
        self.stages[0] = folded_stage(self.stages[0])
        self.cell = 2
        return self

    def features(self, image: Tensor) -> list[Tensor]:
        """The trunk's five stages, after their ReLU and not normalised.

        image: [B, 3, H, W], RGB in [-1, 1], sides at least 32. AlexNet at 128 px gives 64 channels at 62 px, 192 at 31,
        384, 256 and 256 at 16; VGG16 64, 128, 256, 512 and 512 channels from the full size down.
        """
        x = (image - self.shift) / self.scale
        x = F.pixel_unshuffle(x, self.cell).contiguous(memory_format=torch.channels_last)
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        return stages

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair, [B]: 0 for equal images. a, b: [B, 3, H, W], RGB in [-1, 1]."""
        return self.distance(self.features(a), self.features(b))

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance [B] of two lists of stages from `features`; lets a fixed image's stages be computed once."""
        total = a[0].new_zeros(())
        for stage_a, stage_b, head in zip(a, b, self.heads, strict=True):
            difference = _unit_channels(stage_a) - _unit_channels(stage_b)
            total = total + head(difference.square()).mean(dim=(1, 2, 3))
        return total


def perceptual_distance(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """ST-LPIPS of image pairs, [B], as trainings take it: in bf16 and folded. Raises what `StLpips.load` does."""
    network = StLpips.load().fold().to(device, torch.bfloat16).to(memory_format=torch.channels_last)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = network(a.bfloat16(), b.bfloat16())
        return found.float()

    return distance


def _unit_channels(features: Tensor) -> Tensor:
    """Scale each pixel's channel vector to unit length; the 1e-20 keeps the gradient of a zero vector at zero."""
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-20)


def _state_from_published(published: Mapping[str, Tensor], net: StLpips, path: Path) -> dict[str, Tensor]:
    """Rename `net.slice{i}.{n}.*` and `lin{i}.model.1.weight` to our state; convolutions correspond in their order.

    The blur kernels and image statistics in the file are constants here. Raises CheckpointError on any mismatch.
    """
    ours = net.state_dict()
    state = {"shift": ours["shift"], "scale": ours["scale"]}
    for index in range(len(net.heads)):
        prefix = f"net.slice{index + 1}."
        theirs = [key for key in published if key.startswith(prefix) and not key.endswith(".filt")]
        mine = [key for key in ours if key.startswith(f"stages.{index}.")]
        if len(theirs) != len(mine) or f"lin{index}.model.1.weight" not in published:
            raise CheckpointError(
                f"{path}: no ST-LPIPS stage {index} of this trunk; give the file of the trunk asked for"
            )
        state |= {key: published[name] for key, name in zip(mine, theirs, strict=True)}
        state[f"heads.{index}.weight"] = published[f"lin{index}.model.1.weight"]
    for key, value in state.items():
        if value.shape != ours[key].shape:
            raise CheckpointError(f"{path}: {key} is {tuple(value.shape)}; {tuple(ours[key].shape)} was expected")
    return state
