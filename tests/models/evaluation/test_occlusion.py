"""What stays before a face: counted on frames that are made up, and on the clip whose hands were marked."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.frames import CameraFrame, EditedFrame, Phase
from engine.geometry import square_from_frame
from models.evaluation import occlusion
from models.evaluation.occlusion import Marked, Tally, tally_frame, tally_scene

THING = np.zeros((60, 60), bool)
THING[:, 20:30] = True
FACE = np.zeros((60, 60), bool)
FACE[20:] = True
BEFORE = np.full((60, 60, 3), 100, np.uint8)


def test_pixels_of_thing_and_face_are_counted_apart():
    after = BEFORE.copy()
    after[:30] = 110  # everything in the upper half is edited
    tally = tally_frame(BEFORE, after, THING, FACE)
    assert (tally.thing, tally.thing_kept) == (600, 300)
    assert (tally.over_face, tally.over_face_kept) == (400, 300)
    assert (tally.face, tally.face_edited) == (40 * 32, 10 * 32)  # nine pixels around the thing are neither


@pytest.mark.parametrize(("levels", "kept"), [(4, 600), (5, 0)])
def test_a_change_of_one_channel_by_more_than_four_levels_is_an_edit(levels, kept):
    after = BEFORE.copy()
    after[..., 2] -= levels
    assert tally_frame(BEFORE, after, THING, FACE).thing_kept == kept


class Painter:
    """A session that loses the face on one frame and edits the others all over."""

    def __init__(self) -> None:
        self.values = []

    def reset(self) -> None:
        self.values = []

    def step(self, frame, controls):
        self.values.append(dict(controls.values))
        phase = Phase.HOLDING if frame.index == 2 else Phase.TRACKING
        return EditedFrame(frame.index, 0, frame.image + np.uint8(50), phase, {})


def test_frames_without_a_mark_or_a_track_are_edited_and_not_counted():
    scene = [Marked(CameraFrame(n, n, BEFORE), THING if n else None, FACE if n else None) for n in range(4)]
    painter = Painter()
    tally = tally_scene(painter, scene)
    assert (tally.frames, tally.thing_kept, tally.face_edited) == (2, 0, tally.face)
    assert painter.values == [{"smile": 1.0, "age": 1.0}] * 4


def test_sums_and_shares():
    total = Tally(1, 10, 5, 4, 1, 8, 8) + Tally(1, 30, 5, 0, 0, 8, 0)
    assert total == Tally(2, 40, 10, 4, 1, 16, 8)
    block = total.block("new", "hands")
    assert (block["unedited"], block["unedited_over_face"], block["face_edited"]) == (0.25, 0.25, 0.5)
    assert replace(total, thing=0).block("new", "hands")["unedited"] == 0.0


def test_an_outline_is_in_pixels_of_the_frame():
    inside = occlusion.outlined("10,5 20,5 20,9 10,9", np.zeros((30, 40, 3), np.uint8))
    assert inside[5:10, 10:21].all()
    assert inside.sum() == 55


def test_only_what_lies_in_the_crop_counts():
    class Track:
        landmarks_px = np.array([[100, 100, 0], [140, 100, 0], [120, 160, 0]], np.float32)
        crop_from_frame = square_from_frame(np.array([120.0, 120.0]), np.array([50.0, 0.0]), 256)

    frame = CameraFrame(0, 0, np.zeros((240, 320, 3), np.uint8))
    marked = occlusion._marked(frame, Track(), np.ones((240, 320), bool))
    ys, xs = np.nonzero(marked.thing)
    assert np.abs(np.array([xs.min(), xs.max(), ys.min(), ys.max()]) - [70, 170, 70, 170]).max() <= 1
    assert marked.face[110, 120]
    assert not marked.face[150, 105]
    assert occlusion._marked(frame, None, marked.thing).thing is None


@pytest.mark.skipif("RIGID_TEST_DATA" not in os.environ, reason="RIGID_TEST_DATA names no data folder")
def test_the_marked_hands_are_twenty_and_reach_over_the_face():
    data = Path(os.environ["RIGID_TEST_DATA"])
    ((what, scene),) = occlusion.hand_scenes(data, occlusion.open_tracker())
    marked = [frame for frame in scene if frame.thing is not None]
    assert (what, len(marked)) == ("hands", 20)
    assert sum(bool((frame.thing & frame.face).any()) for frame in marked) >= 10


@pytest.mark.skipif("RIGID_TEST_DATA" not in os.environ, reason="RIGID_TEST_DATA names no data folder")
def test_a_pasted_thing_is_before_the_face_and_nowhere_else():
    data = Path(os.environ["RIGID_TEST_DATA"])
    tracker = occlusion.open_tracker()
    kind, scene = next(occlusion.pasted_scenes(data, tracker))
    path = occlusion.load_splits().clips(data, "test")[0]
    clean = [frame.image for frame in occlusion.read_frames(path, len(scene))]
    assert kind in occlusion.occluders.HELD_OUT
    for marked, bare in zip(scene, clean, strict=True):
        changed = (marked.frame.image != bare).any(axis=2)
        if marked.thing is None:
            assert not changed.any()
        else:
            assert 0.01 < (marked.thing & marked.face).sum() / marked.face.sum() < 0.9
            assert changed.sum() < 2.0 * marked.thing.sum()
