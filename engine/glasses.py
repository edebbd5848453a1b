"""What an edit does to a face behind its own glasses, when no slider is meant for them.

The generator draws rims of its own, which an edit tears; so the frame's stay, and its reflections. But without any
change at all an old face would have young skin there, and dark temples under grey hair. So the edit's change is taken
as it looks from afar, means of blocks, and without what stands out: a rim that the edit has elsewhere or not at all.
"""

import cv2
import numpy as np

from engine.geometry import shrunk
from engine.masks import begun, largest_around
from engine.restoring import GATE_RESOLUTION
from engine.runtimes.base import FloatArray

GLASSES_REACH = 2
GLASSES_RISE = 2.0
"""Pixels of the parser's output by which glasses reach further than it says, and steps of the logit over which they
begin: of those who wear none the margin lies below -1.4 (11 clips), of those who do above 6 (three)."""

STANDS_OUT = 0.15
"""Mean distance on the [-1, 1] scale from the change around it at which a pixel's change counts little."""

LEAST_COUNTED = 1e-5
"""Of a block, below which there is no change."""

LEAST_SHARE = 1.0 / 255.0
"""Of what is laid over an edit that is seen."""


def kept_on(image: FloatArray, crop: FloatArray, edit: FloatArray, margin: FloatArray, glasses: float) -> FloatArray:
    """The image, where the face wears glasses the crop with what `seen_from_afar` leaves of the edit's change.

    image, crop, edit: RGB [-1, 1] [3, S, S]; image: the edit or what has been made of it. margin: of the frame's
    glasses, [h, w]. glasses: how far they are the edit's, [0, 1]; at 1 the image comes back as it is.
    """
    size = crop.shape[-1]
    worn = begun(largest_around(margin, GLASSES_REACH), GLASSES_RISE)
    share = np.float32(1.0 - glasses) * np.asarray(cv2.resize(worn, (size, size)), dtype=np.float32)
    if share.max() < LEAST_SHARE:
        return image
    kept = np.empty_like(image)
    for change, own, plane, made in zip(seen_from_afar(edit - crop), crop, image, kept, strict=True):
        cv2.resize(change, (size, size), dst=made)
        made += own
        made -= plane
        made *= share
        made += plane
    return kept


def seen_from_afar(change: FloatArray) -> FloatArray:
    """Means of the blocks of a change [3, S, S], without what stands out, [3, G, G] with G = GATE_RESOLUTION."""
    size = change.shape[1:]
    apart = np.zeros(size, np.float32)
    for plane in change:
        near = cv2.blur(shrunk(plane, GATE_RESOLUTION), (3, 3), borderType=cv2.BORDER_REPLICATE)
        apart += cv2.absdiff(plane, cv2.resize(near, size, interpolation=cv2.INTER_NEAREST))
    counts = np.exp(-np.square(apart / np.float32(len(change) * STANDS_OUT)))
    counted = shrunk(counts, GATE_RESOLUTION) + np.float32(LEAST_COUNTED)
    means: FloatArray = np.stack([shrunk(plane * counts, GATE_RESOLUTION) / counted for plane in change])
    return means
