"""`python -m export.default_bundle`: the recipe of the default bundle from the committed weights.

Weights of the published generator do not enter it: they stay references into the pinned file, which
`rigid-live assets build` follows (`engine/bundle_build.py`).
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from engine import int8, likeness
from engine.assets import asset
from engine.bundle import MANIFEST, GraphSpec, Manifest, Row, expected_graphs, load_directions, optional_graphs
from engine.bundle_build import recipe_folder
from export.bundle import write_bundle, write_manifest
from export.parser import PARSER, lineage_line
from export.pinned import refer_to_asset, refer_to_graph
from export.slope import with_slope
from export.to_onnx import compress, export_fixed, export_graph
from export.tracking import name_slopes
from models.checkpoints.published import load_light_generator, trained_tensors
from models.checkpoints.weights import FRESH
from models.identity import FaceIdentity
from models.likeness import Unlikeness
from models.mobile_stylegan import (
    LATENT_DIM,
    LIGHT_256,
    NOISE_RESOLUTION,
    WIDE_256,
    MobileStyleGan,
    band_order,
    first_narrower,
)
from models.recurrent import LIGHT
from models.training.encoder import load_encoder
from models.training.recurrent import load_recurrent
from models.training.refiner import load_refiner

NAME = "default"
LICENCE = "non-commercial; see models/bundles/LICENSE.md"
RESOLUTION = LIGHT_256.resolution
NOISE = (LIGHT_256.widths[2], NOISE_RESOLUTION, NOISE_RESOLUTION)
BAND_ORDERS = (band_order(LIGHT_256.stem_width).numpy(),)
"""In which the generator takes channels of the published one."""


def write_default_recipe(folder: Path, weights: Path) -> Manifest:
    """Exports every network into `folder`, which keeps its parser, directions and, until `export.reach` measures them
    anew, reaches; returns the manifest. What two graphs share, the search for a likeness the generator and the refiner
    its identity network, one of them holds.

    weights: folder of freshly trained ones; a network without fresh weights keeps those that ship.
    """
    with TemporaryDirectory() as temporary:
        graphs = {"parser": folder / "parser.onnx"}
        for name, (network, inputs, outputs) in _networks(weights).items():
            path = Path(temporary) / f"{name}.onnx"
            export_graph(network, path, inputs, outputs)
            if name == "generator":
                assert isinstance(network, MobileStyleGan)
                inline = refer_to_asset(path, "synthesis_bin", BAND_ORDERS)
                assert set(inline) <= _ours(network).keys(), "a third party's weights would be committed"
            if name == "encoder":
                name_slopes(path, network, inputs["crop"])
            compress(path, quantize=True)
            graphs[name] = path
        search = Path(temporary) / likeness.FILE
        write_likeness(search, weights)
        refer_to_graph(search, graphs["generator"])
        refer_to_graph(graphs["refiner"], search)
        manifest = _manifest(folder)
        graphs["encoder_anchor"] = graphs["encoder"]
        directions = load_directions(folder / "directions.npz", manifest).values()
        notes = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".md", ".json")}
        written = write_bundle(folder, manifest, graphs, directions)
        shutil.copyfile(search, folder / likeness.FILE)
    for name in notes.keys() - {MANIFEST}:
        (folder / name).write_bytes(notes[name])
    return write_manifest(folder, written, [likeness.FILE, *({int8.FILE} & notes.keys())])


def write_likeness(path: Path, weights: Path) -> None:
    """The graph of the search for a likeness (`engine/likeness.py`), for one image at a time."""
    generator, identity = load_light_generator(weights), FaceIdentity.load()
    inputs = {
        "ws": torch.zeros(1, LIGHT_256.latent_rows, LATENT_DIM),
        "crop": torch.zeros(1, 3, RESOLUTION, RESOLUTION),
    }
    search = with_slope(Unlikeness(generator, identity), list(inputs.values()))
    export_fixed(search, path, inputs, ["unlike", "slope"])
    inline = refer_to_asset(path, "synthesis_bin", BAND_ORDERS)
    ours = {tensor.numpy().tobytes() for tensor in (*_ours(generator).values(), *identity.state_dict().values())}
    lines = {tensor.numpy().tobytes() for tensor in (identity.down, identity.across)}
    stored = {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    strange = [name for name in inline if numpy_helper.to_array(stored[name]).tobytes() not in ours | lines]
    assert not strange, f"a third party's weights would be committed: {', '.join(strange)}"
    compress(path)


def _ours(generator: MobileStyleGan) -> Mapping[str, Tensor]:
    """The tensors of the generator that were trained here."""
    return trained_tensors(generator, first_narrower(WIDE_256, LIGHT_256))


def _networks(weights: Path) -> dict[str, tuple[nn.Module, dict[str, Tensor], list[str]]]:
    """Each graph's network, example inputs (batch 2) and output names."""
    image = torch.zeros(2, 3, RESOLUTION, RESOLUTION)
    # The exporter takes one tensor given twice for one input.
    images = {name: image.clone() for name in ("crop_prev", "crop", "inversion_prev", "edit_prev")}
    codes, recurrent = torch.zeros(2, LIGHT_256.latent_rows, LATENT_DIM), load_recurrent(weights)
    h, c = recurrent.empty_state(image)
    return {
        "generator": (load_light_generator(weights), {"ws": codes, "noise": torch.zeros(2, *NOISE)}, ["image"]),
        "encoder": (load_encoder(weights), {"crop": image}, ["ws"]),
        "refiner": (load_refiner(weights), {"crop": image, "inversion": image.clone()}, ["dws"]),
        "recurrent": (
            recurrent,
            {**images, "h": h, "c": c},
            ["dws", "noise", "h_out", "c_out"],
        ),
    }


def _manifest(folder: Path) -> Manifest:
    h, c = LIGHT.state_shapes
    numbers = Manifest(
        name=NAME,
        resolution=RESOLUTION,
        latent_rows=LIGHT_256.latent_rows,
        latent_dim=LATENT_DIM,
        former_rows=LIGHT_256.former_rows,
        rows=tuple(Row(name, resolution) for name, resolution in LIGHT_256.row_names()),
        noise=NOISE,
        h=h,
        c=c,
        crop_template="ffhq",
        crop_size=RESOLUTION,
        image_range=(-1.0, 1.0),
        parser=PARSER,
        graphs={},
        generator_id=asset("synthesis_bin").sha256,
        licence=LICENCE,
        lineage=_lineage(folder),
    )
    shapes = {**expected_graphs(numbers), **optional_graphs(numbers)}
    graphs = {name: GraphSpec(f"{name}.onnx", *of) for name, of in shapes.items()}
    # One graph is both encoders: it gives all rows on every frame.
    both = replace(graphs["encoder_anchor"], file="encoder.onnx")
    return replace(numbers, graphs={**graphs, "encoder_anchor": both, "encoder": both})


def _lineage(folder: Path) -> dict[str, str]:
    """One line a network: the steps in `lineage.json` of the weights, and what is written beside the parser."""
    steps: dict[str, list[str]] = json.loads((Path(__file__).parents[1] / "models/weights/lineage.json").read_text())
    lines = {network: "; ".join(one_after_another) for network, one_after_another in steps.items()}
    lines["parser"] = lineage_line(folder)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=recipe_folder(NAME), help="the recipe's folder: holds parser.onnx, directions.npz"
    )
    parser.add_argument("--weights", type=Path, default=FRESH, help="folder of freshly trained weights")
    arguments = parser.parse_args()
    write_default_recipe(arguments.out, arguments.weights)


if __name__ == "__main__":
    main()
