"""What the encoders are trained to minimise: RIGID's losses over an unrolled episode (rigid.md, Eqs. 1-16)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.recurrence import PRIMING_STEPS
from models.checkpoints.weights import load_weights
from models.encoder import BaseEncoder
from models.flow import SpyNet, warp
from models.parsing import CLASSES, FACE_CLASSES, FaceParser
from models.recurrent import RecurrentEncoder
from models.refiner import Refiner
from models.training.encoder import Distances, encoded
from models.training.losses import (
    LOSS_RESOLUTION,
    Distance,
    LossWeights,
    blend,
    composition,
    composition_loss,
    edit_loss,
    patch_reconstruction,
    soft_masks,
    steadiness_loss,
    temporal_loss,
    total_loss,
    unalign,
)
from models.training.norms import unfold_norms
from models.training.stand_in import Synthesis, enlarge, shrink
from models.visibility import VisibleNet

PARTS = ("tcc", "nm", "lfd", "ibfcc", "tc")
"""What an ablation can be trained without: the paper's rows w/o TCC, NM, LFD, L_ibfcc and L_tc."""

MASK_ERODE, MASK_FEATHER = 2, 4
"""Of the blend's mask, in pixels at 128; what the editor does at 256 px (`engine/masks.py`)."""

Batch = tuple[Tensor, Tensor, Tensor, int, float]
"""crops RGB [-1, 1] [T, B, 3, 256, 256]; canvas_from_crop float64 [T, B, 2, 3]; edit offset n [B, L, 512]; the steps
that the memory has behind it after the first frame's; the share of a picture that is carried over to the next, as
`engine/steadying.py` does, where the crops are alike."""

UNLIKE = 0.1
"""Difference of crops, on the [-1, 1] scale, at which that share has fallen to 1/e; about as there. Of their means, the
same for what L_ibfcc counts."""

UNLIKE_CELL = 8
"""Side of the cells in which crops are compared, px."""


class Inverter(nn.Module):
    """What is trained: the base encoder and the recurrent encoder. Between them stands a refiner, if there is one."""

    def __init__(self, base: BaseEncoder, recurrent: RecurrentEncoder, refiner: Refiner | None = None) -> None:
        super().__init__()
        self.base = base
        self.recurrent = recurrent
        self.refiner = refiner.requires_grad_(False) if refiner else None


@dataclass(frozen=True)
class Judges:
    """The frozen networks that losses are taken with; not modules of the objective.

    distance: perceptual, at 128 px. identity: how far two crops at 256 px are from being one person's. mesh: how far
    their faces' meshes lie from each other. flow: between images in [0, 1]. parser: crop -> logits. visible: the
    visible net of Eq. 8.
    """

    distance: Distance
    identity: Distance
    mesh: Distance
    flow: SpyNet
    parser: nn.Module
    visible: VisibleNet

    @classmethod
    def open(cls, visible: VisibleNet, device: torch.device) -> "Judges":
        """All in bf16 where that is faster; raises AssetMissing and CheckpointError."""
        parser = FaceParser()
        unfold_norms(parser, load_weights("parser"), torch.zeros(2, 3, 256, 256))
        for network in (parser, visible):
            network.to(device).to(memory_format=torch.channels_last).requires_grad_(False).eval()
        return cls(*Distances.open(device), SpyNet.load().to(device), parser, visible)


@dataclass(frozen=True)
class Terms:
    """Weights of the losses. paper: Eq. 16's. The others are ours.

    bare: an inversion without the noise map, so that the code is one by itself. person: whether it, and the inversion
    with the map, is the person (e4e's identity loss): what an edit paints anew it paints from the code. mesh: whether
    the faces that the code alone makes are turned and open their mouths as in the frame. survive: what
    the map takes from an edit. steady: differences over time. map_size, code_size: keep the two outputs small; at a
    low price w'_t becomes a constant, the same for everybody, that helps the map and leads codes away from where edits
    work: eyeglasses turn into sunglasses.
    """

    paper: LossWeights
    bare: float = 1.0
    person: float = 0.25
    mesh: float = 3.0
    survive: float = 0.3
    steady: float = 0.5
    map_size: float = 0.02
    code_size: float = 1.0


class Step(NamedTuple):
    """What one frame of an episode came to: w_t^lfd, n_t, w'_t, O_t^a, E_t^a."""

    code: Tensor
    noise: Tensor
    dws: Tensor
    inversion: Tensor
    edit: Tensor


class Left(NamedTuple):
    """What one frame leaves to the next: I_{t-1}, O_{t-1}, E_{t-1} and the recurrent encoder's state."""

    crop: Tensor
    inversion: Tensor
    edit: Tensor
    h: Tensor
    c: Tensor


class EpisodeObjective(nn.Module):
    """A batch of episodes -> the loss.

    Gradients travel through time in the ConvLSTM and in the inversion that is fed back: without the latter the encoder
    learns to overcorrect, and its output swings from frame to frame. The edit that is fed back carries none.
    without: of PARTS. checkpointing: recompute the generator's activations in the backward pass, a third slower, for
    GPUs with little memory.
    """

    def __init__(
        self,
        inverter: Inverter,
        synthesis: Synthesis,
        judges: Judges,
        terms: Terms,
        without: Collection[str] = (),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.inverter = inverter
        self._synthesis, self._judges, self._terms = synthesis, judges, terms
        self._without, self._checkpointing = frozenset(without), checkpointing

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        crops, canvas_from_crop, offset, past, carried = batch
        ws = self._codes(crops)
        steps = self._unroll(crops, ws, offset, past, carried)
        terms = self._terms
        small = [shrink(crop, LOSS_RESOLUTION) for crop in crops]
        anchored = self._generate(ws[0], None)
        parts = {
            "anchor": self._reconstruction(anchored, crops[0]),
            "rec": sum(self._reconstruction(step.inversion, crop) for step, crop in zip(steps, crops, strict=True)),
        }
        parts |= self._over_time(steps, crops, canvas_from_crop)
        made = [shrink(step.inversion, LOSS_RESOLUTION) for step in steps]
        parts["steady"] = sum(
            steadiness_loss(made[t - 1 : t + 1], small[t - 1 : t + 1]) for t in range(1, len(steps))
        ) + made[0].new_zeros(())
        middle = len(steps) // 2
        parts["bare"], parts["person"], lost, parts["survive"] = self._bare(steps[middle], crops[middle], offset)
        parts["mesh"] = lost + self._meshes(anchored, crops[0])
        parts["map_size"] = sum(step.noise.square().mean() for step in steps)
        parts["code_size"] = sum(step.dws.square().mean() for step in steps)
        loss = parts["anchor"] + total_loss(parts["rec"], parts["tc"], parts["ibfcc"], terms.paper)
        for name in ("bare", "person", "mesh", "survive", "steady", "map_size", "code_size"):
            loss = loss + getattr(terms, name) * parts[name]
        return loss / len(steps), {name: torch.as_tensor(value).detach() for name, value in parts.items()}

    def _codes(self, crops: Tensor) -> Tensor:
        """w_t of all frames, refined, [T, B, L, D]."""
        ws = encoded(self.inverter.base, crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
        if self.inverter.refiner is None:
            return ws
        with torch.no_grad():
            missed = self.inverter.refiner(crops[0], enlarge(self._synthesis(ws[0], None)))
        return ws + missed

    def _generate(self, ws: Tensor, noise: Tensor | None) -> Tensor:
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(self._synthesis, ws, noise, use_reentrant=False)
        return self._synthesis(ws, noise)

    def _unroll(self, crops: Tensor, ws: Tensor, offset: Tensor, past: int = 0, carried: float = 0.0) -> list[Step]:
        """Eqs. 1 and 3-5 for each frame in turn.

        past: how often the first frame is seen again before the second comes. A track lasts for hours and an episode
        for a few frames: a memory that is only ever trained when it is nearly empty goes astray once it fills. carried:
        share of the inversion before, in the one that is fed back.
        """
        anchor, (h, c) = ws[0], self.inverter.recurrent.empty_state(crops[0])
        with torch.no_grad():
            edit = enlarge(self._synthesis(anchor + offset, None))
        left = Left(crops[0], crops[0], edit, h, c)
        steps: list[Step] = []
        for t, crop in enumerate(crops):
            dws, noise, h, c = self._look(left, crop)
            steps.append(self._step(ws[t], anchor, dws, noise, offset, compared=self._compares(t, len(crops))))
            made = enlarge(steps[-1].inversion)
            fed = made if t < PRIMING_STEPS else _carried(left, crop, made, carried)
            left = Left(crop, fed, enlarge(steps[-1].edit.detach()), h, c)
            if t == PRIMING_STEPS - 1:
                for _ in range(past):
                    left = self._settled(left, ws[t], anchor, carried)
        return steps

    @torch.no_grad()
    def _settled(self, left: Left, w: Tensor, anchor: Tensor, carried: float) -> Left:
        """One more step of a picture that stands still; its edit is not drawn anew."""
        dws, noise, h, c = self._look(left, left.crop)
        made = enlarge(self._synthesis(self._code(w, anchor, dws), noise))
        return left._replace(inversion=_carried(left, left.crop, made, carried), h=h, c=c)

    def _compares(self, t: int, length: int) -> bool:
        """Whether a frame's edit is compared with anything: with its inversion (`_bare`), or its neighbours' edits."""
        return t == length // 2 or ("ibfcc" not in self._without and 0 < t < length - 1)

    def _step(self, w: Tensor, anchor: Tensor, dws: Tensor, noise: Tensor, offset: Tensor, *, compared: bool) -> Step:
        """compared: whether the edit needs gradients."""
        code = self._code(w, anchor, dws)
        inversion = self._generate(code, noise)
        with torch.set_grad_enabled(compared):
            edit = self._generate(code + offset, noise)
        return Step(code, noise, dws, inversion, edit)

    def _look(self, left: Left, crop: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The recurrent encoder (Eq. 1); what an ablation leaves out is multiplied by 0, so that every parameter still
        has a gradient."""
        dws, noise, h, c = self.inverter.recurrent(left.crop, crop, left.inversion, left.edit, left.h, left.c)
        dws = dws * 0.0 if "tcc" in self._without else dws
        noise = noise * 0.0 if "nm" in self._without else noise
        return dws, noise, h, c

    def _code(self, w: Tensor, anchor: Tensor, dws: Tensor) -> Tensor:
        """w_t^lfd (Eq. 3)."""
        former = self.inverter.recurrent.config.former_rows
        latter = w if "lfd" in self._without else anchor
        return torch.cat((w[:, :former] + dws, latter[:, former:]), dim=1)

    def _reconstruction(self, made: Tensor, crop: Tensor) -> Tensor:
        return patch_reconstruction(made, crop, self._judges.distance)

    def _bare(self, step: Step, crop: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How far the code alone is from the crop; how far it and the inversion are from the person; how far its mesh
        lies from the crop's; and how much of the edit the map takes away."""
        if "nm" in self._without:
            nothing = step.code.new_zeros(())
            return nothing, self._person([step.inversion], crop), nothing, nothing
        bare = self._generate(step.code, None)
        with torch.no_grad():
            wanted = self._synthesis(step.code + offset, None) - bare
        person = self._person([bare, step.inversion], crop)
        lost = self._meshes(bare, crop)
        return self._reconstruction(bare, crop), person, lost, edit_loss(step.edit - step.inversion, wanted)

    def _meshes(self, made: Tensor, crop: Tensor) -> Tensor:
        return self._judges.mesh(enlarge(made), crop).mean() if self._terms.mesh else crop.new_zeros(())

    def _person(self, made: list[Tensor], crop: Tensor) -> Tensor:
        if not self._terms.person:
            return crop.new_zeros(())
        together = self._judges.identity(enlarge(torch.cat(made)), crop.repeat(len(made), 1, 1, 1))
        return len(made) * together.mean()

    def _over_time(self, steps: list[Step], crops: Tensor, canvas_from_crop: Tensor) -> dict[str, Tensor]:
        """L_tc (Eqs. 13-15) and L_ibfcc (Eqs. 8 and 9) on full frames, as the canvas shows them."""
        zero = crops.new_zeros(())
        if {"tc", "ibfcc"} <= self._without:
            return {"tc": zero, "ibfcc": zero}
        real = [unalign(shrink(crop, LOSS_RESOLUTION), to) for crop, to in zip(crops, canvas_from_crop, strict=True)]
        of_crop = [self._face(crop) for crop in crops]
        places = list(canvas_from_crop)
        tc = zero if "tc" in self._without else self._temporal(steps, real, of_crop, places)
        ibfcc = zero if "ibfcc" in self._without else self._composed(steps, real, of_crop, places)
        return {"tc": tc, "ibfcc": ibfcc}

    def _temporal(self, steps: list[Step], real: list[Tensor], faces: list[Tensor], places: list[Tensor]) -> Tensor:
        made = [self._in_frame(step.inversion, *rest) for step, *rest in zip(steps, faces, real, places, strict=True)]
        return sum(
            (temporal_loss(real[t - 1], made[t - 1], self._flow(real[t], real[t - 1])) for t in range(1, len(steps))),
            start=real[0].new_zeros(()),
        )

    def _composed(self, steps: list[Step], real: list[Tensor], faces: list[Tensor], places: list[Tensor]) -> Tensor:
        unions = [torch.maximum(face, self._face(enlarge(step.edit))) for face, step in zip(faces, steps, strict=True)]
        edits = [self._in_frame(step.edit, *rest) for step, *rest in zip(steps, unions, real, places, strict=True)]
        return sum(
            (
                self._between(*edits[t - 1 : t + 2], lit=_equally_lit(real[t - 1], real[t + 1]))
                for t in range(1, len(edits) - 1)
            ),
            start=real[0].new_zeros(()),
        )

    def _between(self, previous: Tensor, edit: Tensor, after: Tensor, *, lit: Tensor) -> Tensor:
        """Eqs. 8 and 9 of one frame; the flows are of the edited frames and carry no gradient.

        lit: how much an episode counts, [B, 1, 1, 1]: what is made of neighbours in another light is no frame's edit.
        """
        brought = [warp(frame, self._flow(edit, frame)) for frame in (previous, after)]
        with torch.no_grad():
            visibility = self._judges.visible(torch.cat(brought, dim=1))
        return composition_loss(lit * edit, lit * composition(visibility, *brought))

    def _flow(self, a: Tensor, b: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(a.device.type, torch.bfloat16):
            return self._judges.flow(0.5 * a + 0.5, 0.5 * b + 0.5).float()

    @torch.no_grad()
    def _face(self, image: Tensor) -> Tensor:
        """1 where the parser sees the face, [B, 1, 128, 128]."""
        with torch.autocast(image.device.type, torch.bfloat16):
            labels = self._judges.parser(image.clamp(-1, 1)).argmax(1, keepdim=True)
        kept = torch.tensor([name in FACE_CLASSES for name in CLASSES], device=image.device)
        inside = kept[labels].float()
        return inside if inside.shape[-1] == LOSS_RESOLUTION else F.interpolate(inside, LOSS_RESOLUTION)

    def _in_frame(self, image: Tensor, face: Tensor, frame: Tensor, canvas_from_crop: Tensor) -> Tensor:
        """B(UA(image), frame, M) on the canvas, [B, 3, 128, 128] (Eqs. 6 and 7)."""
        mask = unalign(soft_masks(face, MASK_ERODE, MASK_FEATHER), canvas_from_crop, "zeros")
        return blend(unalign(shrink(image, LOSS_RESOLUTION), canvas_from_crop), frame, mask)


def _equally_lit(a: Tensor, b: Tensor) -> Tensor:
    """1 where two frames [B, 3, S, S] are equally bright, 0 where one is much darker, [B, 1, 1, 1]."""
    darker = (a - b).mean(dim=(1, 2, 3), keepdim=True)
    return torch.exp(-(darker / UNLIKE).square())


def _carried(left: Left, crop: Tensor, made: Tensor, share: float) -> Tensor:
    """The inversion made of a crop, mixed with the one before where the crops are alike; all [B, 3, 256, 256]."""
    if not share:
        return made
    unlike = F.avg_pool2d((crop - left.crop).abs(), UNLIKE_CELL).mean(1, keepdim=True)
    alike = F.interpolate(torch.exp(-(unlike / UNLIKE).square()), scale_factor=UNLIKE_CELL, mode="nearest")
    return made + share * alike * (left.inversion - made)
