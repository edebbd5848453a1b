"""Two real clips in which the face comes and goes: it is never shown unedited."""

import os
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from engine.assets import asset_path, is_cached
from engine.frames import CameraFrame, Controls
from engine.policies import blurred
from engine.session import Session
from engine.tracking import Tracker

CLIPS = ("pyfeat_face_noface.mov", "pyfeat_noface_face.mov")
ASSETS = ("face_detector_full", "face_mesh")

pytestmark = [
    pytest.mark.skipif("RIGID_TEST_DATA" not in os.environ, reason="RIGID_TEST_DATA is not set"),
    pytest.mark.skipif(
        not all(map(is_cached, ASSETS)), reason="assets are not in the cache; run: rigid-live assets pull"
    ),
]


def frames_of(clip):
    path = Path(os.environ["RIGID_TEST_DATA"]) / "videos" / clip
    with av.open(path) as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield CameraFrame(index, int(frame.time * 1e9), frame.to_ndarray(format="bgr24"))


def is_safe(frame, image, box_px, shown_before):
    """Whether the place of a face differs by three grey levels, or the whole frame is frozen, blurred or blank."""
    x0, y0 = (max(int(n), 0) for n in box_px[:2])
    x1, y1 = (int(n) + 1 for n in box_px[2:])
    difference = np.abs(image[y0:y1, x0:x1].astype(int) - frame.image[y0:y1, x0:x1])
    return difference.mean() >= 3.0 or image is shown_before or np.array_equal(image, blurred(frame.image))


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(
    ("policy", "every"),
    [("hold", 3), *(pytest.param(policy, 1, marks=pytest.mark.slow) for policy in ("hold", "freeze", "blank"))],
)
def test_no_face_is_shown_unedited(tiny_folder, clip, policy, every):
    """every: of the clip's frames one in so many, as from a slower camera."""
    detector = Tracker.open(*map(asset_path, ASSETS), threads=1)
    shown, faces, untouched = None, 0, 0
    with Session.open(tiny_folder, lost_face=policy) as session:
        for frame in islice(frames_of(clip), 0, None, every):
            image = session.step(frame, Controls({"smile": 1.0})).image
            for found in detector.detect(frame.image, 0.2):
                faces += 1
                assert is_safe(frame, image, found.box_px, shown), f"frame {frame.index}"
            untouched += np.array_equal(image, frame.image)
            shown = image
    assert faces > 3
    assert untouched > 3, "the empty room is shown as it is"
