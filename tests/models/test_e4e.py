"""e4e: progressive rows, the former rows alone, and the public backbone's names."""

import pytest
import torch

from models.e4e import E4eConfig, E4eEncoder, FormerRows, ResidualUnit

TINY = E4eConfig(latent_dim=8, resolution=64, stem=4, widths=(4, 8, 8, 16), units=(1, 2, 2, 1))


@pytest.fixture(scope="module")
def encoder() -> E4eEncoder:
    torch.manual_seed(0)
    encoder = E4eEncoder(TINY).eval()
    encoder.latent_avg.normal_()
    return encoder


@pytest.fixture(scope="module")
def crop() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_a_stage_has_as_many_deltas(encoder: E4eEncoder, crop: torch.Tensor) -> None:
    full = encoder(crop) - encoder.latent_avg
    assert full.shape == (2, 14, 8)
    for stage in (0, 1, 3, 7, 13):
        ws = encoder(crop, stage=stage) - encoder.latent_avg
        assert torch.allclose(ws[:, : stage + 1], full[:, : stage + 1], atol=1e-6)
        assert torch.allclose(ws[:, stage + 1 :], full[:, :1].expand_as(ws[:, stage + 1 :]), atol=1e-6)
    assert not torch.allclose(full[:, 1:], full[:, :1].expand_as(full[:, 1:]))


@torch.no_grad()
def test_former_rows_are_the_first_ones_and_run_no_other_head(encoder: E4eEncoder, crop: torch.Tensor) -> None:
    ran = []
    handles = [
        head.register_forward_hook(lambda *_, row=row: ran.append(row)) for row, head in enumerate(encoder.styles)
    ]
    former = FormerRows(encoder, 10)(crop)
    for handle in handles:
        handle.remove()
    assert ran == list(range(10))
    assert torch.equal(former, encoder(crop)[:, :10])


@torch.no_grad()
def test_heads_see_the_crop_from_coarse_to_fine(encoder: E4eEncoder, crop: torch.Tensor) -> None:
    seen = []
    handles = [
        head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-1])) for head in encoder.styles
    ]
    encoder(crop)
    for handle in handles:
        handle.remove()
    assert seen == [4] * 3 + [8] * 4 + [16] * 7


@torch.no_grad()
def test_faces_of_a_batch_do_not_mix(encoder: E4eEncoder, crop: torch.Tensor) -> None:
    assert torch.allclose(encoder(crop)[1:], encoder(crop[1:]), atol=1e-5)


def test_names_are_those_of_the_public_backbone() -> None:
    with torch.device("meta"):
        encoder = E4eEncoder()
    names = [name for name in encoder.state_dict() if name.startswith(("input_layer.", "body."))]
    assert len(names) == 397 - 12  # without the embedding's own layer
    assert {"body.0.res_layer.5.fc1.weight", "body.3.shortcut_layer.1.running_var", "body.23.res_layer.2.weight"} <= {
        *names
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    assert shapes["styles.13.convs.10.weight"] == (512, 512, 3, 3)
    assert shapes["styles.0.linear.weight"] == (512, 512)
    assert (shapes["latlayer1.weight"], shapes["latlayer2.weight"]) == ((512, 256, 1, 1), (512, 128, 1, 1))
    assert shapes["latent_avg"] == (14, 512)


@torch.no_grad()
def test_a_unit_adds_to_its_shortcut() -> None:
    unit = ResidualUnit(4, 4, stride=2).eval()
    unit.res_layer[3].weight.zero_()
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(unit(x), x[..., ::2, ::2])
