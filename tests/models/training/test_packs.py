"""Data preparation: what goes into packs comes out of them, once, and bad input is named."""

import argparse
import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import SinkError, SourceError, UsageError
from engine.geometry import CROP_SIZE
from models.flow import SpyNet
from models.training import data as command
from models.training import pack_files, pack_sources, packs
from models.training.pack_files import PackedSequence, encode_crop, write_pack
from models.training.pack_sources import deal_people
from models.training.packs import ClipSequence, long_enough, prepare, prepared, prepared_at_128, read_packs
from models.training.splits import load_splits

PLACE = np.array([[2.0, 0.0, 5.0], [0.0, 2.0, -3.0]])


class FakeTracker:
    """Sees a face in every image that is not black; a new one after a white image. Counts what it is shown."""

    def __init__(self) -> None:
        self.seen = 0

    def track(self, tracks: tuple[Any, ...], image: np.ndarray, captured_ns: int, wanted: int) -> tuple[Any, ...]:
        self.seen += 1
        if image.mean() < 10:
            return ()
        known = tracks[0].track_id if tracks else 0
        return (SimpleNamespace(track_id=known + (image.mean() > 245), crop_from_frame=PLACE),)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    fake = FakeTracker()
    monkeypatch.setattr(packs, "open_tracker", lambda: fake)
    return fake


def write_clip(path: Path, levels: list[int]) -> Path:
    """A clip of plain grey frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


def write_image(path: Path, level: int = 100, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((size, size, 3), level, np.uint8))
    return path


def sequence(name: str, crops: np.ndarray, split: str = "train") -> PackedSequence:
    """crops: uint8 RGB [T, 256, 256, 3]."""
    places = np.stack([PLACE + t for t in range(len(crops))])
    files = tuple(encode_crop(np.ascontiguousarray(crop[..., ::-1])) for crop in crops)
    return PackedSequence(name, split, np.arange(len(crops)) + 7, places, files)


def smooth_crops(count: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), np.uint8)
    return np.stack([cv2.resize(crop, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_CUBIC) for crop in coarse])


def test_sequences_come_out_as_they_went_in(tmp_path: Path) -> None:
    crops = smooth_crops(5)
    write_pack(
        tmp_path / "pack-000.npz",
        [sequence("a.mp4", crops[:3]), sequence("b.jpg", crops[3:4]), sequence("ü.mp4", crops[2:], "validation")],
    )
    first, still = read_packs(tmp_path, "train")
    assert (first.name, still.name) == ("a.mp4", "b.jpg")
    assert (len(first.crops), len(still.crops)) == (3, 1)
    assert np.abs(first.crops[:].astype(int) - crops[:3]).mean() < 1.0
    assert np.array_equal(first.crops[-1], first.crops[:][2])
    assert first.crops[1:1].shape == (0, CROP_SIZE, CROP_SIZE, 3)
    assert np.array_equal(first.crop_from_frame, np.stack([PLACE, PLACE + 1, PLACE + 2]))
    assert first.frames is not None
    assert first.frames.tolist() == [7, 8, 9]
    assert first.flow_next is None
    assert [s.name for s in read_packs(tmp_path, "validation")] == ["ü.mp4"]


def test_packs_stay_under_the_limit_and_long_sequences_are_cut(
    tmp_path: Path, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_files, "PACK_BYTES", 60_000)
    write_clip(tmp_path / "data" / "a" / "long.avi", [60 + n for n in range(60)])
    for n in range(12):
        write_image(tmp_path / "data" / "b" / f"{n:02d}.png", 50 + 10 * n)
    out = tmp_path / "out"
    prepare(tmp_path / "data", out)
    sizes = [path.stat().st_size for path in sorted(out.glob("pack-*.npz"))]
    assert len(sizes) > 2
    assert max(sizes) <= 60_000
    clips, stills = read_packs(out, "train"), read_packs(out, "validation")
    assert np.concatenate([clip.frames for clip in clips]).tolist() == list(range(60))
    assert [round(float(still.crops[0].mean()), -1) for still in stills] == [50 + 10 * n for n in range(12)]


def test_a_pack_has_a_most_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_files, "PACK_PAIRS", 3)
    pieces = pack_files.fit_into_packs(sequence("a", smooth_crops(1).repeat(9, axis=0)))
    assert [len(piece.files) for piece in pieces] == [4, 4, 1]
    assert np.concatenate([piece.frames for piece in pieces]).tolist() == list(range(7, 16))
    pack = pack_files.OpenPack()
    pack.add(pieces[1])
    assert not pack.has_room(pieces[1:2])
    assert pack.has_room(pieces[2:])


def test_stretches_end_where_the_face_is_lost_or_changes(tmp_path: Path, tracker: FakeTracker) -> None:
    levels = [100] * 4 + [0] + [120] * 2 + [0] + [140] * 3 + [255] + [150] * 3
    write_clip(tmp_path / "data" / "a.avi", levels)
    prepare(tmp_path / "data", tmp_path / "out")
    found = read_packs(tmp_path / "out", "train")
    assert [s.name for s in found] == ["a.avi", "a.avi#2", "a.avi#3"]
    assert [s.frames.tolist() for s in found if s.frames is not None] == [[0, 1, 2, 3], [8, 9, 10], [11, 12, 13, 14]]
    assert np.array_equal(found[0].crop_from_frame, np.stack([PLACE] * 4))


def test_a_second_run_makes_only_what_is_new(tmp_path: Path, tracker: FakeTracker) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_clip(data / "ann" / "a.avi", [100] * 5)
    write_image(data / "bob.png")
    write_image(data / "cat" / "black.png", 0)
    assert prepare(data, out) == 3
    seen, packed = tracker.seen, (out / "pack-000.npz").stat()
    assert prepare(data, out) == 0
    write_image(data / "aaron.png")
    assert prepare(data, out) == 1
    assert tracker.seen == seen + 1
    assert (out / "pack-000.npz").stat() == packed
    # Aaron comes first in the alphabet, but Bob is the one who was held out before.
    assert [s.name for s in read_packs(out, "train")] == ["ann/a.avi", "aaron.png"]
    assert [s.name for s in read_packs(out, "validation")] == ["bob.png"]


def test_a_run_that_broke_off_is_taken_up(
    tmp_path: Path, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_files, "PACK_BYTES", 20_000)
    data, out = tmp_path / "data", tmp_path / "out"
    for n in range(9):
        write_clip(data / "someone" / f"{n}.avi", [60 + n] * 5)
    broken = data / "someone" / "7.avi"
    content = broken.read_bytes()
    broken.write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"7\.avi"):
        prepare(data, out)
    listed = len(json.loads((out / "index.json").read_text())["packs"])
    assert listed > 0
    write_pack(out / f"pack-{listed:03d}.npz", [sequence("stray", smooth_crops(1))])
    broken.write_bytes(content)
    prepare(data, out)
    assert [s.name for s in read_packs(out, "train")] == [f"someone/{n}.avi" for n in range(9)]


def test_of_ten_people_the_second_is_held_out_and_nobody_changes_sides() -> None:
    people = [f"p{n:02d}" for n in range(1, 23)]
    dealt = deal_people(people, {})
    assert [name for name, part in dealt.items() if part == "validation"] == ["p02", "p12", "p22"]
    assert deal_people(["only"], {}) == {"only": "train"}
    grown = deal_people([*people, "p00"], dealt)
    assert {name: grown[name] for name in people} == dealt
    assert grown["p00"] == "train"


def test_the_table_divides_the_data_folder_and_aligned_stills_stay_as_they_are(
    tmp_path: Path, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "splits.toml"
    table.write_text(
        '[stills."faces/a"]\nvalidation_every = 3\n[stills."parsing/celebamask256/images"]\nvalidation_every = 2\n'
        '[same_person]\nleft_out = ["faces/a/2.jpg"]\n'
        '[clips]\ntrain = [["x.avi"]]\nvalidation = []\ntest = [["y.avi"]]\n'
    )
    for module in (pack_sources, packs):
        monkeypatch.setattr(module, "load_splits", lambda: load_splits(table))
    data = tmp_path / "data"
    for n in range(4):
        write_image(data / "faces" / "a" / f"{n}.jpg", 90 + n, 256 if n != 1 else 128)
        write_image(data / "parsing" / "celebamask256" / "images" / f"{n % 2}.jpg", 120 + n % 2, 256)
    for name in ("x", "y"):
        write_clip(data / "videos" / f"{name}.avi", [100] * 4)
    prepare(data, tmp_path / "out")
    names = {split: [s.name for s in read_packs(tmp_path / "out", split)] for split in ("train", "validation", "test")}
    assert names["train"] == ["videos/x.avi"]  # 1 is too small, 2 left out
    assert names["validation"] == ["faces/a/0.jpg", "faces/a/3.jpg"]
    assert names["test"] == ["videos/y.avi"]
    still = read_packs(tmp_path / "out", "validation")[0]
    assert still.crops.files[0] == (data / "faces" / "a" / "0.jpg").read_bytes()
    assert np.array_equal(still.crop_from_frame[0], np.eye(2, 3))
    monkeypatch.setenv("RIGID_CACHE", str(tmp_path / "cache"))
    stills, clips = prepared_at_128(data, "train")  # those too that packs leave out
    assert [clip.name for clip in clips] == ["videos/x.avi"]
    assert stills[:].shape == (2, CROP_SIZE, CROP_SIZE, 3)
    assert np.abs(stills[0].astype(int) - 91).max() <= 2
    assert stills.files[1] == (data / "parsing" / "celebamask256" / "images" / "1.jpg").read_bytes()
    assert [len(prepared_at_128(folder, "validation")[0]) for folder in (data, tmp_path / "out")] == [3, 2]
    (data / "videos" / "y.avi").unlink()
    with pytest.raises(UsageError, match=r"y\.avi"):
        prepare(data, tmp_path / "other")


def test_prepared_keeps_packs_in_the_cache_and_reads_folders_of_packs(
    tmp_path: Path, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIGID_CACHE", str(tmp_path / "cache"))
    write_clip(tmp_path / "data" / "ann" / "a.avi", [100] * 5)
    write_image(tmp_path / "data" / "ann" / "b.png", 70)
    stills, clips = prepared(tmp_path / "data", "train")
    assert stills[:].shape == (1, CROP_SIZE, CROP_SIZE, 3)
    assert [clip.name for clip in clips] == ["ann/a.avi"]
    assert prepared(tmp_path / "data", "validation")[1] == []
    (folder,) = (tmp_path / "cache").rglob("data-*")
    moved = tmp_path / "moved"
    moved.mkdir()
    (folder / "pack-000.npz").rename(moved / "pack-000.npz")  # the packs alone are enough
    assert [clip.name for clip in prepared(moved, "train")[1]] == ["ann/a.avi"]


def test_an_empty_folder_and_none_at_all(tmp_path: Path, tracker: FakeTracker) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="neither clips nor images"):
        prepare(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="not a folder"):
        prepare(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(SourceError, match="train data"):
        read_packs(tmp_path, "train")


@pytest.mark.parametrize("name", ["torn.jpg", "torn.mp4"])
def test_an_unreadable_file_is_named(tmp_path: Path, tracker: FakeTracker, name: str) -> None:
    write_image(tmp_path / "data" / "good.png")
    (tmp_path / "data" / name).write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        prepare(tmp_path / "data", tmp_path / "out")


def test_a_clip_without_a_face_is_warned_of_and_nothing_at_all_is_an_error(
    tmp_path: Path, tracker: FakeTracker, caplog: pytest.LogCaptureFixture
) -> None:
    write_clip(tmp_path / "data" / "empty.avi", [0] * 6)
    with pytest.raises(UsageError, match="no face was found in any of the 1 "):
        prepare(tmp_path / "data", tmp_path / "out")
    caplog.clear()
    write_image(tmp_path / "more" / "face.png")
    write_clip(tmp_path / "more" / "empty.avi", [0] * 6)
    prepare(tmp_path / "more", tmp_path / "other")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "empty.avi shows no face" in warning.getMessage()
    assert [s.name for split in ("train", "validation") for s in read_packs(tmp_path / "other", split)] == ["face.png"]


def test_other_files_or_settings_than_before_are_refused(tmp_path: Path, tracker: FakeTracker) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    clip = write_clip(data / "a.avi", [100] * 5)
    prepare(data, out)
    with pytest.raises(UsageError, match="up to 300 frames a clip, not 20"):
        prepare(data, out, 20)
    write_clip(clip, [100] * 9)
    with pytest.raises(UsageError, match=r"a\.avi is not the file"):
        prepare(data, out)
    (out / "index.json").unlink()
    with pytest.raises(UsageError, match="no index"):
        prepare(data, out)
    assert (out / "pack-000.npz").is_file()


@pytest.mark.parametrize("content", [b"", b"not a pack", None])
def test_a_torn_pack_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pack-000.npz"
    if content is None:
        np.savez(path, about=np.zeros(2, np.uint8))
    else:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"pack-000\.npz"):
        read_packs(tmp_path, "train")


def test_a_pack_with_wrong_counts_or_crops_is_refused(tmp_path: Path) -> None:
    good = sequence("a", smooth_crops(2))
    short = PackedSequence("a", "train", good.frames[:1], good.crop_from_frame, good.files)
    write_pack(tmp_path / "pack-000.npz", [short])
    with pytest.raises(SourceError, match="not a pack"):
        read_packs(tmp_path, "train")
    bad = PackedSequence("a", "train", good.frames, good.crop_from_frame, (b"x", good.files[1]))
    write_pack(tmp_path / "pack-000.npz", [bad])
    (loaded,) = read_packs(tmp_path, "train")
    with pytest.raises(SourceError, match="crop 0 of a"):
        loaded.crops[0]


def test_a_full_disk_leaves_what_was_complete(
    tmp_path: Path, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "data" / "a.avi", [100] * 5)
    prepare(tmp_path / "data", tmp_path / "out")
    write_clip(tmp_path / "data" / "b.avi", [100] * 5)

    def fail(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pack_files.np, "savez", fail)
    with pytest.raises(SinkError, match="No space left"):
        prepare(tmp_path / "data", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*")) == [".lock", "index.json", "pack-000.npz"]
    assert [s.name for s in read_packs(tmp_path / "out", "train")] == ["a.avi"]


def test_an_episode_longer_than_every_clip_names_the_longest() -> None:
    sequences = [ClipSequence(str(n), smooth_crops(1).repeat(n, axis=0), np.zeros((n, 2, 3))) for n in (3, 5)]
    assert [s.name for s in long_enough(sequences, 4)] == ["5"]
    with pytest.raises(UsageError, match=r"has 6 frames.*longest clip has 5"):
        long_enough(sequences, 6)


class Brightening(nn.Module):
    """Stands for a flow network: how much brighter `b` is than `a`, everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        change = (b - a).mean(dim=(1, 2, 3), keepdim=True)
        return (100 * change).expand(-1, 2, *a.shape[-2:])


def test_flow_lies_beside_the_packs_in_both_directions(
    tmp_path: Path, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpyNet, "load", classmethod(lambda cls: Brightening()))
    data, out = tmp_path / "data", tmp_path / "out"
    write_clip(data / "ann" / "a.avi", [100, 110, 130])
    write_image(data / "ann" / "b.png")
    write_clip(data / "bob" / "c.avi", list(range(60, 180, 10)))
    arguments = argparse.Namespace(data=data, out=out, frames=300, flow=True, device="cpu")
    assert command.run(arguments) == 0
    clip, still = read_packs(out, "train")
    assert clip.flow_next is not None
    assert clip.flow_previous is not None
    assert clip.flow_next.shape == clip.flow_previous.shape == (2, 2, 64, 64)
    # Twice the value: the network is asked at 128 px, the answer is in pixels of 256.
    levels = [100 * step / 255 * 2 for step in (10, 20)]
    np.testing.assert_allclose(clip.flow_next.mean((1, 2, 3)), levels, atol=1)
    np.testing.assert_allclose(clip.flow_previous, -clip.flow_next, atol=1e-2)
    assert still.flow_next is not None
    assert len(still.flow_next) == 0
    (other,) = read_packs(out, "validation")
    assert other.flow_next is not None
    np.testing.assert_allclose(other.flow_next.mean((1, 2, 3)), levels[0], atol=1)
    before = (out / "flow-000.npz").stat()
    command.run(argparse.Namespace(**{**vars(arguments), "data": out, "out": None}))
    assert (out / "flow-000.npz").stat() == before


def test_the_flow_of_a_shifted_texture_is_its_shift(pinned: Callable[[str], Path]) -> None:
    pinned("spynet")
    noise = np.random.default_rng(0).standard_normal((300, 300, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 6)
    texture = np.clip(127 + 600 * texture, 0, 255).astype(np.uint8)
    crops = np.stack([texture[20 : 20 + CROP_SIZE, 20 + 6 * t : 20 + 6 * t + CROP_SIZE] for t in range(2)])
    forward, backward = command.flow_of(sequence("a", crops), SpyNet.load())
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(np.median(forward[inside], axis=(0, 2, 3)), [-6, 0], atol=0.5)
    np.testing.assert_allclose(np.median(backward[inside], axis=(0, 2, 3)), [6, 0], atol=0.5)


def test_a_real_clip_becomes_the_crops_that_the_editor_sees(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "someone.mp4").symlink_to(clips / "pyfeat_single_face.mp4")
    assert prepare(tmp_path / "data", tmp_path / "out", 8) == 1
    (found,) = read_packs(tmp_path / "out", "train")
    assert found.frames is not None
    assert found.frames.tolist() == list(range(8))
    scale = np.linalg.norm(found.crop_from_frame[:, 0, :2], axis=1)
    assert (scale > 0.3).all()
    assert (scale < 3).all()
    assert np.abs(np.diff(found.crop_from_frame[:, :, 2], axis=0)).max() < 6  # steady, in crop pixels
    assert found.crops[0].std() > 20
