"""The recurrent encoder's training: what the loss sees, and that it reaches what it should."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.perceptual import StLpips
from models.recurrent import RecurrentConfig, RecurrentEncoder
from models.training.augment import draw_degradation, misalign
from models.training.episodes import EpisodeSource, drift
from models.training.recurrent import Inverter, Losses, shrink, unroll


@pytest.fixture
def losses() -> Losses:
    torch.manual_seed(0)
    return Losses(StLpips("alex"), map_penalty=0.02, steady=0.5, bare=1.0)


class FixedBase(torch.nn.Module):
    """Stands for the base encoder: a code that depends on the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def features(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(2, 3))

    def codes(self, features: Tensor) -> Tensor:
        return self.scale * features.mean(1)[:, None, None].expand(-1, 4, 512)


def synthesis(ws: Tensor, noise: Tensor | None) -> Tensor:
    """Stands for the generator: a grey picture of the code, with the map's first three channels on top."""
    image = torch.tanh(ws.mean(dim=(1, 2)))[:, None, None, None].expand(-1, 3, 128, 128)
    return image if noise is None else image + torch.nn.functional.interpolate(noise[:, :3], size=128)


def test_reconstruction_is_zero_only_for_the_crop_itself(losses: Losses) -> None:
    crop = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert losses.reconstruction(shrink(crop), crop).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.reconstruction(crop, crop).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.reconstruction(shrink(crop) * 0.5, crop).item() > 0.01


def test_the_loss_reaches_both_encoders_through_time(losses: Losses) -> None:
    torch.manual_seed(0)
    narrow = RecurrentConfig(former_rows=3, map_channels=4, stem=8, map_width=8, deep=8, hidden=4, rank=4)
    recurrent = RecurrentEncoder(narrow)
    torch.nn.init.normal_(recurrent.to_dws.weight, std=0.1)
    inverter = Inverter(FixedBase(), recurrent)  # type: ignore[arg-type]
    crops = torch.rand(3, 1, 3, 256, 256) * 2 - 1
    loss = unroll(inverter, synthesis, losses, crops, torch.zeros(1, 4, 512))
    loss.backward()
    assert torch.isfinite(loss)
    for parameter in (inverter.base.scale, recurrent.stem.weight, recurrent.to_map.weight, recurrent.lstm.gates.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_episodes_have_one_degradation_and_keep_their_order() -> None:
    still = np.random.default_rng(0).integers(0, 255, (1, 256, 256, 3), np.uint8)
    clip = np.stack([np.full((256, 256, 3), 10 * t, np.uint8) for t in range(8)])
    source = EpisodeSource(still, [clip], clip_share=1.0)
    rng = np.random.default_rng(0)
    for _ in range(8):
        levels = source.draw(1, 3, rng).mean(dim=(1, 2, 3, 4))
        assert levels[0] <= levels[1] <= levels[2]
    assert EpisodeSource(still, [], 0.5).draw(2, 3, rng).shape == (3, 2, 3, 256, 256)


def test_drift_starts_at_the_still_and_moves() -> None:
    still = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    frames = drift(still, 3, np.random.default_rng(1))
    assert np.array_equal(frames[0], still)
    assert not np.array_equal(frames[1], frames[2])


def test_degradations_keep_size_and_type() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), np.uint8)
    for _ in range(12):
        seen = draw_degradation(rng).apply(misalign(image, rng), rng)
        assert seen.shape == image.shape
        assert seen.dtype == np.uint8
