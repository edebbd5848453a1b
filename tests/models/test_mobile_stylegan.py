"""The generator against the published one, run by OpenVINO from its own file; and its parts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import CheckpointError
from engine.openvino_core import openvino_core
from models.mobile_stylegan import (
    LIGHT_256,
    TEACHER_1024,
    MobileStyleGan,
    MobileStyleGanConfig,
    band_order,
    haar,
    inverse_haar,
    load_mapping,
    load_teacher,
)

Pinned = Callable[[str], Path]
TINY = MobileStyleGanConfig(widths=(16, 16, 16), stem_width=16)


def test_mapping_equals_published(pinned: Pinned) -> None:
    xml, binary = pinned("mapping_xml"), pinned("mapping_bin")
    z = np.random.default_rng(0).standard_normal((1, 512), np.float32)
    published = openvino_core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(z)[0]
    with torch.no_grad():
        ours = load_mapping(xml, binary)(torch.from_numpy(z))
    assert np.abs(ours.numpy() - published).max() < 1e-4


def test_features_and_image_equal_published(pinned: Pinned) -> None:
    """Within 1e-3 in features that reach 25, and in the 1024 px image."""
    xml, binary = pinned("synthesis_xml"), pinned("synthesis_bin")
    core = openvino_core()
    model = core.read_model(xml)
    taps = {"LeakyRelu_342": 3, "LeakyRelu_542": 5}
    found = {op.get_friendly_name(): op for op in model.get_ordered_ops() if op.get_friendly_name() in taps}
    for name in taps:
        model.add_outputs(found[name].output(0))
    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        w = load_mapping(pinned("mapping_xml"), pinned("mapping_bin"))(z).numpy()
    image, *features = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(w).values()
    network = load_teacher(xml, binary, TEACHER_1024)
    ws = torch.from_numpy(w)[:, None].expand(-1, TEACHER_1024.latent_rows, -1)
    with torch.no_grad():
        for published, layers in zip(features, taps.values(), strict=True):
            ours = network.features(ws, upto=layers).numpy()
            published = published[:, band_order(published.shape[1])]
            assert np.abs(published).max() > 5
            assert np.abs(ours - published).max() < 1e-3
        assert np.abs(network(ws).numpy() - image).max() < 1e-3


def test_unreadable_ir_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("<net><layers><layer")
    (tmp_path / "net.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"net\.xml"):
        load_teacher(tmp_path / "net.xml", tmp_path / "net.bin")


def test_inverse_haar_keeps_energy_and_knows_its_bands() -> None:
    bands = torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    image = inverse_haar(bands)
    assert image.shape == (2, 3, 8, 8)
    assert torch.isclose(image.square().sum(), bands.square().sum())
    low = torch.zeros(1, 4, 1, 1)
    low[0, 0] = 2.0
    assert torch.allclose(inverse_haar(low), torch.ones(1, 1, 2, 2))
    vertical = torch.zeros(1, 4, 1, 1)
    vertical[0, 1] = 2.0
    assert torch.allclose(inverse_haar(vertical)[0, 0], torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    of_second = torch.zeros(1, 8, 1, 1)
    of_second[0, 2 * 2 + 1] = 2.0
    horizontal = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    assert torch.allclose(inverse_haar(of_second)[0], torch.stack((torch.zeros(2, 2), horizontal)))


def test_haar_undoes_inverse_haar() -> None:
    bands = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(haar(inverse_haar(bands)), bands, atol=1e-6)


def test_scaling_activations_equals_modulating_weights() -> None:
    """The constant-weight form of a modulated convolution is the same function."""
    torch.manual_seed(0)
    layer = MobileStyleGan(TINY).last_layer.conv1
    x, w = torch.randn(2, 4, 8, 8), torch.randn(2, 512)
    scale = torch.nn.functional.linear(w, layer.modulation.weight, layer.modulation.bias) * layer.modulation.gain
    expected = []
    for image, style in zip(x, scale, strict=True):
        weight = layer.depthwise * style[:, None, None, None]
        y = torch.nn.functional.conv2d(image[None], weight, padding=1, groups=4)
        y = torch.nn.functional.conv2d(y, layer.pointwise) + layer.noise[..., :8, :8] + layer.bias
        expected.append(torch.nn.functional.leaky_relu(y, 0.2))
    layer.noise.data = layer.noise.data[..., :8, :8]
    assert torch.allclose(layer(x, w), torch.cat(expected), atol=1e-5)


def test_noise_map_enters_both_convolutions_at_32_px_only() -> None:
    torch.manual_seed(0)
    network = MobileStyleGan(MobileStyleGanConfig(widths=(16, 16, 16, 16), stem_width=16))
    ws = torch.randn(1, network.config.latent_rows, 512)
    noise = torch.randn(1, 16, 32, 32)
    plain, mapped = network.features(ws, upto=2), network.features(ws, noise, upto=2)
    assert torch.equal(plain, mapped)
    for scales in ((1.0, 0.0), (0.0, 1.0)):
        network.noise_scales.data = torch.tensor(scales)
        assert not torch.allclose(network.features(ws, upto=3), network.features(ws, noise, upto=3))
    network.noise_scales.data = torch.zeros(2)
    assert torch.equal(network(ws), network(ws, noise))


def test_each_row_styles_its_own_layer() -> None:
    """Changing one W+ row leaves every activation before its layer alone and changes the one after."""
    torch.manual_seed(0)
    network = MobileStyleGan(TINY)
    ws = torch.randn(1, TINY.latent_rows, 512)
    changed = ws.clone()
    changed[:, 4] += 1.0  # the second half of layer 1
    assert torch.equal(network.features(ws, upto=1), network.features(changed, upto=1))
    assert not torch.allclose(network.features(ws, upto=2), network.features(changed, upto=2))
    assert [resolution for _, resolution in TINY.row_names()] == [4, 8, 8, 16, 16, 32, 32, 64]


def test_former_rows_end_at_the_first_convolution_at_128_px() -> None:
    names = LIGHT_256.row_names()
    assert (LIGHT_256.latent_rows, LIGHT_256.resolution, LIGHT_256.former_rows) == (12, 256, 10)
    assert names[LIGHT_256.former_rows - 1] == ("layers.4.conv1", 128)
