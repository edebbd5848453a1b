"""RIGID's recurrent loop: one aligned crop in, its inversion and its edit out (ICCV 2023, Eqs. 1 and 3-5).

Everything here is a pure function of its arguments. Arrays are float32, NumPy's or CuPy's: the functions of `np` that
take arrays work where those lie. B is the number of faces that go through the
networks together, L the latent rows, D the latent width; images are RGB [-1, 1] [B, 3, S, S]. The ablations of the
paper and the frame-by-frame baseline are `Switches`, not other networks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from engine.directions import Reach
from engine.face_places import part_places
from engine.runtimes.base import Answer, FloatArray, Network, Networks, begin
from engine.state import RecurrentState, Rhythm
from engine.steadying import Steady
from engine.timing import Stage, untimed


@dataclass(frozen=True)
class Switches:
    """Which parts of the method are on.

    tcc: the temporal compensated code w'_t is added. noise_map: the spatial noise map n_t enters the generator.
    lfd: latent frequency disentanglement, the latter rows come from the anchor; off, from the frame itself.
    memory: the loop is recurrent; off, every frame stands alone: h = c = 0, the three previous images are the frame.
    primed: the recurrent encoder already runs on the first frame of a track, `PRIMING_STEPS` times. Off is the paper's
    rule, O_1 := I_1 and E_1 := G(w_1 + n): the first edit has no noise map. On, the first edit has its map too, and the
    memory has settled before anything is shown.
    refined: the refiner looks at the inversion of a track's first frame and says what the encoder misses of this
    person, which is then added to the code of every frame, where the bundle has one. Off is the paper's rule.
    residual: what the inversion lost is given back before the blend, and an edit stays in its sliders' zones
    (`engine/restoring.py`, `give_back`); off is the paper's rule.
    surrounded: where an edit has less of a face than the frame, what lies around the face is shown
    (`engine/surroundings.py`); off is the paper's rule.
    map_yields: the edit is drawn without what the noise map says of places that the edit paints anew, within the face
    alone unless its sliders are meant for more; off is the paper's rule, one map for both (Eq. 5).
    following: the anchor follows the person slowly (`FOLLOWED_SHARE`), where the encoder gives all rows, and the
    refiner looks again every `UNLOOKED_FRAMES`: else an edit keeps the light and the colours of the track's first frame
    for ever. Off is the paper's rule.
    steadied: what is drawn is held steady along the face's motion (`engine/steadying.py`), where the caller knows it.
    Off is the paper's rule.
    inverted_every: of so many frames one inversion is generated, and the others are estimated from the edit, which
    halves the generator's work on those frames: O_t := E_t - W(E_{t-1} - O_{t-1}), where W carries what an edit changes
    along the face's motion, if that is known (`engine/steadying.py`). 1 is the paper's rule.
    """

    tcc: bool = True
    noise_map: bool = True
    lfd: bool = True
    memory: bool = True
    primed: bool = True
    refined: bool = True
    residual: bool = True
    surrounded: bool = True
    map_yields: bool = True
    following: bool = True
    steadied: bool = True
    inverted_every: int = 4


PRIMING_STEPS = 2
"""On the first frame of a track. The first of them sees the frame itself as its inversion, the second its own."""

REPAINTED = 0.09
"""Mean change on the [-1, 1] scale at which the noise map has lost most of its say about an edit."""

FOLLOWED_SHARE = 0.0125
"""Of the way from the anchor to a frame's own code, that the anchor goes with the frame: two thirds in 90 frames.
Faster, and what the encoder gets wrong in single frames shows: 0.02 cost twice as much steadiness on a busy clip."""

UNLOOKED_FRAMES = 32
"""Frames between two looks of the refiner, each of which costs a picture of the generator. It is drawn on a frame whose
inversion is estimated, if there are such, and looked at beside the next one's encoders: neither is late by both."""

LOOKED_SHARE = 0.4
"""Of the way from what the refiner has found so far to what it sees now, that the correction goes at each look."""

PICTURES = 2
"""Of a face, that the generator draws as one batch at most."""

FADED_SHARE = 0.15
"""Of the way that is left to a new correction or likeness, that each frame goes: nine tenths within 15 frames."""

FULL = Switches()

VARIANTS: Mapping[str, Switches] = MappingProxyType(
    {
        "full": FULL,
        "whole_rate": Switches(inverted_every=1),
        "paper": Switches(
            primed=False,
            refined=False,
            residual=False,
            surrounded=False,
            map_yields=False,
            following=False,
            steadied=False,
            inverted_every=1,
        ),
        "unsteadied": Switches(steadied=False),
        "no_tcc": Switches(tcc=False),
        "no_nm": Switches(noise_map=False),
        "no_lfd": Switches(lfd=False),
        "per_frame": Switches(lfd=False, memory=False, steadied=False),
    }
)
"""What ships, the same with every inversion generated, the paper's rules to the letter, what ships but for `steadied`,
the paper's ablations at run time, and the frame-by-frame baseline."""

Advance = tuple[RecurrentState, FloatArray, FloatArray]
"""(state for the next frame, inversion O_t, edit E_t)."""


def advance(
    networks: Networks,
    state: RecurrentState | None,
    crop: FloatArray,
    offset: FloatArray,
    switches: Switches = FULL,
    stage: Stage = untimed,
    likeness: FloatArray | None = None,
    steady: Callable[[], Steady] | None = None,
    reach: Reach | None = None,
) -> Advance:
    """Invert and edit the next crop of B faces.

    state: what the previous frame left; None on the first frame of a track, which becomes the anchor. crop: I_t^a
    [B, 3, S, S]. offset: n of Eq. 5, the sum of the sliders' moves, [B, L, D]. likeness: what the refined codes lack
    of a person [L, D]; a track that begins now takes it where it brings the inversion nearer, later frames go on with
    the state's. steady: gives, while the encoders are at work, what holds pictures steady from the frame before to this
    one; None leaves them as they are drawn. reach: where the edits act, for the noise map (`Switches.map_yields`);
    placed where the arrays lie, G a multiple of the map's side; None for everywhere.
    Returns the new state, O_t^a and E_t^a, the images [B, 3, S, S], not clipped.
    """
    if not switches.memory:
        return _stand_alone(networks, crop, offset, switches, stage)
    if state is None:
        return _first_frame(networks, crop, offset, switches, stage, likeness, reach)
    rhythm = next_rhythm(state.rhythm, networks, switches)
    refiner = networks.refiner if rhythm.unlooked == 1 else None
    # None of the encoders needs the other's answer: they work side by side, and beside them goes what needs none.
    with stage("encode"):
        code = _code_begun(networks, crop, switches)
    with stage("recur"):
        outputs = _recurrence_begun(networks, state, crop)
        looked = begin(refiner, crop=state.crop, inversion=state.bare) if refiner else None
        kept = _kept_share(networks, state.inversion, state.edit, switches, reach)
    with stage("motion"):
        hold_steady = steady() if steady else None
    with stage("encode"):
        ws, anchor = _image_based_code(networks, code()["ws"], state.anchor, switches)
    with stage("recur"):
        answer = outputs()
    correction = state.correction
    if looked:
        with stage("refine"):
            correction = correction + np.float32(LOOKED_SHARE) * (looked()["dws"] - correction)
    added = state.added + np.float32(FADED_SHARE) * (correction + state.aim - state.added)
    own = ws
    with stage("recur"):
        ws, noise, h, c = _compensated(networks, answer, own + added, switches)
    with stage("generate"):
        pictures = {} if rhythm.estimated else {"inversion": (ws, noise)}
        pictures["edit"] = ws + offset, _kept_of(noise, kept)
        if rhythm.unlooked == 0:
            pictures["bare"] = own, np.zeros_like(noise)
        drawn = _drawn(networks, pictures)
        edit, inversion = drawn["edit"], drawn.get("inversion")
    with stage("steady"):
        if inversion is None:
            change = state.edit - state.inversion
            if hold_steady:
                edit, change = hold_steady((state.edit, change), (edit, None))
            inversion = edit - change
        elif hold_steady:
            inversion, edit = hold_steady((state.inversion, state.edit), (inversion, edit))
    bare = drawn.get("bare", state.bare)
    after = RecurrentState(crop, inversion, edit, bare, h, c, anchor, correction, state.aim, added, rhythm=rhythm)
    return after, inversion, edit


def next_rhythm(before: Rhythm, networks: Networks, switches: Switches) -> Rhythm:
    """The frame after one: whether its inversion is estimated, which is estimated > 0, and whether what the refiner
    looks at is drawn, which is unlooked = 0."""
    estimated = (before.estimated + 1) % switches.inverted_every
    unlooked = before.unlooked + 1
    again = networks.refiner is not None and switches.refined and switches.following
    due = again and unlooked >= UNLOOKED_FRAMES and (estimated == 1 or switches.inverted_every == 1)
    return Rhythm(estimated, 0 if due else unlooked)


def _first_frame(
    networks: Networks,
    crop: FloatArray,
    offset: FloatArray,
    switches: Switches,
    stage: Stage,
    likeness: FloatArray | None,
    reach: Reach | None,
) -> Advance:
    """The anchor: O_1 := I_1, E_1 := G(w_1 + n), h = c = 0; then, if `primed`, the frame's own steps on top."""
    with stage("encode"):
        anchor = begin(networks.encoder_anchor, crop=crop)()["ws"]
        correction = np.zeros_like(anchor)
        if networks.refiner is not None and switches.refined:
            correction = missed(networks.refiner, networks.generator, crop, anchor)
        refined = anchor + correction
    with stage("generate"):
        taken = fitting(networks, crop, refined, likeness)
        nothing = _zeros(networks.generator.spec.inputs["noise"], crop)
        before, edit = _synthesise(networks, refined + taken, offset, nothing)
    state = _started(networks, crop, crop, edit, anchor)
    state = replace(state, correction=correction, aim=taken, added=correction + taken)
    inversion = crop
    for _ in range(PRIMING_STEPS if switches.primed else 0):
        with stage("recur"):
            ws, noise, h, c = _compensate(networks, state, crop, refined + taken, switches)
            kept = _kept_share(networks, before, edit, switches, reach)
        with stage("generate"):
            inversion, edit = _synthesise(networks, ws, offset, noise, kept)
        state, before = replace(state, inversion=inversion, edit=edit, h=h, c=c), inversion
    return state, inversion, edit


def missed(refiner: Network, generator: Network, crop: FloatArray, ws: FloatArray) -> FloatArray:
    """What the encoder's codes of the crops lack, as the refiner sees it in what is drawn of them; both [B, L, D]."""
    inversion = generator(ws=ws, noise=_zeros(generator.spec.inputs["noise"], crop))["image"]
    dws: FloatArray = refiner(crop=crop, inversion=inversion)["dws"]
    return dws


def fitting(networks: Networks, crop: FloatArray, ws: FloatArray, likeness: FloatArray | None) -> FloatArray:
    """The likeness for each face whose inversion it brings nearer to its crop, 0 for the others: [B, L, D].

    What was found for one person is wrong for another. ws: the refined codes of the crops, [B, L, D]; likeness:
    [L, D], or None. The images are compared without a noise map, by squared error.
    """
    nobody = np.zeros_like(ws)
    if likeness is None:
        return nobody
    nothing = _zeros(networks.generator.spec.inputs["noise"], crop)
    without, with_it = _synthesise(networks, ws, nobody + likeness, nothing)
    nearer = ((with_it - crop) ** 2).mean(axis=(1, 2, 3)) < ((without - crop) ** 2).mean(axis=(1, 2, 3))
    taken: FloatArray = np.where(nearer[:, None, None], likeness, nobody)
    return taken


def _stand_alone(networks: Networks, crop: FloatArray, offset: FloatArray, switches: Switches, stage: Stage) -> Advance:
    """A frame that knows nothing of the ones before it, nor of a likeness; the state only tells what was seen."""
    with stage("encode"):
        ws = begin(networks.encoder_anchor, crop=crop)()["ws"]
    state = _started(networks, crop, crop, crop, ws)
    with stage("recur"):
        compensated, noise, _, _ = _compensate(networks, state, crop, ws, switches)
    with stage("generate"):
        inversion, edit = _synthesise(networks, compensated, offset, noise)
    return state, inversion, edit


def _started(
    networks: Networks, crop: FloatArray, inversion: FloatArray, edit: FloatArray, anchor: FloatArray
) -> RecurrentState:
    """A state with an empty memory and nothing added to the code."""
    h, c = (_zeros(networks.recurrent.spec.inputs[name], crop) for name in ("h", "c"))
    nothing = np.zeros_like(anchor)
    return RecurrentState(
        crop, inversion, edit, crop, h, c, anchor, nothing, nothing, nothing, rhythm=Rhythm(unlooked=1)
    )


def _code_begun(networks: Networks, crop: FloatArray, switches: Switches) -> Answer:
    """Starts the base encoder on a frame: its former rows, or all of them without LFD."""
    return begin(networks.encoder if switches.lfd else networks.encoder_anchor, crop=crop)


def _image_based_code(
    networks: Networks, seen: FloatArray, anchor: FloatArray, switches: Switches
) -> tuple[FloatArray, FloatArray]:
    """w_t with its latter rows from the anchor (Eq. 3), or wholly from the frame without LFD; and the anchor after it.

    seen: the frame's own code. Both [B, L, D].
    """
    if not switches.lfd:
        return seen, anchor
    former = networks.former_rows
    # One graph may serve as both encoders; only then all rows are known, and the anchor can follow the light.
    if switches.following and seen.shape[1] == anchor.shape[1]:
        anchor = anchor + np.float32(FOLLOWED_SHARE) * (seen - anchor)
    return np.concatenate([seen[:, :former], anchor[:, former:]], axis=1), anchor


def _compensate(
    networks: Networks, state: RecurrentState, crop: FloatArray, ws: FloatArray, switches: Switches
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """One step of the recurrent encoder (Eq. 1): (w_t^lfd, n_t, h, c)."""
    return _compensated(networks, _recurrence_begun(networks, state, crop)(), ws, switches)


def _recurrence_begun(networks: Networks, state: RecurrentState, crop: FloatArray) -> Answer:
    """Starts the recurrent encoder on a frame."""
    return begin(
        networks.recurrent,
        crop_prev=state.crop,
        crop=crop,
        inversion_prev=state.inversion,
        edit_prev=state.edit,
        h=state.h,
        c=state.c,
    )


def _compensated(
    networks: Networks, outputs: Mapping[str, FloatArray], ws: FloatArray, switches: Switches
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """What the recurrent encoder's outputs make of the code: (w_t^lfd, n_t, h, c)."""
    noise = outputs["noise"] if switches.noise_map else np.zeros_like(outputs["noise"])
    if switches.tcc:
        former = networks.former_rows
        ws = np.concatenate([ws[:, :former] + outputs["dws"], ws[:, former:]], axis=1)
    return ws, noise, outputs["h_out"], outputs["c_out"]


def _kept_share(
    networks: Networks, inversion: FloatArray, edit: FloatArray, switches: Switches, reach: Reach | None
) -> FloatArray | None:
    """What the noise map may say in the edits, on its grid; None where it may say all.

    `kept_share`, but all where the edit is of colours alone, and at a head's outline, eyes and mouth where it is not
    meant for them: the code alone would draw ears and jaw where it takes the head to be, eyes of its own, and lips that
    hardly speak. Nothing where something is taken off.
    """
    if not switches.map_yields:
        return None
    side = int(networks.generator.spec.inputs["noise"][-1])
    kept = kept_share(inversion, edit, side)
    if reach is None:
        return kept
    changed = (reach.outline, reach.eyes, reach.mouth)
    left = [
        place * (1.0 - part[:, None, None, None]) for place, part in zip(part_places(side, kept), changed, strict=True)
    ]
    share: FloatArray = reduce(np.maximum, left, (1.0 - reach.reshaped)[:, None, None, None]).astype(kept.dtype)
    kept = kept + share * (1.0 - kept)
    if reach.off is not None:
        cells = reach.off.reshape(len(kept), 1, side, reach.off.shape[-1] // side, side, -1).mean(axis=(3, 5))
        kept = kept * (1.0 - cells).astype(kept.dtype)
    return kept


def kept_share(inversion: FloatArray, edit: FloatArray, side: int) -> FloatArray:
    """What the noise map may still say in an edit, [B, 1, side, side] in [0, 1]: less where it paints anew.

    The map draws what the code cannot say of this frame's face, closed lips as well as a scar; under a smile it would
    draw the lips over the teeth. How much an edit changes is seen on the frame before, `inversion` and `edit`
    [B, 3, S, S], S a multiple of `side`: where that comes near `REPAINTED`, the code alone draws the edit.
    """
    changed = np.abs(np.clip(edit, -1.0, 1.0) - np.clip(inversion, -1.0, 1.0)).sum(axis=1)
    batch, cell = len(changed), changed.shape[-1] // side
    # One axis at a time, the slow ones first: half the time of one mean over all three.
    small = changed.reshape(batch, side, cell, -1).sum(axis=2).reshape(batch, side, side, cell).sum(axis=3)
    small = small / np.float32(edit.shape[1] * cell * cell)
    for _ in range(2):
        padded = np.pad(small, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = padded[:, :-2] + 2.0 * padded[:, 1:-1] + padded[:, 2:]
        small = (rows[:, :, :-2] + 2.0 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16.0
    share: FloatArray = np.exp(-((small / REPAINTED) ** 4))[:, None].astype(edit.dtype)
    return share


def _synthesise(
    networks: Networks, ws: FloatArray, offset: FloatArray, noise: FloatArray, kept: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """G(ws, noise) and G(ws + offset, noise) as one batch (Eqs. 4 and 5).

    The latter rows of the edit are the anchor's plus the offset of this very frame, so that a slider acts at once.
    kept: the share of the noise map that the edit is drawn with (`kept_share`); None for all of it.
    """
    drawn = _drawn(networks, {"inversion": (ws, noise), "edit": (ws + offset, _kept_of(noise, kept))})
    return drawn["inversion"], drawn["edit"]


def _drawn(networks: Networks, pictures: Mapping[str, tuple[FloatArray, FloatArray]]) -> dict[str, FloatArray]:
    """G of codes and noise maps, by name."""
    drawn: dict[str, FloatArray] = {}
    names = list(pictures)
    for some in (names[n : n + PICTURES] for n in range(0, len(names), PICTURES)):
        ws, noise = map(as_batch, zip(*(pictures[name] for name in some), strict=True))
        images = networks.generator(ws=ws, noise=noise)["image"]
        faces = len(images) // len(some)
        drawn |= {name: images[n * faces : (n + 1) * faces] for n, name in enumerate(some)}
    return drawn


def as_batch(arrays: Sequence[FloatArray]) -> FloatArray:
    """Arrays as one batch; one alone is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _kept_of(noise: FloatArray, kept: FloatArray | None) -> FloatArray:
    return noise if kept is None else noise * kept


def _zeros(shape: tuple[int | str, ...], crop: FloatArray) -> NDArray[np.float32]:
    """Zeros for one input of a graph whose first axis is the batch, as many as crops and where those lie."""
    return np.zeros((len(crop), *(int(n) for n in shape[1:])), np.float32, like=crop)
