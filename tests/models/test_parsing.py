"""The face parser's network and its class table."""

import pytest
import torch

from models.parsing import CLASSES, FACE_CLASSES, OCCLUDER_CLASSES, FaceParser, ParserConfig, class_table

CELEBAMASK_HQ = (
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear "
    "mouth u_lip l_lip hair hat ear_r neck_l neck cloth"
).split()


@pytest.fixture(scope="module")
def parser() -> FaceParser:
    torch.manual_seed(0)
    return FaceParser().eval()


def test_face_is_every_class_but_background_necklace_neck_and_cloth():
    face = {name for label, name in enumerate(CELEBAMASK_HQ) if CLASSES[class_table()[label]] in FACE_CLASSES}
    assert set(CELEBAMASK_HQ) - face == {"background", "neck_l", "neck", "cloth"}


def test_table_uses_every_class_and_sends_unknown_labels_to_background():
    table = class_table()
    assert {CLASSES[index] for index in table[:19]} == set(CLASSES) - set(OCCLUDER_CLASSES)
    assert not table[19:].any()
    assert [CLASSES[table[CELEBAMASK_HQ.index(name)]] for name in ("eye_g", "hair", "hat", "neck_l", "cloth")] == [
        "glasses",
        "hair",
        "hat",
        "neck",
        "cloth",
    ]


def test_logits_have_half_the_crops_size(parser):
    assert parser(torch.zeros(2, 3, 256, 256)).shape == (2, len(CLASSES), 128, 128)
    assert FaceParser(ParserConfig(classes=3, stem=8, quarter=8, eighth=8, sixteenth=8)).eval()(
        torch.zeros(1, 3, 64, 64)
    ).shape == (1, 3, 32, 32)


def test_samples_of_a_batch_do_not_mix(parser):
    crops = torch.rand(3, 3, 256, 256) * 2 - 1
    with torch.inference_mode():
        together, alone = parser(crops), parser(crops[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


def test_size_fits_the_bundle(parser):
    assert sum(parameter.numel() for parameter in parser.parameters()) < 1.5e6
