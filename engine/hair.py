"""What colours an edit may give hair.

Hair has its colours of pigments that are yellow, red or brown, and without any it is grey. What a step in W adds to a
photograph knows nothing of that: from black hair that shines blue grey hair came out teal, and brown hair that was
darkened red. So hair grows more colourful, and less blue or green, only as far as it grows lighter.
"""

import numpy as np

from engine.runtimes.base import FloatArray

LUMA = (0.299, 0.587, 0.114)
"""Of R, G and B (ITU-R BT.601)."""

PIGMENT = 0.35
"""How much further red or yellow may lie above grey for each step that hair is lighter; of a fair wig it is all."""


def pigmented(crop: FloatArray, edit: FloatArray, share: FloatArray | float) -> FloatArray:
    """An edit with colours that hair of the frame can have, RGB [-1, 1] [3, S, S], as both are.

    How light each pixel is stays. An edit that is the crop comes back as it is. share: how much of that is done at each
    place, [0, 1] [S, S].
    """
    light, of_edit = _light(crop), _light(edit)
    more = np.maximum(of_edit - light, 0.0) * np.float32(PIGMENT)
    red, blue = edit[0] - of_edit, edit[2] - of_edit
    own_red, own_blue = crop[0] - light, crop[2] - light
    # Grey lies within these bounds, and so do the crop's own red and blue where the edit is no lighter.
    redder = (np.clip(red, np.minimum(own_red + more, 0.0), np.maximum(own_red, 0.0) + more) - red) * share
    bluer = (np.clip(blue, np.minimum(own_blue, 0.0) - more, np.maximum(own_blue - more, 0.0)) - blue) * share
    greener = (redder * np.float32(-LUMA[0]) + bluer * np.float32(-LUMA[2])) / np.float32(LUMA[1])
    held: FloatArray = edit + np.stack([redder, greener, bluer])
    return held


def _light(image: FloatArray) -> FloatArray:
    light: FloatArray = np.tensordot(np.array(LUMA, np.float32), image, axes=1)
    return light
