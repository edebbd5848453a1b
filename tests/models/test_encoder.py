"""The light base encoder."""

import torch

from models.encoder import BaseEncoder, BaseEncoderConfig, pool


def test_code_shape() -> None:
    encoder = BaseEncoder(BaseEncoderConfig(latent_rows=3, rank=4)).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(2, 3, 256, 256)).shape == (2, 3, 512)


def test_pool_covers_every_pixel_and_keeps_the_mean_of_a_constant() -> None:
    x = torch.full((1, 2, 17, 17), 3.0)
    assert pool(x, 6).shape == (1, 2, 6, 6)
    assert torch.allclose(pool(x, 6), torch.full((1, 2, 6, 6), 3.0))
    corner = torch.zeros(1, 1, 17, 17)
    corner[..., -1, -1] = 1.0
    assert pool(corner, 6)[0, 0, -1, -1] > 0


@torch.no_grad()
def test_detail_tells_places_apart_that_pooling_does_not() -> None:
    """Swapping two neighbouring cells of the trunk's maps within one pooled window changes detail alone."""
    torch.manual_seed(0)
    encoder = BaseEncoder(BaseEncoderConfig(latent_rows=2, rank=4)).eval()
    torch.nn.init.normal_(encoder.correct.weight)
    crop = torch.rand(1, 3, 256, 256)
    found = encoder.features.seen(crop)
    swapped = [stage.clone() for stage in found]
    for stage in swapped:
        stage[..., 8, [4, 5]] = stage[..., 8, [5, 4]]
    features, detail = encoder.features.pooled(crop, found), encoder.detail(found)
    assert torch.allclose(encoder.features.pooled(crop, swapped), features, atol=1e-6)
    assert not torch.allclose(encoder.detail(swapped), detail)
    assert torch.equal(encoder(crop), encoder.codes(features, detail))
    assert not torch.allclose(encoder.codes(features), encoder.codes(features, detail))
