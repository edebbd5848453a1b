"""More samples for the face parser: mouths wide open, which it takes for things before a face.

CelebAMask-HQ's faces hardly open theirs. The light generator draws as many as one likes, each with the same person's
mouth as it was: what is seen there belongs to the face, and what the parser calls a thing on both pictures may be one.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engine.bundle import open_bundle
from engine.bundle_build import DEFAULT, bundle_path
from engine.directions import edit_offset
from models.mobile_stylegan import LATENT_DIM
from models.parsing import CLASSES, OCCLUDER_CLASSES
from models.pictures import pictures_from
from models.training import parsing_samples as samples
from models.training.parsing_stills import SURE, Parse, chances_of
from models.training.samples import CodeSampler
from models.training.stills import Generator

OPENED = (1.0, 1.7)
"""How far beyond a mouth's own state, in the slider's range."""

ALSO = ("surprised", "smile")
"""Sliders that go along with it, each on half of the faces and by up to 1."""

SUSPECTED = 0.15
"""Probability from which a thing may be there."""

BEYOND_PX = 9
"""How far beyond a thing that may be there nothing is learnt, in pixels of 128."""


def open_mouths(count: int, parse: Parse, seed: int = 11) -> tuple[samples.U8, samples.U8]:
    """Drawn faces, uint8 RGB [N, 256, 256, 3], and class indices [N, 256, 256], samples.UNKNOWN where unsure.

    parse: crops [B, 3, 256, 256] -> logits [B, K, 128, 128]. Raises AssetMissing, CheckpointError, BundleError.
    """
    draw = _pairs(seed)
    crops, labels = [], []
    for _ in range(count):
        closed, opened = draw()
        crops.append(opened)
        labels.append(label_of_open(chances_of(closed, parse), chances_of(opened, parse)))
    return np.stack(crops), np.stack(labels).repeat(2, axis=1).repeat(2, axis=2)


def label_of_open(closed: NDArray[np.float32], opened: NDArray[np.float32]) -> samples.U8:
    """Class indices [H, W], UNKNOWN where unsure, of a face that has opened its mouth, from the probabilities [K, H, W]
    of its classes before and after: what came to look like a thing where the face was is the face."""
    things = [CLASSES.index(name) for name in OCCLUDER_CLASSES]
    skin = CLASSES.index("skin")
    before, after = closed[things].sum(axis=0), opened[things].sum(axis=0)
    rest = opened.copy()
    rest[things] = 0.0
    rest /= rest.sum(axis=0)
    label = np.where(rest.max(axis=0) >= SURE, rest.argmax(axis=0), samples.UNKNOWN).astype(np.uint8)
    was_skin = closed[skin] >= SURE
    label[after > SUSPECTED] = samples.UNKNOWN
    label[(after > SUSPECTED) & was_skin] = skin
    around = np.ones((BEYOND_PX, BEYOND_PX), np.uint8)
    label[cv2.dilate((before > SUSPECTED).astype(np.uint8), around) > 0] = samples.UNKNOWN
    return label


def _pairs(seed: int) -> Callable[[], tuple[samples.U8, samples.U8]]:
    """Gives a face, and the same with its mouth wide open, uint8 RGB [256, 256, 3]."""
    bundle = open_bundle(bundle_path(DEFAULT))
    directions, rows = bundle.directions, bundle.manifest.latent_rows
    codes, generator, rng = CodeSampler.open(), Generator(torch.device("cpu")), np.random.default_rng(seed)

    def draw() -> tuple[samples.U8, samples.U8]:
        code = codes.draw(1, torch.Generator().manual_seed(int(rng.integers(2**62))))
        ws = code[:, None].repeat(1, rows, 1)
        values = {"mouth_open": float(rng.uniform(*OPENED))}
        values |= {name: float(rng.random()) for name in ALSO if rng.random() < 0.5}
        # An offset is linear in each value, but ends at 1.
        offset = sum(value * edit_offset(directions, {name: 1.0}, (rows, LATENT_DIM)) for name, value in values.items())
        pictures = [generator(ws), generator(ws + torch.from_numpy(np.asarray(offset, np.float32)))]
        closed, opened = pictures_from(torch.cat(pictures).numpy())
        return closed, opened

    return draw
