"""Scores on held-out still faces: how near the inversion comes, and whether edits survive the noise map.

A still is shown to the loop for a few frames, as a person who does not move. A map that carries the whole face would
give a fine inversion that no slider moves any more, hence the responses with the map and without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import SourceError
from engine.recurrence import VARIANTS
from models.evaluation.groups import groups_of, skin_tone
from models.evaluation.identity import SAME_PERSON, distances
from models.evaluation.judges import Judges
from models.evaluation.rollout import LoadedBundle, settle_stills
from models.evaluation.scores import squared_errors
from models.face_geometry import Landmarks, mesh_distance
from models.pictures import Pictures
from models.training.splits import Split, load_splits

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
MAP_VARIANTS: Mapping[str, str] = {"with_map": "full", "without_map": "no_nm"}
STEPS = 4
"""Frames that a still is shown for: the anchor's and three of the recurrent encoder."""

_CROP_PX = 256


@dataclass(frozen=True)
class InversionScores:
    """Means over the stills. mse_x100 on [-1, 1]; perceptual: the judges' distance; dlib_l2: raw distance.

    nme: how far the inversion's mesh lies from the still's, in per cent of the distance between the eyes
    (`face_geometry.mesh_distance`). same_person: the share of stills whose inversion dlib takes for the same person.
    """

    mse_x100: float
    perceptual: float
    dlib_l2: float
    nme: float
    same_person: float

    def named(self, distance_name: str) -> dict[str, float]:
        """The scores by name, the perceptual distance under its own (`Judges.distance_name`)."""
        return {distance_name if name == "perceptual" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class FaceScores:
    """Inversion by `MAP_VARIANTS`' names, and for each attribute at value 1 how far it moved its own score.

    responses: attribute -> {"with_map", "without_map", "kept" (their ratio)}, in the scorer's unit (years, for age).
    groups: of each group of people (`models/evaluation/groups.py`) how many stills and their inversion with the map;
    empty groups are left out.
    """

    stills: int
    inversion: Mapping[str, InversionScores]
    responses: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, tuple[int, InversionScores]]


def held_out_faces(folder: Path, limit: int) -> list[Path]:
    """At most `limit` aligned stills: the test faces of a data folder that splits.toml describes, or a folder's images.

    Raises SourceError when there is none.
    """
    if (folder / "faces" / "ffhq256").is_dir():
        found = load_splits().faces(folder, Split.TEST, ("faces/ffhq256",))
    else:
        found = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise SourceError(f"{folder} holds no image; FFHQ-aligned faces were expected")
    # Spread over the folder, so that a small limit is still a fair sample.
    return [found[round(n)] for n in np.linspace(0, len(found) - 1, min(limit, len(found)))]


def read_faces(paths: Sequence[Path]) -> Pictures:
    """Aligned stills at 256 px, uint8 RGB [N, 256, 256, 3]; raises SourceError when one cannot be read."""
    pictures = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"{path} cannot be read; an image was expected")
        sized = cv2.resize(image, (_CROP_PX, _CROP_PX), interpolation=cv2.INTER_AREA)
        pictures.append(sized[..., ::-1])
    return np.ascontiguousarray(np.stack(pictures), dtype=np.uint8)


def score_faces(
    loaded: LoadedBundle, crops: Pictures, judges: Judges, attributes: Sequence[str], steps: int = STEPS
) -> FaceScores:
    """Invert the stills with and without the noise map, then set each attribute to 1.

    attributes: names that the bundle has a direction for and the scorers a score of.
    """
    neutral = {
        name: settle_stills(loaded, crops, {}, VARIANTS[variant], steps).inversions
        for name, variant in MAP_VARIANTS.items()
    }
    responses: dict[str, dict[str, float]] = {attribute: {} for attribute in attributes}
    for name, inversions in neutral.items() if attributes else ():
        before = judges.scorers.score(inversions)
        for attribute in attributes:
            edits = settle_stills(loaded, crops, {attribute: 1.0}, VARIANTS[MAP_VARIANTS[name]], steps).edits
            moved = judges.scorers.score(edits)[attribute] - before[attribute]
            responses[attribute][name] = float(np.mean(moved))
    meshes = judges.scorers.landmarks(crops)[0]
    each = {name: _each_inversion(crops, meshes, inversions, judges) for name, inversions in neutral.items()}
    tone_deg = skin_tone(crops, meshes)
    members = {name: who for name, who in groups_of(judges.scorers.score(crops), tone_deg).items() if who.any()}
    return FaceScores(
        stills=len(crops),
        inversion={name: scores.mean() for name, scores in each.items()},
        responses={attribute: _with_ratio(moved) for attribute, moved in responses.items()},
        groups={name: (int(who.sum()), each["with_map"].mean(who)) for name, who in members.items()},
    )


@dataclass(frozen=True)
class _EachInversion:
    """Scores of every still, [N]; see `InversionScores`."""

    mse_x100: NDArray[np.float32]
    perceptual: NDArray[np.float32]
    dlib_l2: NDArray[np.float32]
    nme: NDArray[np.float32]

    def mean(self, who: NDArray[np.bool_] | slice = slice(None)) -> InversionScores:
        """Over all stills, or some."""
        return InversionScores(
            mse_x100=float(np.mean(self.mse_x100[who])),
            perceptual=float(np.mean(self.perceptual[who])),
            dlib_l2=float(np.mean(self.dlib_l2[who])),
            nme=float(np.mean(self.nme[who])),
            same_person=float(np.mean(self.dlib_l2[who] < SAME_PERSON)),
        )


def _each_inversion(crops: Pictures, meshes: Landmarks, inversions: Pictures, judges: Judges) -> _EachInversion:
    away = distances(judges.embedder.embed(crops), judges.embedder.embed(inversions))
    nme = np.asarray(100.0 * mesh_distance(meshes, judges.scorers.landmarks(inversions)[0]), np.float32)
    return _EachInversion(squared_errors(crops, inversions), judges.perceptual_distances(crops, inversions), away, nme)


def _with_ratio(moved: Mapping[str, float]) -> dict[str, float]:
    """The responses and the share of the response that the map leaves; 0 where there is nothing to keep."""
    without = moved["without_map"]
    return {**moved, "kept": moved["with_map"] / without if without else 0.0}
