"""The published generator and what we trained on top of it."""

from pathlib import Path

from torch import Tensor

from engine.assets import asset_path
from models.checkpoints.weights import fitting, load_weights
from models.mobile_stylegan import (
    LIGHT_256,
    MappingNetwork,
    MobileStyleGan,
    MobileStyleGanConfig,
    load_mapping,
    load_teacher,
)


def published_mapping() -> MappingNetwork:
    """The mapping network of the pinned asset. Raises AssetMissing."""
    return load_mapping(asset_path("mapping_xml"), asset_path("mapping_bin"))


def published_generator(config: MobileStyleGanConfig) -> MobileStyleGan:
    """The synthesis network of the pinned asset, cut to `config`. Raises AssetMissing."""
    return load_teacher(asset_path("synthesis_xml"), asset_path("synthesis_bin"), config)


def trained_tensors(generator: MobileStyleGan) -> dict[str, Tensor]:
    """The parameters of `generator` that this training owns, by their names in the generator."""
    prefixes = (f"layers.{len(generator.layers) - 1}.", "to_rgb.")
    return {name: p for name, p in generator.named_parameters() if name.startswith(prefixes)}


def load_light_generator(folder: Path | None = None) -> MobileStyleGan:
    """The light bundle's generator: published weights, our last layer and RGB head.

    folder: of fresh weights; what ships without it. Raises AssetMissing, CheckpointError.
    """
    generator = published_generator(LIGHT_256)
    ours = fitting(load_weights("generator", folder), trained_tensors(generator), "generator")
    generator.load_state_dict(ours, strict=False)
    return generator.eval().requires_grad_(False)
