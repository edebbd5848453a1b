"""The episode's objective: what it sees, what it leaves out, and that it reaches both encoders."""

import argparse
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import UsageError
from engine.recurrence import PRIMING_STEPS
from models.flow import SpyNet
from models.recurrent import ConvSpec, RecurrentConfig, RecurrentEncoder
from models.training import recurrent as training
from models.training.episodes import EpisodeSource
from models.training.inversion import PARTS, Batch, EpisodeObjective, Inverter, Judges, Terms
from models.training.losses import LossWeights
from models.training.stand_in import enlarge
from models.visibility import LIGHT, VisibleNet

NARROW = RecurrentConfig(
    former_rows=3,
    map_channels=4,
    convs=(ConvSpec(8), ConvSpec(8, stride=2), ConvSpec(8, stride=2), ConvSpec(8, stride=2)),
    hidden=4,
    rank=4,
    map_width=8,
)


class FixedBase(nn.Module):
    """Stands for the base encoder: a code that depends on the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(2, 3))

    def codes(self, features: Tensor) -> Tensor:
        return self.scale * features.mean(1)[:, None, None].expand(-1, 4, 512)


class FixedParser(nn.Module):
    """Calls the middle of every crop skin."""

    def forward(self, crops: Tensor) -> Tensor:
        logits = torch.zeros(len(crops), 7, 128, 128)
        logits[:, 0] = 1.0
        logits[:, 1, 20:-20, 20:-20] = 2.0
        return logits


def synthesis(ws: Tensor, noise: Tensor | None) -> Tensor:
    """Stands for the generator: a grey picture of the code, with the map's first three channels on top."""
    drawn = ws.mean(dim=(1, 2))[:, None, None, None].expand(-1, 3, 128, 128)
    return torch.tanh(drawn if noise is None else drawn + nn.functional.interpolate(noise[:, :3], size=128))


def identity(made: Tensor, real: Tensor) -> Tensor:
    assert made.shape == real.shape
    return (made.mean(dim=(2, 3)) - real.mean(dim=(2, 3))).square().sum(dim=1)


def mesh(made: Tensor, real: Tensor) -> Tensor:
    assert made.shape == real.shape
    return (made.amax(dim=(1, 2, 3)) - real.amax(dim=(1, 2, 3))).abs()


@pytest.fixture
def inverter() -> Inverter:
    torch.manual_seed(0)
    recurrent = RecurrentEncoder(NARROW)
    nn.init.normal_(recurrent.to_dws.weight, std=0.1)
    assert recurrent.map_head is not None
    nn.init.normal_(recurrent.map_head.to_map.weight, std=0.1)
    return Inverter(FixedBase(), recurrent)  # type: ignore[arg-type]


def objective(inverter: Inverter, without: tuple[str, ...] = (), **terms: float) -> EpisodeObjective:
    torch.manual_seed(1)
    visible = VisibleNet(LIGHT).eval()
    distances = lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)), identity, mesh
    judges = Judges(*distances, SpyNet(), FixedParser(), visible)
    return EpisodeObjective(inverter, synthesis, judges, Terms(LossWeights(), **terms), without)


def batch(length: int = 4, past: int = 0, carried: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(length, 3, 8, 8, generator=generator) * 2 - 1
    crops = nn.functional.interpolate(coarse, size=256, mode="bilinear")[:, None]
    places = torch.eye(2, 3, dtype=torch.float64).expand(length, 1, 2, 3).clone()
    return crops, places, 0.3 * torch.rand(1, 4, 512, generator=generator), past, carried


def test_the_loss_reaches_both_encoders_through_time(inverter: Inverter):
    loss, told = objective(inverter)(batch())
    loss.backward()
    assert torch.isfinite(loss)
    assert {"rec", "tc", "ibfcc", "bare", "person", "mesh", "survive"} <= told.keys()
    recurrent = inverter.recurrent
    assert recurrent.map_head is not None
    watched = (inverter.base.scale, recurrent.convs[0].weight, recurrent.map_head.to_map.weight)
    for parameter in (*watched, recurrent.lstm.gates.weight, recurrent.to_dws.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_gradients_pass_through_the_inversion_that_is_fed_back_and_not_through_the_edit(inverter: Inverter):
    frames, _, offset, *_ = batch()
    judged = objective(inverter)
    steps = judged._unroll(frames, judged._codes(frames), offset)
    steps[1].edit.retain_grad()
    steps[1].inversion.retain_grad()
    steps[2].inversion.square().sum().backward()
    assert steps[1].inversion.grad is not None
    assert steps[1].inversion.grad.abs().sum() > 0
    assert steps[1].edit.grad is None


def test_a_past_fills_the_memory_with_the_first_frame(inverter: Inverter):
    """As if the first frame had come again that often, its edit standing still."""
    frames, _, offset, *_ = batch(PRIMING_STEPS + 1)
    frames[:PRIMING_STEPS] = frames[0]
    judged = objective(inverter)
    ws = judged._codes(frames)
    new, old = judged._unroll(frames, ws, offset), judged._unroll(frames, ws, offset, past=3)
    for t in range(PRIMING_STEPS):
        assert torch.equal(new[t].noise, old[t].noise)
    assert not torch.allclose(new[-1].dws, old[-1].dws)
    seen = []
    inverter.recurrent.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output)))
    judged._unroll(frames, ws, offset, past=3)
    assert len(seen) == PRIMING_STEPS + 1 + 3
    for (_, before), (inputs, _) in itertools.pairwise(seen):
        assert torch.equal(inputs[4], before[2])
        assert torch.equal(inputs[5], before[3])
    for inputs, _ in seen[PRIMING_STEPS : PRIMING_STEPS + 3]:
        assert torch.equal(inputs[0], frames[0])
        assert torch.equal(inputs[1], frames[0])
    assert not torch.equal(seen[-1][0][1], frames[0])
    for (_, (dws, noise, *_)), (inputs, _) in itertools.pairwise(seen[PRIMING_STEPS - 1 : PRIMING_STEPS + 4]):
        code = torch.cat((ws[0][:, :3] + dws, ws[0][:, 3:]), dim=1)
        torch.testing.assert_close(inputs[2], enlarge(synthesis(code, noise)))


def test_what_is_fed_back_is_carried_over_where_the_crops_are_alike(inverter: Inverter):
    """As the editor's pictures are; the loss is of what is drawn."""
    frames, _, offset, *_ = batch(PRIMING_STEPS + 2)
    frames[: PRIMING_STEPS + 1] = frames[0]
    frames[-1, ..., :128] = frames[0, ..., :128]
    frames[-1, ..., 128:] = -1.0
    judged, seen = objective(inverter), []
    ws = judged._codes(frames)
    inverter.recurrent.register_forward_hook(lambda module, inputs, output: seen.append(inputs[2]))
    judged._unroll(frames[[*range(len(frames)), -1]], ws[[*range(len(ws)), -1]], offset, carried=0.5)
    drawn = [enlarge(step.inversion) for step in judged._unroll(frames, ws, offset, carried=0.5)]
    torch.testing.assert_close(seen[PRIMING_STEPS], drawn[PRIMING_STEPS - 1])
    mixed = 0.5 * (drawn[PRIMING_STEPS] + seen[PRIMING_STEPS])
    torch.testing.assert_close(seen[PRIMING_STEPS + 1], mixed)
    fed = seen[PRIMING_STEPS + 2]
    torch.testing.assert_close(fed[..., :128], (0.5 * (drawn[-1] + mixed))[..., :128])
    torch.testing.assert_close(fed[..., 136:], drawn[-1][..., 136:], atol=0.05, rtol=0.0)


class Brighter(nn.Module):
    """Stands for a refiner: as much more as the first crop is brighter than its inversion."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, crop: Tensor, inversion: Tensor) -> Tensor:
        return self.gain * (crop - inversion).mean(dim=(1, 2, 3))[:, None, None].expand(-1, 4, 512)


def test_what_the_refiner_finds_on_the_first_crop_is_added_to_every_code(inverter: Inverter):
    frames, *_ = batch()
    refined = Inverter(inverter.base, inverter.recurrent, Brighter())  # type: ignore[arg-type]
    plain, codes = (objective(of)._codes(frames) for of in (inverter, refined))
    expected = frames[0].mean() - synthesis(plain[0], None).mean()
    torch.testing.assert_close(codes, plain + expected)
    codes.sum().backward()
    assert refined.refiner is not None
    assert all(parameter.grad is None for parameter in refined.refiner.parameters())


def test_an_episode_starts_as_a_track_does():
    """Its first frame is shown `PRIMING_STEPS` times."""
    task = training.RecurrentTask.__new__(training.RecurrentTask)
    stills = [np.full((256, 256, 3), 7, np.uint8)]
    task._source, task._edits = EpisodeSource(stills, ()), SimpleNamespace(draw=lambda rng: torch.zeros(4, 512))
    task._length, task._seed = 3, 0
    crops, places, _, past, carried = task.draw(0, range(2))
    assert 0 <= past <= training.LONGEST_PAST
    assert 0.0 <= carried <= training.MOST_CARRIED
    assert len(crops) == len(places) == 3 + PRIMING_STEPS - 1
    for t in range(PRIMING_STEPS):
        assert torch.equal(crops[t], crops[0])
        assert torch.equal(places[t], places[0])
    assert not torch.equal(places[PRIMING_STEPS], places[0])


def test_every_term_has_its_weight(inverter: Inverter):
    torch.manual_seed(0)
    ours = {"bare": 2.0, "person": 7.0, "mesh": 8.0, "survive": 3.0, "steady": 4.0, "map_size": 5.0, "code_size": 6.0}
    loss, told = objective(inverter, **ours)(batch(4))
    expected = told["anchor"] + 1.0 * told["rec"] + 2.0 * told["tc"] + 5.0 * told["ibfcc"]
    expected = expected + sum(weight * told[name] for name, weight in ours.items())
    assert loss.item() == pytest.approx(expected.item() / 4, rel=1e-5)
    assert all(told[name].item() > 0 for name in (*ours, "tc", "ibfcc", "rec"))


@pytest.mark.parametrize("part", PARTS)
def test_what_an_ablation_leaves_out_is_gone_and_every_parameter_still_has_a_gradient(inverter: Inverter, part: str):
    loss, told = objective(inverter, (part,))(batch())
    loss.backward()
    gone = {"tcc": "code_size", "nm": "map_size", "tc": "tc", "ibfcc": "ibfcc"}
    if part in gone:
        assert told[gone[part]].item() == 0.0
    assert all(parameter.grad is not None for parameter in inverter.parameters())


def test_without_lfd_the_latter_rows_are_the_frames_own(inverter: Inverter):
    frames, _, offset, *_ = batch()
    frames = torch.linspace(-0.9, 0.9, 4)[:, None, None, None, None].expand_as(frames)
    ws = objective(inverter)._codes(frames)
    with_anchor = objective(inverter)._unroll(frames, ws, offset)
    own = objective(inverter, ("lfd",))._unroll(frames, ws, offset)
    for t in range(4):
        assert torch.equal(with_anchor[t].code[:, 3:], ws[0][:, 3:])
        assert torch.equal(own[t].code[:, 3:], ws[t][:, 3:])


def test_unchanging_edits_cost_nothing_over_time(inverter: Inverter):
    """Eq. 9: an edit that its neighbours agree with is a perfect composite."""
    crops, places, offset, *_ = batch(3)
    still = crops[:1].expand(3, -1, -1, -1, -1)
    nn.init.zeros_(inverter.recurrent.to_dws.weight)
    assert inverter.recurrent.map_head is not None
    nn.init.zeros_(inverter.recurrent.map_head.to_map.weight)
    judged = objective(inverter)
    judged._judges.flow.forward = lambda a, b: torch.zeros(len(a), 2, 128, 128)  # type: ignore[method-assign]
    _, told = judged((still, places, offset, 0, 0.0))
    assert told["ibfcc"].item() == pytest.approx(0.0, abs=1e-6)
    assert told["steady"].item() == pytest.approx(0.0, abs=1e-6)
    assert told["tc"].item() > 0.0


def test_checkpointing_changes_no_number(inverter: Inverter):
    plain = objective(inverter)
    spared = objective(inverter)
    spared._checkpointing = True
    losses, gradients = [], []
    for judged in (plain, spared):
        inverter.zero_grad()
        loss, _ = judged(batch())
        loss.backward()
        losses.append(loss.item())
        gradients.append([parameter.grad.clone() for parameter in inverter.parameters()])  # type: ignore[union-attr]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("flags", "message"), [(["--without", "sound"], "sound; there are tcc, nm"), (["--length", "2"], "at least 3")]
)
def test_wrong_flags_are_refused_in_one_line(flags: list[str], message: str):
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    with pytest.raises(UsageError, match=message):
        training.run(parser.parse_args(["--data", "nowhere", *flags]))


def test_neighbours_in_another_light_are_not_composed(inverter: Inverter):
    frames, *rest = batch(4)
    lit = objective(inverter)((frames, *rest))[1]["ibfcc"]
    gains = torch.tensor([1.0, 0.6, 0.2, -0.2]).view(4, 1, 1, 1, 1)
    dark = objective(inverter)((frames * 0.2 + gains, *rest))[1]["ibfcc"]
    assert lit > 0.01
    assert dark < 1e-3
