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
