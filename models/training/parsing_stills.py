"""More samples for the face parser: photographs without masks, labelled by the parser itself.

CelebAMask-HQ has few hats and glasses. FFHQ has many, and a table that says who wears what: with that knowledge the
parser's own answers, averaged over the mirror image, are good labels. Where it is unsure nothing is learnt.
"""

import gzip
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.parsing import CLASSES, OCCLUDER_CLASSES
from models.training import parsing_samples as samples
from models.training.splits import load_splits

FEATURES = "labels/ffhq_features_all70k.jsonl.gz"
FOLDERS = ("faces/ffhq256", "faces/ffhq128")
WORN: Mapping[str, str] = {"headwear": "hat", "glasses": "glasses"}
"""The table's words for what is worn, and the parser's classes."""

BARE_EVERY = 4
"""One in so many of the photographs without hat and glasses is taken: CelebAMask-HQ has enough of them."""

SURE = 0.6
"""Probability of the best class from which a pixel is labelled."""

_FAVOUR: Mapping[str, float] = {"hat": 4.0, "glasses": 1.0}
"""What the probability of a class is multiplied with where the table says that it is there: hats pass for hair."""

_LEAST_WORN = {"hat": 0.08, "glasses": 0.005}
"""Share of the crop that something worn covers at least; less of it means that the parser has not found it."""

Parse = Callable[[Tensor], NDArray[np.float32]]


def labelled_stills(data: Path, parse: Parse) -> tuple[samples.U8, samples.U8]:
    """Training photographs of FFHQ, uint8 RGB [N, 256, 256, 3], and class indices [N, 256, 256], UNKNOWN where unsure.

    parse: crops [B, 3, 256, 256] -> logits [B, K, 128, 128]. Raises FileNotFoundError without the table of features.
    """
    crops, labels = [], []
    for path, worn in _wearers(data):
        image = cv2.imread(str(path))
        if image is None:
            raise FileNotFoundError(f"not a readable image: {path}")
        sized = cv2.resize(image, (samples.CROP_PX, samples.CROP_PX), interpolation=cv2.INTER_AREA)
        crop = cv2.cvtColor(sized, cv2.COLOR_BGR2RGB)
        label = label_of(crop, worn, parse)
        if label is not None:
            crops.append(crop)
            labels.append(label)
    return np.stack(crops), np.stack(labels)


def label_of(crop: samples.U8, worn: Collection[str], parse: Parse) -> samples.U8 | None:
    """Class indices [256, 256] of a crop on which `worn` are, of WORN's classes; None where they are not found."""
    chances = chances_of(crop, parse)
    for name in WORN.values():
        chances[CLASSES.index(name)] *= _FAVOUR[name] if name in worn else 0.0
    for name in OCCLUDER_CLASSES:
        chances[CLASSES.index(name)] = 0.0
    chances /= chances.sum(axis=0)
    label = np.where(chances.max(axis=0) >= SURE, chances.argmax(axis=0), samples.UNKNOWN).astype(np.uint8)
    if any((label == CLASSES.index(name)).mean() < _LEAST_WORN[name] for name in worn):
        return None
    return label.repeat(2, axis=0).repeat(2, axis=1)


def chances_of(crop: samples.U8, parse: Parse) -> NDArray[np.float32]:
    """Probabilities of the classes [K, 128, 128] of a crop, averaged over its mirror image."""
    both = [_softmax(parse(samples.to_network([crop]))[0]), _mirrored(crop, parse)]
    return np.asarray(np.mean(both, axis=0), np.float32)


def _mirrored(crop: samples.U8, parse: Parse) -> NDArray[np.float32]:
    return _softmax(parse(samples.to_network([np.ascontiguousarray(crop[:, ::-1])]))[0])[..., ::-1]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0), np.float32)


def _wearers(data: Path) -> Iterator[tuple[Path, list[str]]]:
    """Photographs to learn from, and the classes of what is worn on each."""
    accessories = _accessories(data / FEATURES)
    bare = 0
    for path in load_splits().faces(data, "train", FOLDERS):
        found = accessories.get(int(path.stem))
        if found is None:
            continue
        bare += not found
        if found or bare % BARE_EVERY == 0:
            yield path, [WORN[name] for name in found if name in WORN]


def _accessories(table: Path) -> dict[int, list[str]]:
    """FFHQ id -> the table's words for what the person wears; people whom it could not describe are left out."""
    with gzip.open(table, "rt", encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines)
        return {row["id"]: [item["type"] for item in row["a"]["accessories"]] for row in rows if row.get("a")}
