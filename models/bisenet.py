"""BiSeNet (Yu et al. 2018) with a ResNet-18 context path: the face parser of the paper's size.

The 19 classes are those of CelebAMask-HQ in the order of the public face-parsing checkpoint, whose parameter names the
modules keep. `CropParser` is its form in a bundle.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = (
    "background",
    "skin",
    "left brow",
    "right brow",
    "left eye",
    "right eye",
    "glasses",
    "left ear",
    "right ear",
    "earring",
    "nose",
    "mouth",
    "upper lip",
    "lower lip",
    "neck",
    "necklace",
    "cloth",
    "hair",
    "hat",
)
FACE_CLASSES = tuple(name for name in CLASSES if name not in ("background", "neck", "necklace", "cloth"))
"""RIGID's mask."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BiSeNetConfig:
    """size: side in px of the images it works on. widths: channels of ResNet-18's four stages."""

    classes: int = len(CLASSES)
    size: int = 512
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module | None = None
        if stride > 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """[B, 3, S, S] -> features at 1/8, 1/16 and 1/32."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], stride=1)
        self.layer2 = _stage(widths[0], widths[1], stride=2)
        self.layer3 = _stage(widths[1], widths[2], stride=2)
        self.layer4 = _stage(widths[2], widths[3], stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Features of `c_out` channels, each scaled by what its mean over the image calls for."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = ConvUnit(c_in, c_out)
        self.conv_atten = nn.Conv2d(c_out, c_out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(x))))


class ContextPath(nn.Module):
    """[B, 3, S, S] -> ResNet's features at 1/8, and the context at 1/8 and at 1/16."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        width = widths[1]
        self.resnet = ResNet18(widths)
        self.arm16 = AttentionRefinement(widths[2], width)
        self.arm32 = AttentionRefinement(widths[3], width)
        self.conv_head32 = ConvUnit(width, width)
        self.conv_head16 = ConvUnit(width, width)
        self.conv_avg = ConvUnit(widths[3], width, kernel=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, deepest = self.resnet(image)
        everywhere = self.conv_avg(_mean(deepest))
        at_16 = self.conv_head32(_doubled(self.arm32(deepest) + everywhere))
        at_8 = self.conv_head16(_doubled(self.arm16(sixteenth) + at_16))
        return eighth, at_8, at_16


class FeatureFusion(nn.Module):
    """Joins detail and context, both at 1/8: [B, C, H, W] twice -> [B, 2C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convblk = ConvUnit(width, width, kernel=1)
        self.conv1 = nn.Conv2d(width, width // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(width // 4, width, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat((detail, context), dim=1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(_mean(x)))))


class Classifier(nn.Module):
    """Features to class logits."""

    def __init__(self, c_in: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvUnit(c_in, width)
        self.conv_out = nn.Conv2d(width, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class BiSeNet(nn.Module):
    """image [B, 3, S, S], normalised as for ImageNet -> logits [B, K, S / 8, S / 8]; S a multiple of 32."""

    def __init__(self, config: BiSeNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BiSeNetConfig()
        width, classes = config.widths[1], config.classes
        self.cp = ContextPath(config.widths)
        self.ffm = FeatureFusion(2 * width)
        self.conv_out = Classifier(2 * width, 2 * width, classes)
        self.conv_out16 = Classifier(width, config.widths[0], classes)
        self.conv_out32 = Classifier(width, config.widths[0], classes)

    def forward(self, image: Tensor) -> Tensor:
        detail, context, _ = self.cp(image)
        logits: Tensor = self.conv_out(self.ffm(detail, context))
        return logits

    def supervised(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logits, and those of the two heads on the context alone, at 1/8 and 1/16, which only training uses."""
        detail, at_8, at_16 = self.cp(image)
        return self.conv_out(self.ffm(detail, at_8)), self.conv_out16(at_8), self.conv_out32(at_16)


class CropParser(nn.Module):
    """crop [B, 3, 256, 256], RGB [-1, 1] -> logits [B, K, size, size]: the parser as a bundle has it.

    The crop is enlarged to what the network was trained on, its answer to `size`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: BiSeNet, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(self, crop: Tensor) -> Tensor:
        image = (0.5 * crop + 0.5 - self.mean) / self.std
        return _resized(self.network(_resized(image, self.network.config.size)), self.size)


def _stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(c_in, c_out, stride), BasicBlock(c_out, c_out, 1))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _resized(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
