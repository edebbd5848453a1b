"""The light base encoder."""

import torch

from models.encoder import BaseEncoder, BaseEncoderConfig, FaceFeatures, pool


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
def test_the_last_features_are_a_thumbnail_and_the_mesh() -> None:
    """Means of 16 x 16 pixels, colour by colour, although the trunk has them shrunk and side by side."""
    crop = torch.rand(2, 3, 256, 256) * 2.0 - 1.0
    network, parts = FaceFeatures(BaseEncoderConfig.widths), BaseEncoderConfig().parts
    features = network(crop)
    assert features.shape == (2, sum(parts))
    *_, thumbnail, mesh = features.split(parts, dim=1)
    assert torch.allclose(thumbnail, torch.nn.functional.avg_pool2d(crop, 16).flatten(1), atol=1e-5)
    assert torch.equal(mesh, network.mesh(crop))


@torch.no_grad()
def test_levels_count_features_more_or_less() -> None:
    encoder = BaseEncoder(BaseEncoderConfig(latent_rows=2, rank=4)).eval()
    features = torch.rand(1, len(encoder.level))
    encoder.level.fill_(2.0)
    doubled = encoder.codes(features)
    encoder.level.fill_(1.0)
    assert torch.allclose(doubled, encoder.codes(2.0 * features), atol=1e-6)
