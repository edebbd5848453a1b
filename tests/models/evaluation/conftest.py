"""Fixtures for the tests of evaluation."""

import pytest


@pytest.fixture(autouse=True)
def _small_pictures(one_thread: None) -> None:
    """All of these tests work on small pictures."""
