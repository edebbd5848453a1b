"""Fixtures for all tests: the devices there are, the real clips, the pinned files."""

import importlib.util
import logging
import os
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import pytest

from engine.assets import asset_path
from engine.errors import AssetMissing
from engine.runtimes.tensorrt import driver_obstacle

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

MISSING = ("could not import", "is not in the cache", "is not installed")
"""What a skip says when something is not there that `.ci/run` or `make setup-dev` installs."""


os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Leaves pytest-qt out where Qt lacks system libraries: it would end the whole session."""
    try:
        if importlib.util.find_spec("pytestqt"):
            import_module("PyQt6.QtWidgets")
    except ImportError:
        pluginmanager.set_blocked("pytest-qt")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu"] if driver_obstacle() else ["cpu", "cuda"])


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real video clips; skips where `RIGID_TEST_DATA` is not set, fails where it is wrong."""
    root = os.environ.get("RIGID_TEST_DATA")
    if not root:
        pytest.skip("RIGID_TEST_DATA is not set: no real clips")
    folder = Path(root) / "videos"
    assert folder.is_dir(), f"RIGID_TEST_DATA is {root}, which has no folder videos"
    return folder


@pytest.fixture(scope="session")
def pinned() -> Callable[[str], Path]:
    """Gives a pinned third-party file by its name; skips where it is not in the cache."""

    def path(name: str) -> Path:
        try:
            return asset_path(name)
        except AssetMissing as error:
            pytest.skip(str(error))

    return path


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own in the place of the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RIGID_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def environment_kept() -> Generator[None]:
    """Fails the test that leaves a variable set or changed: later tests would find another cache, screen or bus."""
    before = dict(os.environ)
    yield
    # pytest and torch keep some of their own, and OpenCV sets one the first time it is imported.
    own = ("PYTEST_", "TORCH", "LD_LIBRARY_PATH")
    changed = {name for name, _ in before.items() ^ os.environ.items() if not name.startswith(own)}
    assert not changed, f"environment variables changed: {', '.join(sorted(changed))}"


@pytest.fixture(autouse=True)
def log_handlers_kept() -> Generator[None]:
    """Takes the command line's handlers away again: they write to streams that end with their test."""
    before = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_for_missing((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_for_missing((yield))


def _fail_for_missing(report: Report) -> Report:
    """In CI, turns a skip for something that should be installed into a failure, so that no test gets lost."""
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
    if report.skipped and os.environ.get("CI") and any(words in reason for words in MISSING):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything must be there: {reason}"
    return report
