"""The paper's face parser: names and classes of the public checkpoint, and its form in a bundle."""

import pytest
import torch

from models.bisenet import CLASSES, FACE_CLASSES, BiSeNet, BiSeNetConfig, CropParser

TINY = BiSeNetConfig(classes=5, size=64, widths=(8, 8, 16, 16))


@pytest.fixture(scope="module")
def parser() -> BiSeNet:
    torch.manual_seed(0)
    return BiSeNet(TINY).eval()


def test_names_are_those_of_the_public_checkpoint() -> None:
    with torch.device("meta"):
        names = BiSeNet().state_dict()
    assert len(names) == 191
    shapes = {
        "cp.resnet.layer4.0.downsample.0.weight": (512, 256, 1, 1),
        "cp.arm16.conv.conv.weight": (128, 256, 3, 3),
        "cp.arm32.bn_atten.running_mean": (128,),
        "cp.conv_avg.conv.weight": (128, 512, 1, 1),
        "ffm.convblk.bn.num_batches_tracked": (),
        "ffm.conv2.weight": (256, 64, 1, 1),
        "conv_out.conv_out.weight": (19, 256, 1, 1),
        "conv_out32.conv.conv.weight": (64, 128, 3, 3),
    }
    assert {name: tuple(names[name].shape) for name in shapes} == shapes


def test_face_is_every_class_but_background_necklace_neck_and_cloth() -> None:
    assert len(CLASSES) == 19
    assert set(CLASSES) - set(FACE_CLASSES) == {"background", "necklace", "neck", "cloth"}


@torch.no_grad()
def test_heads_and_their_sizes(parser: BiSeNet) -> None:
    image = torch.randn(2, 3, 64, 64)
    main, at_8, at_16 = parser.supervised(image)
    assert torch.equal(main, parser(image))
    assert (main.shape, at_8.shape, at_16.shape) == ((2, 5, 8, 8), (2, 5, 8, 8), (2, 5, 4, 4))


@torch.no_grad()
def test_a_crop_is_normalised_enlarged_and_answered_at_the_size_asked_for(parser: BiSeNet) -> None:
    seen: list[torch.Tensor] = []
    handle = parser.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    logits = CropParser(parser, 16)(torch.stack([torch.full((3, 32, 32), level) for level in (-1.0, 1.0)]))
    handle.remove()
    assert logits.shape == (2, 5, 16, 16)
    assert seen[0].shape == (2, 3, 64, 64)
    expected = torch.tensor(
        [[-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]]
    )
    torch.testing.assert_close(seen[0][:, :, 7, 9], expected)


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(parser: BiSeNet) -> None:
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(parser(images)[1:2], parser(images[1:2]), atol=1e-5, rtol=1e-5)
