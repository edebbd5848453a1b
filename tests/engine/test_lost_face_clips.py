"""Two real clips in which the face comes and goes: it is never shown unedited."""

from itertools import islice

import numpy as np
import pytest

from engine.frames import Controls
from engine.policies import blurred
from engine.session import Session
from engine.tracking import Tracker
from tests.clip_frames import frames_of

CLIPS = ("pyfeat_face_noface.mov", "pyfeat_noface_face.mov")


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
def test_no_face_is_shown_unedited(tiny_folder, clips, clip, policy, every):
    """every: of the clip's frames one in so many, as from a slower camera."""
    detector = Tracker.open(threads=1)
    shown, faces, untouched = None, 0, 0
    with Session.open(tiny_folder, lost_face=policy) as session:
        for frame in islice(frames_of(clips / clip), 0, None, every):
            image = session.step(frame, Controls({"smile": 1.0})).image
            for found in detector.detect(frame.image, 0.2):
                faces += 1
                assert is_safe(frame, image, found.box_px, shown), f"frame {frame.index}"
            untouched += np.array_equal(image, frame.image)
            shown = image
    assert faces > 3
    assert untouched > 3, "the empty room is shown as it is"
