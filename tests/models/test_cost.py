"""What the networks cost: the table of the method's description, and the counting itself."""

from dataclasses import replace

import pytest
import torch

from app.cli import main
from engine.errors import UsageError
from models.config import NETWORKS, PAPER_256, PRESETS, preset
from models.cost import Cost, count_gflop, preset_costs
from models.stylegan2 import StyleGan2Config

PAPER = {
    "generator": (30.03, 90.7),
    "generator, synthesis alone": (27.93, 90.7),
    "encoder": (209.5, 119.2),
    "encoder, backbone alone": (31.0, 65.7),
    "recurrent": (71.7, 27.1),
    "parser": (13.3, 27.5),
    "visible": (19.8, 41.9),
}
"""Millions of parameters and GFLOP."""


@pytest.fixture(scope="module")
def paper() -> dict[str, Cost]:
    return preset_costs(PAPER_256)


@pytest.mark.parametrize("name", PAPER)
def test_networks_have_the_papers_size(paper: dict[str, Cost], name: str) -> None:
    assert (paper[name].parameters_m, paper[name].gflop) == pytest.approx(PAPER[name], rel=0.02)


def test_the_narrower_generator() -> None:
    narrow = replace(PAPER_256, generator=StyleGan2Config(channel_multiplier=1))
    cost = preset_costs(narrow, ["generator"])["generator"]
    assert (cost.parameters_m, cost.gflop) == pytest.approx((24.77, 30.1), rel=0.02)


def test_former_rows_save_the_latter_heads(paper: dict[str, Cost]) -> None:
    former, whole = paper["encoder, former rows"], paper["encoder"]
    assert whole.gflop - former.gflop == pytest.approx(4 * 6.44, rel=0.01)
    assert whole.parameters_m - former.parameters_m == pytest.approx(4 * 14.4, rel=0.01)


def test_light_networks_are_what_they_were() -> None:
    light = preset_costs(PRESETS["light-256"])
    assert light.keys() == {*NETWORKS}
    assert round(light["recurrent"].parameters_m * 1e6) == 2_381_824
    assert round(light["parser"].parameters_m * 1e6) == 923_168
    assert light["visible"].parameters_m == pytest.approx(0.5, abs=0.1)


def test_counting_by_hand() -> None:
    with torch.device("meta"):
        conv = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
        up = torch.nn.ConvTranspose2d(5, 2, 4, stride=2)
        image = torch.empty(1, 3, 8, 8)
    assert count_gflop(lambda: conv(image)) == pytest.approx(2 * 16 * 3 * 5 * 9 / 1e9)
    assert count_gflop(lambda: up(conv(image))) == pytest.approx((2 * 16 * 3 * 5 * 9 + 2 * 16 * 5 * 2 * 16) / 1e9)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="paper-256, light-256"):
        preset("paper-1024")


@pytest.mark.parametrize(("words", "presets"), [([], set(PRESETS)), (["--preset", "light-256"], {"light-256"})])
def test_the_command_prints_every_network(
    capfd: pytest.CaptureFixture[str], words: list[str], presets: set[str]
) -> None:
    assert main(["networks", *words]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert {line.split()[0] for line in said.out.splitlines() if not line.startswith(" ")} == presets
    for network in NETWORKS:
        assert sum(line.split()[0] == network for line in said.out.splitlines()) == len(presets)
