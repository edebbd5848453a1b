"""The refiner: what it looks at, and that it says nothing before it is trained."""

import pytest
import torch
from torch import Tensor

from models.identity import FaceIdentity
from models.refiner import POOLED, THUMBNAIL, Refiner, RefinerConfig


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(2)
    return Refiner(FaceIdentity(), RefinerConfig(latent_rows=3, rank=4)).eval()


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(2, 2, 3, 256, 256, generator=torch.Generator().manual_seed(3)) * 2.0 - 1.0


@torch.no_grad()
def test_untrained_it_says_nothing(refiner: Refiner, pictures: Tensor) -> None:
    dws = refiner(*pictures)
    assert dws.shape == (2, 3, 512)
    assert not dws.any()


@torch.no_grad()
def test_it_sees_how_the_pictures_differ_and_who_is_on_the_crop(refiner: Refiner, pictures: Tensor) -> None:
    crop, inversion = pictures
    features = refiner.differences(crop, inversion)
    assert features.shape == (2, sum(refiner.config.parts))
    apart, own, colours = features.split(refiner.config.parts, dim=1)
    seen = [refiner.differences.identity.features(image)[-1] for image in pictures]
    assert seen[0].shape[1:] == (refiner.config.seen, 2 * POOLED, 2 * POOLED)
    torch.testing.assert_close(own.mean(), seen[0].mean())
    torch.testing.assert_close(apart.mean(), (seen[0] - seen[1]).mean())
    cells = (crop - inversion).unflatten(2, (THUMBNAIL, -1)).unflatten(4, (THUMBNAIL, -1)).mean(dim=(3, 5))
    torch.testing.assert_close(colours, cells.flatten(1))
    same = refiner.differences(crop, crop)
    torch.testing.assert_close(same[:, len(apart[0]) :], torch.cat((own, 0.0 * colours), dim=1))
    assert not same[:, : len(apart[0])].any()


@torch.no_grad()
def test_an_inversion_beyond_the_range_counts_as_it_is_seen(refiner: Refiner, pictures: Tensor) -> None:
    crop, inversion = pictures
    torch.testing.assert_close(
        refiner.differences(crop, 3.0 * inversion), refiner.differences(crop, (3.0 * inversion).clamp(-1.0, 1.0))
    )


def test_the_identity_network_is_none_of_its_weights(refiner: Refiner) -> None:
    trained = refiner.trained()
    assert trained.keys() == {"centre", "level", "reduce.weight", "reduce.bias", "expand.weight", "expand.bias"}
    learning = {name for name, parameter in refiner.named_parameters() if parameter.requires_grad}
    assert learning < trained.keys()
