"""Likenesses are kept under a name, for the networks they were found with, until they are deleted."""

from pathlib import Path

import numpy as np
import pytest

from app import people as module
from app.people import People
from engine.errors import SinkError, UsageError

LIKENESS = np.arange(24, dtype=np.float32).reshape(2, 12)


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    monkeypatch.setattr(module, "networks_of", lambda bundle: f"networks of {bundle}")
    return People(tmp_path / "people")


def test_what_is_kept_can_be_read_and_deleted(people: People) -> None:
    assert people.names() == []
    people.save("Zoë", LIKENESS, "default")
    people.save("anna", 2 * LIKENESS, "default")
    assert people.names() == ["anna", "Zoë"]
    np.testing.assert_array_equal(people.load("anna", "default"), 2 * LIKENESS)
    people.delete("anna")
    assert people.names() == ["Zoë"]
    with pytest.raises(SinkError, match="anna"):
        people.delete("anna")


def test_nothing_is_made_before_something_is_kept(people: People, tmp_path: Path) -> None:
    people.names()
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_can_look_into_the_folder(people: People, tmp_path: Path) -> None:
    people.save("anna", LIKENESS, "default")
    assert (tmp_path / "people").stat().st_mode & 0o077 == 0


def test_other_networks_than_those_it_was_found_with_are_refused(people: People) -> None:
    people.save("anna", LIKENESS, "default")
    with pytest.raises(UsageError, match="other networks"):
        people.load("anna", "mine")


def test_a_name_that_nobody_has_tells_who_is_there(people: People) -> None:
    people.save("anna", LIKENESS, "default")
    with pytest.raises(UsageError, match="'bob'; there is anna"):
        people.load("bob", "default")


@pytest.mark.parametrize("content", [b"", b"\x80\x04junk", b"PK\x03\x04junk"])
def test_a_broken_file_is_a_clear_error(people: People, content: bytes) -> None:
    people.save("anna", LIKENESS, "default")
    people.path("anna").write_bytes(content)
    with pytest.raises(UsageError, match="improve it again"):
        people.load("anna", "default")


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", " a"])
def test_a_name_that_no_file_can_have_is_refused(people: People, name: str) -> None:
    with pytest.raises(UsageError, match="a person's name"):
        people.save(name, LIKENESS, "default")
