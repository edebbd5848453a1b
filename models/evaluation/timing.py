"""How long the whole path takes on a clip, from decoded frame to edited frame."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from engine.frames import Controls
from engine.recurrence import Switches
from engine.session import Session, Settings
from models.evaluation.clips import open_tracker, read_frames
from models.evaluation.rollout import LoadedBundle

_FRAMES = 30
_WARM_UP = 3
"""The first frames, which detect the face and take the anchor, are not counted."""


def seconds_per_100_frames(path: Path, loaded: LoadedBundle, values: Mapping[str, float], switches: Switches) -> float:
    """100 x the mean wall time of `Session.step` on the clip's first frames: tracking to blending, no decoding.

    values: the edit; without one the first attribute is set, because an untouched frame costs nothing.
    """
    controls = Controls(values)
    if controls.neutral:
        controls = Controls({next(iter(loaded.bundle.directions)): 1.0})
    parser, directions = loaded.bundle.manifest.parser, loaded.bundle.directions
    session = Session(loaded.networks, open_tracker(), directions, parser, Settings(switches=switches))
    spent_s = []
    for frame in read_frames(path, _FRAMES + _WARM_UP):
        start_s = time.perf_counter()
        session.step(frame, controls)
        spent_s.append(time.perf_counter() - start_s)
    return 100.0 * fmean(spent_s[_WARM_UP:] or spent_s)
