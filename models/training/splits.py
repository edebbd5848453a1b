"""Who is in training, validation and test: one fixed answer by person, read from `splits.toml`.

splits = load_splits()
splits.faces(root, Split.TRAIN)            every still face of the data folder `root`, sorted
splits.clips(root, "test")                 the clips of the test people
splits.parsing_pairs(root, "validation")   (image, mask) of CelebAMask-HQ
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

SPLITS_FILE = Path(__file__).with_name("splits.toml")
PARSING_IMAGES = "parsing/celebamask256/images"
PARSING_MASKS = "parsing/celebamask256/masks"


class Split(StrEnum):
    """A part of the data; no person is in two of them."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class BoundRule:
    """Stems in alphabetical order: train, then validation from one stem on, then test from another on to the end."""

    validation_from: str
    test_from: str

    def part_of(self, stem: str, rank: int) -> Split:
        """The part of the still named `stem`; its rank among the sorted names does not matter here."""
        if stem >= self.test_from:
            return Split.TEST
        return Split.VALIDATION if stem >= self.validation_from else Split.TRAIN


@dataclass(frozen=True)
class EveryRule:
    """Every `validation_every`th name in alphabetical order is validation, the others are training."""

    validation_every: int

    def part_of(self, stem: str, rank: int) -> Split:
        """The part of the still at position `rank` (from 0) among the folder's sorted names."""
        return Split.VALIDATION if rank % self.validation_every == 0 else Split.TRAIN


@dataclass(frozen=True)
class Splits:
    """The whole table: a rule a folder of stills, stills left out, and the clips of each part."""

    rules: Mapping[str, BoundRule | EveryRule]
    left_out: frozenset[str]
    clip_names: Mapping[Split, tuple[str, ...]]

    def faces(self, root: Path, split: str, folders: tuple[str, ...] | None = None) -> list[Path]:
        """Still faces of `split` under the data folder `root`, folder by folder, sorted by stem.

        folders: which of the table's folders ("faces/ffhq256", ...); all of them under faces/ when None.
        Raises FileNotFoundError when a folder of the table is not there.
        """
        wanted = folders or tuple(name for name in self.rules if name.startswith("faces/"))
        return [path for folder in wanted for path in self.stills(root, folder, split)]

    def clips(self, root: Path, split: str) -> list[Path]:
        """Clips of the people of `split`, in the table's order.

        Raises FileNotFoundError, naming every clip that is not there.
        """
        paths = [root / "videos" / name for name in self.clip_names[Split(split)]]
        absent = [path.name for path in paths if not path.is_file()]
        if absent:
            raise FileNotFoundError(f"{root / 'videos'} lacks {', '.join(absent)}, which splits.toml lists")
        return paths

    def parsing_pairs(self, root: Path, split: str) -> list[tuple[Path, Path]]:
        """(image .jpg, class mask .png) pairs of `split` of CelebAMask-HQ under the data folder `root`."""
        images = self.stills(root, PARSING_IMAGES, split)
        return [(image, root / PARSING_MASKS / f"{image.stem}.png") for image in images]

    def stills(self, root: Path, folder: str, split: str) -> list[Path]:
        """Images of `split` in one folder of the table, sorted by stem."""
        part, rule = Split(split), self.rules[folder]
        if not (root / folder).is_dir():
            raise FileNotFoundError(
                f"{root / folder} is not there; the data folder that splits.toml describes was expected"
            )
        names = sorted((root / folder).glob("*.jpg"), key=lambda path: path.stem)
        return [
            path
            for rank, path in enumerate(names)
            if rule.part_of(path.stem, rank) is part and f"{folder}/{path.name}" not in self.left_out
        ]


def load_splits(path: Path = SPLITS_FILE) -> Splits:
    """Read and check the table.

    Raises ValueError when a key is unknown, a clip is listed twice or a left-out still lies in no listed folder.
    """
    with path.open("rb") as file:
        table = tomllib.load(file)
    unknown = set(table) - {"stills", "same_person", "clips"}
    if unknown:
        raise ValueError(f"{path.name} has unknown tables {sorted(unknown)}")
    rules = {folder: _rule_of(folder, rule) for folder, rule in table["stills"].items()}
    clip_names = {
        Split(part): tuple(name for group in groups for name in group) for part, groups in table["clips"].items()
    }
    listed = [name for names in clip_names.values() for name in names]
    if len(listed) != len(set(listed)):
        raise ValueError(f"{path.name} lists {sorted({name for name in listed if listed.count(name) > 1})} twice")
    left_out = frozenset(table["same_person"]["left_out"])
    strays = sorted(name for name in left_out if name.rpartition("/")[0] not in rules)
    if strays:
        raise ValueError(f"{path.name} leaves out {strays}, which lie in none of its folders")
    return Splits(MappingProxyType(rules), left_out, MappingProxyType(clip_names))


def _rule_of(folder: str, rule: Mapping[str, Any]) -> BoundRule | EveryRule:
    if set(rule) == {"validation_every"}:
        return EveryRule(int(rule["validation_every"]))
    if set(rule) == {"validation_from", "test_from"} and rule["validation_from"] < rule["test_from"]:
        return BoundRule(str(rule["validation_from"]), str(rule["test_from"]))
    raise ValueError(
        f"splits.toml has {dict(rule)} for {folder}; validation_every, or two rising bounds, were expected"
    )
