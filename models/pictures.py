"""Pictures of 8 bits, and the images that networks take and give."""

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
"""uint8 RGB [N, H, W, 3]; faces are aligned as FFHQ's, 256 px."""

Images = NDArray[np.float32]
"""float32 RGB [N, 3, H, W] in [-1, 1]."""


def images_from(pictures: Pictures) -> Images:
    """uint8 RGB pictures as the networks see them."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5) - np.float32(1)


def pictures_from(images: Images) -> Pictures:
    """Images rounded and clipped to 8 bits."""
    levels = np.clip(np.rint((images + np.float32(1)) * np.float32(127.5)), 0, 255)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))
