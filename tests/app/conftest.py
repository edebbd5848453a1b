"""Fixtures for the program's tests: a run that goes on, and a camera that others can read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.live_bench import Bench
from tests.app.registered_camera import Log, need_pyvirtualcam


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A live editor on fakes, at work."""
    made = Bench()
    made.editor.start()
    yield made
    made.may_open.set()
    assert made.editor.end(60)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """What the camera in the place of every real one was sent."""
    need_pyvirtualcam()
    made = Log(tmp_path / "sent.txt")
    made.take_the_place_of_every_camera(monkeypatch)
    return made
