"""The split table: complete, disjoint by person, and checked when read."""

import os
from itertools import combinations
from pathlib import Path

import pytest

from models.training.splits import PARSING_IMAGES, BoundRule, EveryRule, Split, load_splits

EVALUATION_CLIPS = {"pyfeat_single_face.mp4", "liveportrait_d19.mp4", "liveportrait_d13.mp4", "Twitch1.mp4"}


@pytest.fixture
def data_folder() -> Path:
    folder = os.environ.get("RIGID_TEST_DATA")
    if not folder:
        pytest.skip("RIGID_TEST_DATA is not set")
    return Path(folder)


def table(**clips: str) -> str:
    parts = "\n".join(f"{part} = {clips.get(part, '[]')}" for part in ("train", "validation", "test"))
    return f'[stills."faces/a"]\nvalidation_every = 3\n[same_person]\nleft_out = []\n[clips]\n{parts}\n'


def test_no_clip_and_no_still_is_in_two_parts(data_folder: Path) -> None:
    splits = load_splits()
    for a, b in combinations(Split, 2):
        assert not set(splits.clips(data_folder, a)) & set(splits.clips(data_folder, b))
        assert not set(splits.faces(data_folder, a)) & set(splits.faces(data_folder, b))
        assert not set(splits.parsing_pairs(data_folder, a)) & set(splits.parsing_pairs(data_folder, b))


def test_every_clip_and_every_folder_of_faces_has_a_part(data_folder: Path) -> None:
    splits = load_splits()
    clips = [path for part in Split for path in splits.clips(data_folder, part)]
    assert sorted(clips) == sorted((data_folder / "videos").iterdir())
    stills = {path for part in Split for path in splits.faces(data_folder, part)}
    left_out = {data_folder / name for name in splits.left_out}
    assert stills | {path for path in left_out if path.is_relative_to(data_folder / "faces")} == set(
        (data_folder / "faces").glob("*/*.jpg")
    )
    assert all(path.is_file() for path in left_out)


def test_sizes_of_the_held_out_parts(data_folder: Path) -> None:
    splits = load_splits()
    folder = ("faces/ffhq256",)
    assert [len(splits.faces(data_folder, part, folder)) for part in ("validation", "test")] == [50, 100]
    assert [len(splits.parsing_pairs(data_folder, part)) for part in ("validation", "test")] == [50, 100]
    assert len(splits.clips(data_folder, "train")) >= 18
    assert {path.name for path in splits.clips(data_folder, "test")} >= EVALUATION_CLIPS
    assert all(mask.is_file() for part in Split for _, mask in splits.parsing_pairs(data_folder, part))


def test_the_other_takes_of_the_test_people_are_test_clips() -> None:
    names = load_splits().clip_names
    assert {"pyfeat_face_noface.mov", "pyfeat_noface_face.mov"} <= set(names[Split.TEST])
    for part in Split:
        assert ("lia_obama.mov" in names[part]) == ("Obama_speaking.mp4" in names[part])
        assert ("grid_id2.mpg" in names[part]) == ("grid_pwij3p.mpg" in names[part])


def test_bounds_are_inclusive_from_below() -> None:
    rule = BoundRule("b", "c")
    assert [rule.part_of(stem, 0) for stem in ("a", "azz", "b", "bz", "c", "d")] == [
        Split.TRAIN,
        Split.TRAIN,
        Split.VALIDATION,
        Split.VALIDATION,
        Split.TEST,
        Split.TEST,
    ]


def test_every_nth_name_is_validation() -> None:
    rule = EveryRule(3)
    parts = [rule.part_of("any", rank) for rank in range(7)]
    assert [rank for rank, part in enumerate(parts) if part is Split.VALIDATION] == [0, 3, 6]


def test_stills_are_dealt_by_rank_and_left_out_ones_are_gone(tmp_path: Path) -> None:
    (tmp_path / "faces" / "a").mkdir(parents=True)
    for stem in "abcdef":
        (tmp_path / "faces" / "a" / f"{stem}.jpg").touch()
    file = tmp_path / "splits.toml"
    file.write_text(table().replace("left_out = []", 'left_out = ["faces/a/b.jpg"]'))
    splits = load_splits(file)
    assert [path.stem for path in splits.faces(tmp_path, "validation")] == ["a", "d"]
    # A face that is left out keeps its rank, so that leaving one out moves no other.
    assert [path.stem for path in splits.faces(tmp_path, "train")] == ["c", "e", "f"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(train='[["x.mp4"]]', test='[["x.mp4"]]'), "twice"),
        (table() + "[extra]\n", "unknown"),
        (table().replace("validation_every", "validation_some"), "validation_some"),
        (table().replace("left_out = []", 'left_out = ["faces/b/x.jpg"]'), "none of its folders"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "splits.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_splits(file)


def test_missing_data_is_named(tmp_path: Path) -> None:
    splits = load_splits()
    with pytest.raises(FileNotFoundError, match="ffhq256"):
        splits.faces(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"Twitch1\.mp4"):
        splits.clips(tmp_path, "test")
    with pytest.raises(ValueError, match="holdout"):
        splits.stills(tmp_path, PARSING_IMAGES, "holdout")
