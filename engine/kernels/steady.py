"""Pictures held steady along the faces' motion, on the kernels' device; defined by `steadying.steadied`."""

import numpy as np

from engine.geometry import CROP_SIZE
from engine.kernels.load import Array, Kernels, check
from engine.steadying import MOTION_SIDE


def steady_faces(kernels: Kernels, before: Array, now: Array | None, motions: Array, out: Array) -> None:
    """What `steadying.steadied` makes of one kind of picture of each face.

    before, now: RGB, `real` [F, 3, CROP_SIZE, CROP_SIZE], contiguous; now: None for what was before alone. motions:
    float32 [F, 3, MOTION_SIDE, MOTION_SIDE]. out: as `before`; written, and none of the others.
    """
    faces = out.shape[0]
    alone = now is None
    now = before if alone else now
    for array in (before, now, out):
        check(array, kernels.real, (faces, 3, CROP_SIZE, CROP_SIZE))
    check(motions, np.dtype(np.float32), (faces, 3, MOTION_SIDE, MOTION_SIDE))
    size = (CROP_SIZE, CROP_SIZE, faces)
    kernels.launch("steady", "carry", size, before, now, int(alone), motions, MOTION_SIDE, out, CROP_SIZE)
