"""Bundles that are built on first use: built once, left alone when fresh, and one clear line without torch."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from app import bundles
from app.bundles import prepare_bundle
from engine.errors import RuntimeUnavailable
from export.bundle import write_bundle
from tests.blank_bundle import blank_directions, blank_manifest, constant_graph


@pytest.fixture
def builds(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that a stand-in for the building module has built in."""
    built: list[Path] = []
    module = ModuleType("stand_in")

    def build(folder: Path, recipe: str) -> None:
        _write(folder, recipe)
        built.append(folder)

    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setattr(bundles, "BUILT_WITH_TORCH", {"paper-256": ("stand_in", "made up, 1")})
    return built


def _write(folder: Path, recipe: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    manifest, graph = replace(blank_manifest(), recipe=recipe), folder.parent / "graph.onnx"
    onnx.save(constant_graph(np.zeros(5, np.float32)), str(graph))
    write_bundle(folder, manifest, dict.fromkeys(manifest.graphs, graph), blank_directions())


def test_it_is_built_once(builds: list[Path], empty_cache: Path) -> None:
    folder = empty_cache / "bundles" / "paper-256"
    assert prepare_bundle("paper-256") == prepare_bundle("paper-256") == str(folder)
    assert builds == [folder]


def test_another_recipe_is_built_anew(builds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_bundle("paper-256")
    monkeypatch.setattr(bundles, "BUILT_WITH_TORCH", {"paper-256": ("stand_in", "made up, 2")})
    prepare_bundle("paper-256")
    assert len(builds) == 2


def test_other_names_and_folders_are_the_engines(
    builds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper-256").mkdir()
    for name in ("default", str(tmp_path), "nowhere", "paper-256"):
        assert prepare_bundle(name) == name
    assert not builds


def test_without_torch_the_extra_is_named(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith(("export", "models"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(RuntimeUnavailable, match="needs the package torch; install the extra `train`"):
        prepare_bundle("paper-256")
    assert not empty_cache.exists()
