"""How unlike a drawn code looks to a crop: what the search for a likeness (`engine/likeness.py`) minimises.

Faces are compared by what dlib's face recognition network sees of them on the way to an embedding, and by their colours
on a coarse grid. ST-LPIPS in its place brought the inversion nearer by its own measure, but left the place where edits
look natural, and a squared error of all pixels blurs.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from models.identity import FaceIdentity
from models.mobile_stylegan import MobileStyleGan

COLOUR_CELL = 8
"""Side of the cells in which colours are compared, px."""

COLOUR = 0.5
"""Weight of their squared error."""


class Unlikeness(nn.Module):
    """ws [B, L, 512], crop RGB [-1, 1] [B, 3, 256, 256] -> [B]: 0 for the same picture, about 1.4 for a code of the
    light encoder's."""

    def __init__(self, generator: MobileStyleGan, identity: FaceIdentity) -> None:
        super().__init__()
        self.generator, self.identity = generator, identity
        self.requires_grad_(False).eval()

    def forward(self, ws: Tensor, crop: Tensor) -> Tensor:
        image = self.generator(ws)
        seen, wanted = self.identity.features(image), self.identity.features(crop)
        apart = sum((a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(seen, wanted, strict=True))
        colour = F.avg_pool2d(image - crop, COLOUR_CELL).square().mean(dim=(1, 2, 3))
        return cast(Tensor, apart) + COLOUR * colour
