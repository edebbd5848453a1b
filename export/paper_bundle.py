"""The bundle `paper-256`: the networks of the paper's size with seeded random weights.

It edits nothing a person would recognise; it is what the paper's method costs, for timing and for testing the program
at full size. Trained weights of these networks enter by `rigid-live import`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from engine.assets import sha256_of
from engine.bundle import GraphSpec, Manifest, ParserSpec, Row, expected_graphs
from engine.direction_file import Direction
from export.bundle import write_bundle
from export.to_onnx import compress, export_graph, fold_constants
from models.bisenet import CLASSES, FACE_CLASSES, BiSeNet, CropParser
from models.config import PAPER_256, Preset
from models.e4e import E4eEncoder, FormerRows
from models.recurrent import RecurrentEncoder
from models.stylegan2 import NOISE_RESOLUTION, NoiseStrength, RgbHead, StyleGan2, StyleGan2Config

log = logging.getLogger(__name__)

SEED = 0
RANDOM = f"random weights (seed {SEED}), not trained"
ATTRIBUTES = ("age", "gender", "smile")
REACH = 3.0
"""How far a slider moves the code at +1 and at -1, in units of its direction."""

PARSING_RESOLUTION = 128
"""The masks are eroded and feathered by pixels of the 256 px crop: finer logits would only take time."""


@dataclass(frozen=True)
class Graph:
    """What becomes one ONNX file."""

    name: str
    network: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


def build(folder: Path, recipe: str, preset: Preset = PAPER_256) -> Manifest:
    """Writes the bundle, whole or not at all; takes a minute, 5 GB of memory and 1 GB of disk.

    recipe: what the manifest records as its origin, so that an outdated bundle is known. Returns the manifest.
    """
    log.info("building the bundle %s with %s", preset.name, RANDOM)
    folder.parent.mkdir(parents=True, exist_ok=True)
    files = {}
    with TemporaryDirectory(prefix=".exporting-", dir=folder.parent) as temporary, torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for graph in _graphs(preset):
            path = files[graph.name] = Path(temporary) / f"{graph.name}.onnx"
            export_graph(graph.network, path, graph.inputs, graph.outputs)
            fold_constants(path)
            compress(path)
        manifest = _manifest(preset, recipe, generator_id=sha256_of(files["generator"]))
        return write_bundle(folder, manifest, files, _directions(manifest))


def _graphs(preset: Preset) -> Iterator[Graph]:
    """One after the other, so that only one network is in memory."""
    image = torch.zeros(2, 3, preset.generator.resolution, preset.generator.resolution)
    yield _generator_graph(_drawn(preset, "generator"))
    encoder = _drawn(preset, "encoder")
    assert isinstance(encoder, E4eEncoder)
    yield Graph("encoder_anchor", encoder, {"crop": image}, ["ws"])
    yield Graph("encoder", FormerRows(encoder, preset.generator.former_rows), {"crop": image}, ["ws"])
    del encoder
    yield _recurrent_graph(_drawn(preset, "recurrent"), image)
    parser = _drawn(preset, "parser")
    assert isinstance(parser, BiSeNet)
    yield Graph("parser", CropParser(parser, PARSING_RESOLUTION), {"crop": image}, ["logits"])


def _drawn(preset: Preset, name: str) -> nn.Module:
    """A network whose every part has an effect on what comes out.

    What training starts from fades within a few layers or is zero; it would cost the same, but hide mistakes.
    """
    network = preset.build(name)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5)
        elif isinstance(part, NoiseStrength):
            nn.init.constant_(part.weight, 0.1)
        elif isinstance(part, RgbHead):
            # The heads' images add up: smaller ones leave the sum at about [-1, 1].
            nn.init.normal_(part.conv.weight, std=0.2)
    return network


def _generator_graph(network: nn.Module) -> Graph:
    assert isinstance(network, StyleGan2)
    config = network.config
    noise = torch.zeros(2, config.width(NOISE_RESOLUTION), NOISE_RESOLUTION, NOISE_RESOLUTION)
    return Graph(
        "generator", network, {"ws": torch.zeros(2, config.latent_rows, config.latent_dim), "noise": noise}, ["image"]
    )


def _recurrent_graph(network: nn.Module, image: Tensor) -> Graph:
    assert isinstance(network, RecurrentEncoder)
    images = dict.fromkeys(("crop_prev", "crop", "inversion_prev", "edit_prev"), image)
    h, c = network.empty_state(image)
    return Graph("recurrent", network, {**images, "h": h, "c": c}, ["dws", "noise", "h_out", "c_out"])


def _manifest(preset: Preset, recipe: str, generator_id: str) -> Manifest:
    generator, encoder = preset.generator, preset.recurrent
    assert isinstance(generator, StyleGan2Config)
    channels = generator.width(NOISE_RESOLUTION)
    h, c = encoder.state_shapes
    numbers = Manifest(
        name=preset.name,
        resolution=generator.resolution,
        latent_rows=generator.latent_rows,
        latent_dim=generator.latent_dim,
        former_rows=generator.former_rows,
        rows=tuple(Row(name, resolution) for name, resolution in generator.row_names()),
        noise=(channels, NOISE_RESOLUTION, NOISE_RESOLUTION),
        h=h,
        c=c,
        crop_template="ffhq",
        crop_size=generator.resolution,
        image_range=(-1.0, 1.0),
        parser=ParserSpec(PARSING_RESOLUTION, CLASSES, FACE_CLASSES),
        graphs={},
        generator_id=generator_id,
        licence=f"none needed: {RANDOM}",
        lineage={
            "generator": f"StyleGAN2 at 256 px, channel multiplier {generator.channel_multiplier}: {RANDOM}",
            "encoder": f"e4e on IR-SE50: {RANDOM}",
            "recurrent": f"RIGID's recurrent encoder: {RANDOM}",
            "parser": f"BiSeNet on ResNet-18: {RANDOM}",
            "directions": f"unit vectors in W: {RANDOM}",
        },
        recipe=recipe,
    )
    graphs = {
        name: GraphSpec(f"{name}.onnx", inputs, outputs) for name, (inputs, outputs) in expected_graphs(numbers).items()
    }
    return Manifest(**{**vars(numbers), "graphs": graphs})


def _directions(manifest: Manifest) -> list[Direction]:
    """A random unit vector for each attribute, the same in every row."""
    rng = np.random.default_rng(SEED)
    drawn = {name: rng.standard_normal(manifest.latent_dim) for name in ATTRIBUTES}
    rows = (manifest.latent_rows, 1)
    return [
        Direction(name, name.capitalize(), np.tile(v / np.linalg.norm(v), rows).astype(np.float32), lo=-REACH, hi=REACH)
        for name, v in drawn.items()
    ]
