"""Trains the small attribute classifiers: ridge regression on frozen features of labelled faces, in closed form.

    python -m models.training.attributes --data DIR --out models/weights/attribute_classifiers.npz

Labels are FFHQ's machine labels (glasses, beard, hair, make-up, smile), CelebAMask-HQ's masks (glasses, hair) and the
ratings of the One Million Impressions faces (weight, hair length, skin). The features have far more numbers than there
are faces, so the ridge is solved in its dual form: one linear system of the size of the training set.
"""

import argparse
import csv
import gzip
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from models.attribute_classifiers import BLOCKS, FEATURES, WEIGHTS_FILE, Features, LinearHeads, features_of
from models.perceptual import StLpips
from models.training.splits import PARSING_IMAGES, PARSING_MASKS, Split, load_splits

LOG = logging.getLogger(__name__)

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Ridge weights that are tried, as shares of the mean diagonal of the Gram matrix."""

_MASK_GLASSES, _MASK_HAIR = 3, 13
_MIN_HAIR_SHARE = 0.03

Labels = dict[str, float]
"""What is known of one face; an attribute that is not known is absent."""
Labeller = Callable[[Path], Labels]


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with features and labels.

    features: float32 [N, FEATURES]. labels: [N, K] in standard deviations of their source's training faces, nan where
    not known. names: the K attributes. parts: the split of each face.
    """

    features: Features
    labels: NDArray[np.float64]
    names: tuple[str, ...]
    parts: NDArray[np.str_]

    def known(self, name: str, *parts: Split) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Indices of the faces of `parts` whose label `name` is known, and these labels."""
        column = self.labels[:, self.names.index(name)]
        indices = np.flatnonzero(np.isin(self.parts, parts) & np.isfinite(column))
        return indices, column[indices]


def ffhq_labels(annotation: Mapping[str, Any]) -> Labels:
    """Labels of one face from FFHQ's machine annotation."""
    makeup, facial_hair, hair = annotation["makeup"], annotation["facialHair"], annotation["hair"]
    labels = {
        "eyeglasses": float(annotation["glasses"] != "NoGlasses"),
        "beard": sum(facial_hair.values()) / len(facial_hair),
        "makeup": (makeup["eyeMakeup"] + makeup["lipMakeup"]) / 2.0,
        "happy": float(annotation["smile"]),
    }
    if hair["invisible"]:
        return labels
    labels["bald"] = float(hair["bald"])
    colours = {row["color"]: float(row["confidence"]) for row in hair["hairColor"]}
    if colours:
        labels |= {"hair_colour": colours["blond"] - colours["black"], "grey_hair": colours["gray"]}
    return labels


def mask_labels(image_bgr: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Labels:
    """Labels that a class mask [H, W] gives: glasses worn, and the mean grey level of the hair in [0, 1]."""
    labels = {"eyeglasses": float((mask == _MASK_GLASSES).mean() > 0.002)}
    hair = mask == _MASK_HAIR
    if hair.mean() > _MIN_HAIR_SHARE:
        labels["hair_colour"] = float(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)[hair].mean()) / 255.0
    return labels


def omi_labels(ratings: Mapping[str, str]) -> Labels:
    """Labels of one face from its mean ratings, each in [0, 1]."""
    columns = {"chubby": "weight", "long_hair": "long-haired", "skin_colour": "skin-color"}
    return {name: float(ratings[column]) / 100.0 for name, column in columns.items() if ratings[column]}


def read_faces(root: Path, trunk: StLpips) -> LabelledFaces:
    """Features and labels of every labelled face under the data folder `root`."""
    splits = load_splits()
    labellers = _labellers(root)
    features, parts, labels = [], [], []
    for folder, labeller in labellers.items():
        paths = {part: splits.stills(root, folder, part) for part in Split}
        every = [path for of_part in paths.values() for path in of_part]
        of_folder = [part.value for part, of_part in paths.items() for _ in of_part]
        features.append(features_of(np.stack([_read(path)[..., ::-1] for path in every]), trunk))
        labels.append(([labeller(path) for path in every], np.array(of_folder) == Split.TRAIN.value))
        parts += of_folder
        LOG.info("read %d faces of %s", len(every), folder)
    names = tuple(sorted({name for rows, _ in labels for row in rows for name in row}))
    table = np.concatenate([_standardised(rows, names, training) for rows, training in labels])
    return LabelledFaces(np.concatenate(features), table, names, np.array(parts))


def _labellers(root: Path) -> dict[str, Labeller]:
    """How the faces of each folder are labelled."""
    annotations = _read_ffhq(root / "labels" / "ffhq_features_all70k.jsonl.gz")
    with (root / "labels" / "omi_attribute_means.csv").open(newline="") as file:
        ratings = {row["stimulus"]: row for row in csv.DictReader(file)}

    def of_ffhq(path: Path) -> Labels:
        annotation = annotations.get(int(path.stem))
        return ffhq_labels(annotation) if annotation else {}

    def of_mask(path: Path) -> Labels:
        mask = cv2.imread(str(root / PARSING_MASKS / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        image = _read(path)
        return mask_labels(image, cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST))

    def of_omi(path: Path) -> Labels:
        return omi_labels(ratings[path.stem]) if path.stem in ratings else {}

    return {"faces/ffhq256": of_ffhq, "faces/ffhq128": of_ffhq, PARSING_IMAGES: of_mask, "faces/omi256": of_omi}


def _read_ffhq(path: Path) -> dict[int, Mapping[str, Any] | None]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return {row["id"]: row["a"] for row in rows}


def _read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"{path} is not an image that can be read")
    return image


def _standardised(rows: Sequence[Labels], names: Sequence[str], training: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One source's labels as a table [N, K], in standard deviations around the mean of its training faces."""
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    for column in table.T:
        known = column[training & np.isfinite(column)]
        if known.size:
            column -= known.mean()
            column /= max(float(known.std()), 1e-6)
    return table


def fit(faces: LabelledFaces) -> LinearHeads:
    """One ridge regression an attribute; the ridge weight is the one that serves the validation faces best."""
    training = faces.features[faces.parts == Split.TRAIN.value]
    # Every block of features has the same say, however many numbers it holds.
    shares = np.concatenate([np.full(size, np.sqrt(size / FEATURES)) for size in BLOCKS])
    mean, deviation = training.mean(axis=0), (training.std(axis=0) + 1e-3) * shares
    # Halves round the stored statistics; fitting with the rounded ones keeps what ships equal to what was fitted.
    mean, deviation = (values.astype(np.float16).astype(np.float32) for values in (mean, deviation))
    features = (faces.features - mean) / deviation
    heads = [_fit_one(features, faces, name) for name in faces.names]
    weights = np.stack([weights for weights, _ in heads], axis=1).astype(np.float32)
    bias = np.array([bias for _, bias in heads], dtype=np.float32)
    return LinearHeads(faces.names, mean, deviation, weights, bias)


def _fit_one(features: Features, faces: LabelledFaces, name: str) -> tuple[NDArray[np.float64], float]:
    train, labels = faces.known(name, Split.TRAIN)
    held_out, held_out_labels = faces.known(name, Split.VALIDATION)
    rows = features[train].astype(np.float64)
    bias = float(labels.mean())
    gram = rows @ rows.T
    best = (-np.inf, np.zeros(features.shape[1]), 0.0)
    for ridge in RIDGES:
        system = gram + ridge * gram.trace() / len(gram) * np.eye(len(gram))
        weights = rows.T @ scipy.linalg.solve(system, labels - bias, assume_a="pos")
        correlation = float(np.corrcoef(features[held_out] @ weights, held_out_labels)[0, 1])
        best = max(best, (correlation, weights, ridge), key=lambda row: row[0])
    LOG.info("%s: %d faces, ridge %g, validation correlation %.3f", name, len(train), best[2], best[0])
    return best[1], bias


def held_out_scores(heads: LinearHeads, faces: LabelledFaces, *parts: Split) -> dict[str, dict[str, float]]:
    """Correlation, and AUC of the upper against the lower labels, of each attribute on the faces of `parts`.

    The labels are split at the middle of their range, so that "has a beard" stands against "has none".
    """
    table = {}
    scores = heads.score(faces.features)
    for name in heads.names:
        indices, labels = faces.known(name, *parts)
        if len(indices) < 2 or np.ptp(labels) == 0:
            continue
        predicted = scores[name][indices]
        upper = labels > (labels.min() + labels.max()) / 2.0
        table[name] = {
            "faces": float(len(indices)),
            "correlation": float(np.corrcoef(predicted, labels)[0, 1]),
            "auc": area_under_roc(predicted, upper),
        }
    return table


def area_under_roc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """How often a positive scores above a negative (ties count half): the area under the ROC curve."""
    higher = scores[positive][:, None] - scores[~positive][None, :]
    return float((np.sign(higher) / 2.0 + 0.5).mean()) if higher.size else float("nan")


def main() -> None:
    """Fit the classifiers, write them and their lineage beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data folder that splits.toml describes")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FILE, help="where the weights go (.npz)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    faces = read_faces(arguments.data, StLpips.load(net="alex"))
    heads = fit(faces)
    heads.save(arguments.out)
    lineage = {
        "what": "linear scores of face attributes on frozen ST-LPIPS Alex features",
        "features": "stlpips-pytorch 0.0.2 (BSD-2-Clause), stage 2 of the inner face on an 8x8 grid; a 16x16 thumbnail",
        "labels": "FFHQ machine labels, CelebAMask-HQ masks, One Million Impressions ratings: non-commercial",
        "split": "models/training/splits.toml, training faces only",
        "held_out": held_out_scores(LinearHeads.load(arguments.out), faces, Split.VALIDATION, Split.TEST),
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(lineage, indent=2) + "\n", encoding="utf-8")
    LOG.info("%s", json.dumps(lineage["held_out"], indent=2))


if __name__ == "__main__":
    main()
