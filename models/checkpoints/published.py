"""The published generator and what we trained on top of it."""

from pathlib import Path

from torch import Tensor

from engine.assets import asset_path
from models.checkpoints.weights import fitting, load_weights
from models.mobile_stylegan import (
    LIGHT_256,
    WIDE_256,
    MappingNetwork,
    MobileStyleGan,
    MobileStyleGanConfig,
    first_narrower,
    load_mapping,
    load_teacher,
)


def published_mapping() -> MappingNetwork:
    """The mapping network of the pinned asset. Raises AssetMissing."""
    return load_mapping(asset_path("mapping_xml"), asset_path("mapping_bin"))


def published_generator(config: MobileStyleGanConfig) -> MobileStyleGan:
    """The synthesis network of the pinned asset, cut to `config`. Raises AssetMissing."""
    return load_teacher(asset_path("synthesis_xml"), asset_path("synthesis_bin"), config)


def cut_generator(config: MobileStyleGanConfig) -> MobileStyleGan:
    """A generator of those widths whose layers below the first narrower one are published. Raises AssetMissing."""
    generator = MobileStyleGan(config)
    ours = trained_tensors(generator, first_narrower(WIDE_256, config))
    published = published_generator(WIDE_256).state_dict()
    generator.load_state_dict({n: t for n, t in published.items() if n not in ours}, strict=False)
    return generator.eval().requires_grad_(False)


def trained_tensors(generator: MobileStyleGan, first: int) -> dict[str, Tensor]:
    """The parameters of the layers from `first` on and of the RGB head, which are ours, by their names."""
    prefixes = (*(f"layers.{i}." for i in range(first, len(generator.layers))), "to_rgb.")
    return {name: p for name, p in generator.named_parameters() if name.startswith(prefixes)}


def load_light_generator(folder: Path | None = None) -> MobileStyleGan:
    """The light bundle's generator: published layers up to 32 px, then our narrow ones and our RGB head.

    folder: of fresh weights; what ships without it. Raises AssetMissing, CheckpointError.
    """
    return _with_ours(cut_generator(LIGHT_256), first_narrower(WIDE_256, LIGHT_256), "generator", folder)


def load_wide_generator(folder: Path | None = None) -> MobileStyleGan:
    """What the light generator is made from: published layers up to 128 px, the last trained by us, and our RGB head.

    Raises AssetMissing, CheckpointError.
    """
    return _with_ours(published_generator(WIDE_256), len(WIDE_256.widths) - 1, "wide", folder)


def _with_ours(generator: MobileStyleGan, first: int, name: str, folder: Path | None) -> MobileStyleGan:
    ours = fitting(load_weights(name, folder), trained_tensors(generator, first), name)
    generator.load_state_dict(ours, strict=False)
    return generator.eval().requires_grad_(False)
