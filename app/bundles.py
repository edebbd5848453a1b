"""Bundles by name: those that are built with torch on first use, beside the engine's own default one."""

from importlib import import_module
from pathlib import Path

from engine.assets import cache_folder
from engine.bundle import read_manifest
from engine.errors import BundleError, RuntimeUnavailable

BUILT_WITH_TORCH = {"paper-256": ("export.paper_bundle", "paper-256, 1")}
"""By name: the module with `build(folder, recipe)`, and the recipe; another recipe makes every older bundle stale."""


def prepare_bundle(name_or_dir: str) -> str:
    """A name or folder that the engine opens, after building what has to be built.

    Raises RuntimeUnavailable when that needs packages which are not installed.
    """
    if name_or_dir not in BUILT_WITH_TORCH or Path(name_or_dir).is_dir():
        return name_or_dir
    module, recipe = BUILT_WITH_TORCH[name_or_dir]
    folder = cache_folder() / "bundles" / name_or_dir
    if _recipe_of(folder) != recipe:
        try:
            build = import_module(module).build
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(
                f"the bundle {name_or_dir} is built on first use, which needs the package {error.name}; "
                f"install the extra `train`"
            ) from error
        build(folder, recipe)
    return str(folder)


def _recipe_of(folder: Path) -> str:
    """The recipe that a built bundle records; empty when there is no readable bundle."""
    try:
        return read_manifest(folder).recipe
    except BundleError:
        return ""
