"""Photographed hands for the parser's training: each cut out of a picture of one hand before a plain, pale wall.

The pictures are the Sign Language Digits Dataset's (Apache-2.0; A. Mavi, arXiv:2011.08927): 2,062 of 218 students,
100 x 100 px, the forearm leaving through the lower edge. github.com/ardamavi/Sign-Language-Digits-Dataset, not ours.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_SHARES = 0.06, 0.6
"""Of a picture that a hand covers; less or more of it means that it was not found."""

_WRIST_SHARES = 0.08, 0.7
"""Of the lower edge that a forearm covers."""

_CUTS = 3
"""Rounds of GrabCut; the answer settles in two."""


@dataclass(frozen=True)
class HandPhoto:
    """paint: uint8 RGB [H, W, 3]. inside: uint8 [H, W], 255 where the hand is.

    wrist: x of the middle of the forearm on the lower edge, px, and its width there, px.
    """

    paint: U8
    inside: U8
    wrist: tuple[float, float]


def load_hands(folder: Path) -> list[HandPhoto]:
    """Every hand that can be cut out of the pictures below a folder, in the order of their paths.

    Raises FileNotFoundError when there is none.
    """
    found = (
        cut_out(image)
        for path in sorted(folder.rglob("*.[jJ][pP][gG]"))
        if (image := cv2.imread(str(path))) is not None
    )
    hands = [hand for hand in found if hand is not None]
    if not hands:
        raise FileNotFoundError(f"no picture below {folder} shows a hand before a pale wall")
    return hands


def cut_out(image: U8) -> HandPhoto | None:
    """The hand of a picture, uint8 BGR [H, W, 3]; None where it is not found or does not come in from below."""
    inside = _inside(image)
    wrist = np.flatnonzero(inside[-1])
    shares = (inside > 0).mean(), len(wrist) / inside.shape[1]
    if not all(least <= share <= most for share, (least, most) in zip(shares, (_SHARES, _WRIST_SHARES), strict=True)):
        return None
    return HandPhoto(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), inside, (float(wrist.mean()), float(np.ptp(wrist)) + 1.0))


def _inside(image: U8) -> U8:
    """255 where the largest thing redder than the wall is, [H, W]; empty where there is no such thing."""
    tones = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb).astype(np.float32)
    warmth = cv2.GaussianBlur(tones[..., 1] - tones[..., 2], (0, 0), 1.0)
    levels = cv2.normalize(warmth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    _, warm = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    marks = np.where(warm, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[cv2.erode(warm, np.ones((7, 7), np.uint8)) > 0] = cv2.GC_FGD
    marks[cv2.dilate(warm, np.ones((9, 9), np.uint8)) == 0] = cv2.GC_BGD
    if not {cv2.GC_FGD, cv2.GC_BGD} <= set(np.unique(marks)):
        return np.zeros(image.shape[:2], np.uint8)
    cv2.grabCut(image, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), _CUTS, cv2.GC_INIT_WITH_MASK)
    _, pieces, sizes, _ = cv2.connectedComponentsWithStats(np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8))
    largest = 1 + sizes[1:, cv2.CC_STAT_AREA].argmax()
    return np.where(pieces == largest, np.uint8(255), np.uint8(0))
