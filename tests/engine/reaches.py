"""Where an edit of one face acts, for tests."""

import numpy as np

from engine.directions import Reach
from engine.geometry import CROP_SIZE


def reach_of_one(**parts) -> Reach:
    """Everywhere and on everything, hair among it, but for the parts given."""
    meant = dict.fromkeys(("hair", "outline", "eyes", "mouth", "glasses", "reshaped", "tones"), np.float32(1.0))
    everywhere = Reach(**meant, zones=np.ones(CROP_SIZE, np.float32), shifts=np.zeros(2, np.int32))
    return everywhere._replace(**parts)
