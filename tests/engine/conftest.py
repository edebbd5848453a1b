"""The tiny bundle, built once a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bundle import Bundle, open_bundle
from engine.runtimes.base import Networks
from engine.runtimes.select import open_networks, select
from tests.engine.tiny_bundle import build


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bundles") / "tiny", refined=True)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Bundle:
    return open_bundle(tiny_folder)


@pytest.fixture(scope="session")
def tiny_networks(tiny: Bundle) -> Iterator[Networks]:
    networks = open_networks(tiny, select("onnxruntime"))
    yield networks
    networks.close()
