"""The loop against the paper's equations, on tiny networks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from engine.bundle import open_bundle
from engine.directions import Reach
from engine.recurrence import (
    FADED_SHARE,
    FOLLOWED_SHARE,
    FULL,
    LOOKED_SHARE,
    PRIMING_STEPS,
    REPAINTED,
    VARIANTS,
    Switches,
    advance,
    fitting,
    kept_share,
)
from engine.runtimes.select import open_networks, select
from engine.state import Rhythm, stack, unstack
from engine.steadying import MOTION_SIDE, steadied
from tests.engine.tiny_bundle import DIM, FORMER, ROWS, build

STEPS = 6


@pytest.fixture
def crops():
    """Smooth random crops, [T, 1, 3, 256, 256]."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(-1, 1, (STEPS, 1, 3, 8, 8)).astype(np.float32)
    return coarse.repeat(32, axis=-1).repeat(32, axis=-2)


@pytest.fixture
def offset():
    return np.random.default_rng(4).standard_normal((1, ROWS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def one_encoder_networks(tmp_path_factory):
    """One graph serves as both encoders, as in the default bundle."""
    folder = build(tmp_path_factory.mktemp("bundles") / "one_encoder", one_encoder=True)
    networks = open_networks(open_bundle(folder), select("onnxruntime"))
    yield networks
    networks.close()


WHOLE_RATE = VARIANTS["whole_rate"]


def reach_of(outline, off=None, eyes=1.0, mouth=1.0, reshaped=1.0):
    """Of one face, whole but for how much may change at the head's outline, its eyes and its mouth, where something is
    taken off, and how much may be painted anew."""
    weights = (np.array([weight], np.float32) for weight in (1.0, outline, eyes, mouth, 1.0, reshaped, 1.0))
    taken = None if off is None else np.full((1, 64, 64), off, np.float32)
    return Reach(*weights, np.ones((1, 256), np.float32), np.zeros((1, 2), np.int32), taken)


def run(networks, crops, offset, switches=FULL):
    """T single steps: the inversions and the edits."""
    state, inversions, edits = None, [], []
    for crop in crops:
        state, inversion, edit = advance(networks, state, crop, offset, switches)
        inversions.append(inversion)
        edits.append(edit)
    return np.array(inversions), np.array(edits)


def unrolled(networks, crops, offset):
    """Equations 1 and 3-5 written out, from the first frame to the last."""
    anchor = networks.encoder_anchor(crop=crops[0])["ws"]
    nothing = np.zeros((1, *networks.generator.spec.inputs["noise"][1:]), np.float32)
    h = c = np.zeros((1, *networks.recurrent.spec.inputs["h"][1:]), np.float32)
    inversions = [crops[0]]
    edits = [networks.generator(ws=anchor + offset, noise=nothing)["image"]]
    for t in range(1, len(crops)):
        out = networks.recurrent(
            crop_prev=crops[t - 1], crop=crops[t], inversion_prev=inversions[-1], edit_prev=edits[-1], h=h, c=c
        )
        h, c = out["h_out"], out["c_out"]
        ws = anchor.copy()
        ws[:, :FORMER] = networks.encoder(crop=crops[t])["ws"] + out["dws"]
        inversions.append(networks.generator(ws=ws, noise=out["noise"])["image"])
        edits.append(networks.generator(ws=ws + offset, noise=out["noise"])["image"])
    return np.array(inversions), np.array(edits)


def test_single_steps_equal_one_unrolled_run(tiny_networks, crops, offset):
    for stepped, written_out in zip(
        run(tiny_networks, crops, offset, VARIANTS["paper"]), unrolled(tiny_networks, crops, offset), strict=True
    ):
        np.testing.assert_allclose(stepped, written_out, atol=1e-5)


def test_a_step_changes_none_of_its_arguments(tiny_networks, crops, offset):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    before = [array.copy() for array in (state.crop, state.inversion, state.edit, state.h, state.c, state.anchor)]
    first = advance(tiny_networks, state, crops[1], offset)
    second = advance(tiny_networks, state, crops[1], offset)
    np.testing.assert_array_equal(first[2], second[2])
    for old, new in zip(before, (state.crop, state.inversion, state.edit, state.h, state.c, state.anchor), strict=True):
        np.testing.assert_array_equal(old, new)


def test_faces_as_a_batch_equal_faces_alone(tiny_networks, crops, offset):
    offsets = np.concatenate([offset, -offset])
    state = None
    alone: list = [None, None]
    for t in range(3):
        both = np.concatenate([crops[t], crops[t + 3]])
        state, _, edits = advance(tiny_networks, state, both, offsets)
        for k in range(2):
            alone[k], _, edit = advance(tiny_networks, alone[k], both[k : k + 1], offsets[k : k + 1])
            np.testing.assert_allclose(edits[k : k + 1], edit, atol=1e-5)
    np.testing.assert_allclose(stack(alone).h, state.h, atol=1e-5)
    np.testing.assert_array_equal(unstack(state)[1].anchor, alone[1].anchor)


def test_every_former_image_and_the_memory_matter(tiny_networks, crops, offset):
    _, edits = run(tiny_networks, crops, offset)
    _, without_first = run(tiny_networks, crops[1:], offset)
    assert np.abs(edits[-1] - without_first[-1]).max() > 1e-3


def test_a_slider_reaches_the_latter_rows_at_once(tiny_networks, crops, offset):
    latter = offset.copy()
    latter[:, :FORMER] = 0.0
    state, *_ = advance(tiny_networks, None, crops[0], np.zeros_like(offset))
    _, inversion, edit = advance(tiny_networks, state, crops[1], latter, WHOLE_RATE)
    assert np.abs(edit - inversion).max() > 1e-2


def test_first_frame_is_the_papers(tiny_networks, crops, offset):
    crop = crops[0]
    state, inversion, edit = advance(tiny_networks, None, crop, offset, VARIANTS["paper"])
    assert inversion is crop
    assert not state.h.any()
    assert not state.c.any()
    assert np.abs(edit - crop).max() > 1e-2


def test_primed_gives_the_first_frame_its_map(tiny_networks, crops, offset):
    state, inversion, edit = advance(tiny_networks, None, crops[0], offset, Switches(primed=True))
    _, _, plain = advance(tiny_networks, None, crops[0], offset, Switches(primed=False))
    assert state.h.any()
    assert np.abs(inversion - crops[0]).max() > 1e-2
    assert np.abs(edit - plain).max() > 1e-3


def test_priming_is_the_first_frame_shown_again(tiny_networks, crops, offset):
    """The steps after the first see what the one before made, as if the frame had come again."""
    networks = replace(tiny_networks, encoder=tiny_networks.encoder_anchor)
    # What the map yields to is seen on an inversion; on the very first frame there is one in the primed step alone.
    one_map = Switches(map_yields=False, inverted_every=1)
    primed, *_ = advance(networks, None, crops[0], offset, one_map)
    state, *_ = advance(networks, None, crops[0], offset, replace(one_map, primed=False))
    for _ in range(PRIMING_STEPS):
        state, *_ = advance(networks, state, crops[0], offset, one_map)
    for name in ("crop", "inversion", "edit", "h", "c", "anchor"):
        np.testing.assert_allclose(getattr(state, name), getattr(primed, name), atol=1e-6)


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"full", "unsteadied"}))
def test_every_switch_changes_the_result(tiny_networks, crops, offset, variant):
    full, _ = run(tiny_networks, crops, offset)
    ablated, _ = run(tiny_networks, crops, offset, VARIANTS[variant])
    assert np.abs(full[-1] - ablated[-1]).max() > 1e-3


def test_what_is_held_steady_is_what_the_next_frame_sees(tiny_networks, crops, offset):
    """Both pictures that are drawn are given to be held, with those of the frame before; an inversion that is estimated
    is the edit that was held less what the edit changed, carried along. Nothing is held on a track's first frame."""
    given = []

    def steady(before, now):
        given.append((before, now))
        return tuple(b / 4 if n is None else (b + n) / 2 for b, n in zip(before, now, strict=True))

    first, *_ = advance(tiny_networks, None, crops[0], offset, steady=lambda: steady)
    assert not given
    plain = advance(tiny_networks, first, crops[1], offset)
    _, inversion, edit = advance(tiny_networks, first, crops[1], offset, steady=lambda: steady)
    np.testing.assert_array_equal(edit, (first.edit + plain[2]) / 2)
    np.testing.assert_allclose(inversion, edit - (first.edit - first.inversion) / 4, atol=1e-6)
    given.clear()
    plain = advance(tiny_networks, first, crops[1], offset, WHOLE_RATE)
    state, inversion, edit = advance(tiny_networks, first, crops[1], offset, WHOLE_RATE, steady=lambda: steady)
    ((before, now),) = given
    assert all(a is b for a, b in zip(before, (first.inversion, first.edit), strict=True))
    for drawn, expected in zip(now, plain[1:], strict=True):
        np.testing.assert_array_equal(drawn, expected)
    assert state.inversion is inversion
    assert state.edit is edit
    np.testing.assert_array_equal(edit, (first.edit + plain[2]) / 2)


def test_the_map_yields_where_the_last_edit_painted_anew_and_nowhere_else():
    rng = np.random.default_rng(5)
    inversion = rng.uniform(-1, 1, (2, 3, 256, 256)).astype(np.float32)
    edit = inversion.copy()
    edit[1, :, 64:128, 160:224] = np.where(inversion[1, :, 64:128, 160:224] > 0, -1.0, 1.0)
    kept = kept_share(inversion, edit, 32)
    assert kept.shape == (2, 1, 32, 32)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept[0], 1.0)
    np.testing.assert_allclose(kept[1, :, 9:15, 21:27], 0.0, atol=1e-3)
    outside = np.ones((32, 32), bool)
    outside[6:18, 18:30] = False
    np.testing.assert_array_equal(kept[1, 0, outside], 1.0)


def test_a_faint_edit_keeps_its_map():
    """An edit that shifts the light a little is drawn with nearly all of the map; out of range counts as white."""
    inversion = np.full((1, 3, 256, 256), 0.9, np.float32)
    assert kept_share(inversion, inversion - 0.3 * REPAINTED, 32).min() > 0.99
    assert kept_share(inversion + 0.1, inversion + 5.0, 32).min() == 1.0


def test_the_edit_alone_is_drawn_with_the_map_that_yields(tiny_networks, crops, offset):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    one_map = replace(WHOLE_RATE, map_yields=False)
    _, inversion, edit = advance(tiny_networks, state, crops[1], offset, WHOLE_RATE)
    _, one_map_inversion, one_map_edit = advance(tiny_networks, state, crops[1], offset, one_map)
    np.testing.assert_allclose(inversion, one_map_inversion, atol=1e-6)
    assert np.abs(edit - one_map_edit).max() > 1e-4


def test_where_something_is_taken_off_the_edit_is_drawn_without_the_map(tiny_networks, crops, offset):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    state = replace(state, edit=state.inversion)  # nothing is painted anew, so that all of the map would be there
    everywhere = reach_of(1.0, off=1.0)
    _, inversion, edit = advance(tiny_networks, state, crops[1], offset, WHOLE_RATE, reach=everywhere)
    _, with_map, _ = advance(tiny_networks, state, crops[1], offset, WHOLE_RATE)
    _, _, without = advance(tiny_networks, state, crops[1], offset, Switches(noise_map=False))
    np.testing.assert_array_equal(inversion, with_map)
    np.testing.assert_allclose(edit, without, atol=1e-6)
    *_, partly = advance(tiny_networks, state, crops[1], offset, reach=reach_of(1.0, off=0.5))
    assert np.abs(partly - without).max() > 1e-4


def test_at_a_heads_outline_only_sliders_that_are_meant_for_it_make_the_map_yield(tiny_networks, crops, offset):
    """The generator under test is fully convolutional, so that what is drawn far from the face tells."""
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    state = replace(state, inversion=np.ones_like(crops[0]), edit=-np.ones_like(crops[0]))  # all of it is painted anew
    one_map = advance(tiny_networks, state, crops[1], offset, Switches(map_yields=False))[2]
    meant, face, half = (
        advance(tiny_networks, state, crops[1], offset, reach=reach_of(weight))[2] for weight in (1.0, 0.0, 0.5)
    )
    plain = advance(tiny_networks, state, crops[1], offset)[2]
    np.testing.assert_array_equal(meant, plain)
    ear, cheek = np.s_[..., 120:136, 8:24], np.s_[..., 140:156, 120:136]
    np.testing.assert_allclose(face[ear], one_map[ear], atol=1e-5)
    np.testing.assert_allclose(face[cheek], meant[cheek], atol=1e-5)
    assert np.abs(meant[ear] - one_map[ear]).max() > 1e-4
    assert np.abs(half[ear] - one_map[ear]).max() > 1e-4
    assert np.abs(half[ear] - meant[ear]).max() > 1e-4


@pytest.mark.parametrize(
    ("feature", "place"), [("eyes", np.s_[..., 116:124, 94:102]), ("mouth", np.s_[..., 184:192, 124:132])]
)
def test_at_eyes_and_mouth_only_sliders_that_are_meant_for_them_make_the_map_yield(
    tiny_networks, crops, offset, feature, place
):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    state = replace(state, inversion=np.ones_like(crops[0]), edit=-np.ones_like(crops[0]))
    one_map = advance(tiny_networks, state, crops[1], offset, Switches(map_yields=False))[2]
    reaches = (reach_of(1.0, **{feature: weight}) for weight in (1.0, 0.0))
    meant, others = (advance(tiny_networks, state, crops[1], offset, reach=reach)[2] for reach in reaches)
    nose = np.s_[..., 146:154, 124:132]
    yielding = np.abs(meant[place] - one_map[place]).mean()
    assert yielding > 1e-4
    assert np.abs(others[place] - one_map[place]).mean() < 0.5 * yielding  # the map's grid is coarse
    np.testing.assert_allclose(others[nose], meant[nose], atol=1e-5)


def test_the_map_does_not_yield_to_sliders_that_change_colours_alone(tiny_networks, crops, offset):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    state = replace(state, inversion=np.ones_like(crops[0]), edit=-np.ones_like(crops[0]))
    one_map = advance(tiny_networks, state, crops[1], offset, Switches(map_yields=False))[2]
    reaches = (reach_of(1.0, reshaped=weight) for weight in (0.0, 0.5, 1.0))
    colours, both, shapes = (advance(tiny_networks, state, crops[1], offset, reach=reach)[2] for reach in reaches)
    np.testing.assert_allclose(colours, one_map, atol=1e-6)
    assert np.abs(both - colours).max() > 1e-4
    assert np.abs(both - shapes).max() > 1e-4
    worn = advance(tiny_networks, state, crops[1], offset, reach=reach_of(1.0, off=1.0, reshaped=0.0))[2]
    np.testing.assert_allclose(worn, shapes, atol=1e-6)  # glasses are taken off all the same


def test_without_the_map_the_generator_gets_none(tiny_networks, crops, offset):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    code_alone = Switches(noise_map=False, tcc=False, inverted_every=1)
    after, inversion, _ = advance(tiny_networks, state, crops[1], offset, code_alone)
    ws = state.anchor.copy()
    ws[:, :FORMER] = tiny_networks.encoder(crop=crops[1])["ws"]
    ws += state.correction
    noise = np.zeros((1, *tiny_networks.generator.spec.inputs["noise"][1:]), np.float32)
    np.testing.assert_allclose(inversion, tiny_networks.generator(ws=ws, noise=noise)["image"], atol=1e-5)
    assert after.h.any()


def test_per_frame_forgets(tiny_networks, crops, offset):
    _, after_others = run(tiny_networks, crops, offset, VARIANTS["per_frame"])
    _, alone = run(tiny_networks, crops[-1:], offset, VARIANTS["per_frame"])
    np.testing.assert_array_equal(after_others[-1], alone[-1])


def test_the_anchor_follows_slowly_where_the_encoder_gives_all_rows(one_encoder_networks, crops, offset):
    """After n frames of another picture it has gone 1 - (1 - share)^n of the way; its first frame's code at first."""
    state, *_ = advance(one_encoder_networks, None, crops[0], offset)
    first = one_encoder_networks.encoder_anchor(crop=crops[0])["ws"]
    np.testing.assert_allclose(state.anchor, first, atol=1e-6)
    last = one_encoder_networks.encoder_anchor(crop=crops[1])["ws"]
    for _ in range(5):
        state, *_ = advance(one_encoder_networks, state, crops[1], offset)
    gone = 1.0 - (1.0 - FOLLOWED_SHARE) ** 5
    assert 0.01 < gone < 0.2
    np.testing.assert_allclose(state.anchor, first + gone * (last - first), atol=1e-5)


def test_the_latter_rows_are_the_anchors_of_this_frame(one_encoder_networks, crops, offset):
    """They move with it, a little; by the paper's rule they never do."""
    for name, moves in (("whole_rate", True), ("paper", False)):
        codes = []

        def generator(codes=codes, **arrays):
            codes.append(arrays["ws"][:1, FORMER:])
            return one_encoder_networks.generator(**arrays)

        counting = replace(one_encoder_networks, generator=_Counted(one_encoder_networks.generator.spec, generator))
        state, *_ = advance(counting, None, crops[0], offset, VARIANTS[name])
        state, *_ = advance(counting, state, crops[1], offset, VARIANTS[name])
        assert np.array_equal(codes[-1], codes[0]) != moves
        np.testing.assert_array_equal(codes[-1], state.anchor[:, FORMER:])


def test_without_all_rows_the_anchor_stays(tiny_networks, crops, offset):
    state, *_ = advance(tiny_networks, None, crops[0], offset)
    after, *_ = advance(tiny_networks, state, crops[1], offset)
    np.testing.assert_array_equal(after.anchor, state.anchor)


def test_three_of_four_inversions_are_the_edit_less_what_the_edit_changed(tiny_networks, crops, offset):
    """The equation written out, and the generator's work: two pictures, then three times one."""
    pictures = []

    def generator(**arrays):
        pictures.append(len(arrays["ws"]))
        return tiny_networks.generator(**arrays)

    counting = replace(tiny_networks, generator=_Counted(tiny_networks.generator.spec, generator))
    state, before = None, None
    for t, crop in enumerate(crops):
        _, full_inversion, full_edit = advance(tiny_networks, state, crop, offset, WHOLE_RATE)
        pictures.clear()
        state, inversion, edit = advance(counting, state, crop, offset)
        np.testing.assert_allclose(edit, full_edit, atol=1e-5)
        if t % 4:
            assert pictures == [1]
            np.testing.assert_allclose(inversion, edit - (before.edit - before.inversion), atol=1e-6)
            assert np.abs(inversion - full_inversion).max() > 1e-3
        else:
            assert pictures[-1] == 2
            np.testing.assert_allclose(inversion, full_inversion, atol=1e-5)
        np.testing.assert_array_equal(state.inversion, inversion)
        before = state


def test_what_an_edit_changes_goes_along_with_the_face(tiny_networks, crops, offset):
    """A face has moved by 8 px to the right; nothing of the frame before is mixed in, but the change is of there."""
    moved = np.zeros((3, MOTION_SIDE, MOTION_SIDE), np.float32)
    moved[0] = -8.0
    first, *_ = advance(tiny_networks, None, crops[0], offset)
    _, inversion, edit = advance(
        tiny_networks, first, crops[1], offset, steady=lambda: partial(steadied, motions=[moved])
    )
    change = first.edit - first.inversion
    np.testing.assert_allclose((edit - inversion)[..., 8:], change[..., :-8], atol=1e-4)
    assert np.abs(change[..., 8:] - change[..., :-8]).max() > 0.01
    drawn = advance(tiny_networks, first, crops[1], offset)[2]
    np.testing.assert_allclose(edit, drawn, atol=1e-6)


def test_faces_that_come_together_keep_in_step(tiny_networks, crops, offset):
    """A batch is generated whole when any of its faces is due."""
    states, state = [], None
    for crop in crops[:4]:
        state, *_ = advance(tiny_networks, state, crop, offset)
        states.append(state)
    assert [state.rhythm for state in states] == [Rhythm(n, n + 1) for n in range(4)]
    both = stack([states[3], states[0]])
    assert both.rhythm == Rhythm(3, 4)
    after, *_ = advance(tiny_networks, both, crops[4].repeat(2, axis=0), offset.repeat(2, axis=0))
    assert [state.rhythm for state in unstack(after)] == [Rhythm(0, 5)] * 2
    again, *_ = advance(tiny_networks, after, crops[5].repeat(2, axis=0), offset.repeat(2, axis=0))
    assert again.rhythm == Rhythm(1, 6)


class _Counted:
    """A network with a function in its place."""

    def __init__(self, spec, function):
        self.spec = spec
        self._function = function

    def __call__(self, **arrays):
        return self._function(**arrays)


class Grey:
    """A generator whose images are grey, as bright as the mean of the code."""

    def __init__(self, spec):
        self.spec = spec

    def __call__(self, ws, noise):
        return {"image": np.broadcast_to(ws.mean(axis=(1, 2))[:, None, None, None], (len(ws), 3, 8, 8))}


def test_a_likeness_is_taken_by_the_face_that_it_brings_nearer(tiny_networks):
    networks = replace(tiny_networks, generator=Grey(tiny_networks.generator.spec))
    crops = np.stack([np.full((3, 8, 8), level, np.float32) for level in (0.5, -0.5)])
    likeness = np.full((ROWS, DIM), 0.3, np.float32)
    taken = fitting(networks, crops, np.zeros((2, ROWS, DIM), np.float32), likeness)
    np.testing.assert_array_equal(taken, np.stack([likeness, np.zeros_like(likeness)]))


def test_without_a_likeness_the_generator_is_not_asked(tiny_networks, crops):
    silent = replace(tiny_networks, generator=None)
    assert not fitting(silent, crops[0], np.ones((1, ROWS, DIM), np.float32), None).any()


def test_a_new_likeness_is_faded_in_and_moves_every_row(tiny_networks, crops, offset):
    codes_alone = Switches(noise_map=False, tcc=False, following=False, inverted_every=1)
    aim = np.random.default_rng(6).standard_normal((1, ROWS, DIM)).astype(np.float32)
    state, *_ = advance(tiny_networks, None, crops[0], offset, codes_alone)
    after, inversion, edit = advance(tiny_networks, replace(state, aim=aim), crops[1], offset, codes_alone)
    np.testing.assert_allclose(after.added, state.correction + FADED_SHARE * aim, atol=1e-6)
    np.testing.assert_array_equal(after.anchor, state.anchor)
    seen = tiny_networks.encoder(crop=crops[1])["ws"][:, :FORMER]
    ws = np.concatenate([seen, state.anchor[:, FORMER:]], axis=1) + after.added
    nothing = np.zeros((1, *tiny_networks.generator.spec.inputs["noise"][1:]), np.float32)
    for moved, image in ((ws, inversion), (ws + offset, edit)):
        np.testing.assert_allclose(tiny_networks.generator(ws=moved, noise=nothing)["image"], image, atol=1e-5)
    for _ in range(40):
        after, *_ = advance(tiny_networks, after, crops[1], offset, codes_alone)
    np.testing.assert_allclose(after.added, state.correction + aim, atol=0.01)


def test_what_the_encoder_misses_is_told_by_the_first_inversion_and_added_to_every_code(tiny_networks, crops, offset):
    codes_alone = Switches(noise_map=False, tcc=False, following=False, inverted_every=1)
    nothing = np.zeros((1, *tiny_networks.generator.spec.inputs["noise"][1:]), np.float32)
    state, first, _ = advance(tiny_networks, None, crops[0], offset, codes_alone)
    anchor = tiny_networks.encoder_anchor(crop=crops[0])["ws"]
    seen = tiny_networks.generator(ws=anchor, noise=nothing)["image"]
    correction = tiny_networks.refiner(crop=crops[0], inversion=seen)["dws"]
    assert np.abs(correction).mean() > 0.01
    np.testing.assert_allclose(state.correction, correction, atol=1e-6)
    np.testing.assert_array_equal(state.anchor, anchor)
    np.testing.assert_allclose(
        first, tiny_networks.generator(ws=anchor + correction, noise=nothing)["image"], atol=1e-5
    )
    after, second, _ = advance(replace(tiny_networks, refiner=None), state, crops[1], offset, codes_alone)
    np.testing.assert_array_equal(after.correction, state.correction)
    ws = np.concatenate([tiny_networks.encoder(crop=crops[1])["ws"], anchor[:, FORMER:]], axis=1) + correction
    np.testing.assert_allclose(second, tiny_networks.generator(ws=ws, noise=nothing)["image"], atol=1e-5)


def test_the_refiner_looks_again_every_so_often_and_its_correction_is_faded_in(tiny_networks, crops, offset):
    """What it looks at is drawn on one frame, of the code alone, and looked at on the next."""
    looks, nothing = [], np.zeros((1, *tiny_networks.generator.spec.inputs["noise"][1:]), np.float32)

    def refiner(crop, inversion):
        looks.append((crop, inversion))
        return {"dws": np.full((len(crop), ROWS, DIM), 0.5 * len(looks), np.float32)}

    networks = replace(tiny_networks, refiner=_Counted(None, refiner))
    for switches in (Switches(), Switches(inverted_every=1)):
        looks.clear()
        state, *_ = advance(networks, None, crops[0], offset, switches)
        assert len(looks) == 1
        for frame in range(1, 100):
            before = state
            state, *_ = advance(networks, before, crops[frame % len(crops)], offset, switches)
            aim = state.correction + state.aim
            np.testing.assert_allclose(state.added, before.added + FADED_SHARE * (aim - before.added), atol=1e-6)
            if state.rhythm.unlooked == 0:
                assert state.rhythm.estimated == min(switches.inverted_every - 1, 1)
                code = tiny_networks.encoder(crop=state.crop)["ws"][:, :FORMER]
                code = np.concatenate([code, state.anchor[:, FORMER:]], axis=1)
                drawn = tiny_networks.generator(ws=code, noise=nothing)["image"]
                np.testing.assert_allclose(state.bare, drawn, atol=1e-5)
            else:
                assert state.bare is before.bare
            if before.rhythm.unlooked or frame == 1:
                np.testing.assert_array_equal(state.correction, before.correction)
                continue
            assert all(given is kept for given, kept in zip(looks[-1], (before.crop, before.bare), strict=True))
            moved = LOOKED_SHARE * (0.5 * len(looks) - before.correction)
            np.testing.assert_allclose(state.correction, before.correction + moved, atol=1e-6)
        assert len(looks) == 1 + 3


def test_the_papers_codes_and_those_of_a_bundle_without_a_refiner_are_the_encoders(tiny_networks, crops, offset):
    states = [
        advance(tiny_networks, None, crops[0], offset, VARIANTS["paper"])[0],
        advance(replace(tiny_networks, refiner=None), None, crops[0], offset)[0],
    ]
    assert not any(state.correction.any() for state in states)


def test_a_track_begins_with_the_likeness_that_fits_at_once(tiny_networks, crops, offset):
    aim = np.random.default_rng(6).standard_normal((ROWS, DIM)).astype(np.float32)
    anchor = tiny_networks.encoder_anchor(crop=crops[0])["ws"]
    nothing = np.zeros((1, *tiny_networks.generator.spec.inputs["noise"][1:]), np.float32)
    own = tiny_networks.generator(ws=anchor + aim, noise=nothing)["image"]
    # The encoder sees the crop of before, the loop this person, whom the likeness brings back wholly.
    networks = replace(tiny_networks, encoder_anchor=lambda crop: {"ws": anchor}, refiner=None)
    state, *_ = advance(networks, None, own, offset, likeness=aim)
    np.testing.assert_array_equal(state.added[0], aim)
    np.testing.assert_array_equal(state.aim[0], aim)
    other, *_ = advance(
        networks, None, tiny_networks.generator(ws=anchor, noise=nothing)["image"], offset, likeness=aim
    )
    assert not other.added.any()
    assert not other.aim.any()
    edit = tiny_networks.generator(ws=anchor + aim + offset, noise=nothing)["image"]
    for switches in (VARIANTS["paper"], Switches(noise_map=False, tcc=False)):
        first, *_ = advance(networks, None, own, offset, switches, likeness=aim)
        np.testing.assert_allclose(first.edit, edit, atol=1e-5)
