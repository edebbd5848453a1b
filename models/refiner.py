"""What the base encoder missed of a person, told from its own inversion (a step like ReStyle's).

The base encoder is fast and learned people from a few thousand photographs: of somebody new it keeps pose and light but
draws a cousin. dlib's face recognition network has seen three million faces. Where it sees the crop and the inversion
differ, a linear map says how W+ has to move, and the person stays that person under an edit. What was missed of a
person is much the same on all frames: the loop asks on the first, and now and then for a mean that follows the light.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.identity import FaceIdentity
from models.mobile_stylegan import LATENT_DIM, LIGHT_256

POOLED = 4
"""Side of the grid on which the identity network's features are compared; they come at 8 x 8."""

THUMBNAIL = 16
"""Side of the picture in which colours are compared."""


@dataclass(frozen=True)
class RefinerConfig:
    """latent_rows: W+ rows of the generator. rank: width between the two linear maps. seen: channels of the identity
    network's features."""

    latent_rows: int = LIGHT_256.latent_rows
    latent_dim: int = LATENT_DIM
    rank: int = 96
    seen: int = 128

    @property
    def parts(self) -> tuple[int, int, int]:
        """How many numbers the maps see: of both pictures' features the difference, the crop's own, and of the
        thumbnails the difference."""
        return self.seen * POOLED**2, self.seen * POOLED**2, 3 * THUMBNAIL**2


class Differences(nn.Module):
    """crop and its inversion, RGB [-1, 1] [B, 3, 256, 256] -> features [B, F], F the sum of `RefinerConfig.parts`."""

    def __init__(self, identity: FaceIdentity) -> None:
        super().__init__()
        self.identity = identity

    def forward(self, crop: Tensor, inversion: Tensor) -> Tensor:
        inversion = inversion.clamp(-1.0, 1.0)
        wanted, seen = (self._features(image) for image in (crop, inversion))
        colours = F.avg_pool2d(crop - inversion, crop.shape[-1] // THUMBNAIL).flatten(1)
        return torch.cat((wanted - seen, wanted, colours), dim=1)

    def _features(self, crop: Tensor) -> Tensor:
        """The last of `FaceIdentity.features`, pooled and flat.

        Convolutions cut out the chip: for Turing TensorRT for RTX has no products of matrices in float32.
        """
        down, across = self.identity.down, self.identity.across.T
        rows = F.conv2d(crop.transpose(1, 2), down[:, :, None, None])
        chip = F.conv2d(rows.permute(0, 3, 2, 1), across[:, :, None, None]).permute(0, 2, 3, 1)
        return F.avg_pool2d(self.identity.features_of_chips(chip)[-1], 2).flatten(1)


class Refiner(nn.Module):
    """crop and its inversion, RGB [-1, 1] [B, 3, 256, 256] -> dws [B, L, 512], to be added to the encoder's codes.

    centre, level [F]: what is taken from each feature and what the rest is multiplied by, so that all spread alike.
    """

    centre: Tensor
    level: Tensor

    def __init__(self, identity: FaceIdentity, config: RefinerConfig | None = None) -> None:
        """Says 0 until it is trained."""
        super().__init__()
        self.config = config = config or RefinerConfig()
        self.differences = Differences(identity)
        self.register_buffer("centre", torch.zeros(sum(config.parts)))
        self.register_buffer("level", torch.ones(sum(config.parts)))
        self.reduce = nn.Linear(sum(config.parts), config.rank)
        self.expand = nn.Linear(config.rank, config.latent_rows * config.latent_dim)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def moves(self, features: Tensor, dropped: float = 0.0) -> Tensor:
        """features [B, F] -> dws [B, L, 512]. dropped: share of the features that are left out."""
        known = F.dropout((features - self.centre) * self.level, dropped)
        dws: Tensor = self.expand(self.reduce(known))
        return dws.unflatten(1, (self.config.latent_rows, self.config.latent_dim))

    def forward(self, crop: Tensor, inversion: Tensor) -> Tensor:
        return self.moves(self.differences(crop, inversion))

    def trained(self) -> dict[str, Tensor]:
        """What is trained of it: all but the identity network."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("differences.")}
