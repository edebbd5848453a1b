"""`rigid-live generators`: the light generator and the wide one it was made from, scored against the 1024 px network.

On codes that no training saw: PSNR and ST-LPIPS to the 1024 px network's image scaled down, `detail` (energy of the
finest Haar bands as a share of its), and the Fréchet distance of pooled AlexNet features (ST-LPIPS's trunk, its last
two stages) to that network's images of other codes, which has a floor: that network's own images of the scored codes.
Beside them parameters, arithmetic and milliseconds on OpenVINO, the generators taking turns, and how far each slider
moves its own score on all three networks. What `rigid-live train compression` measured on its way, other widths in
closed form, is kept in the report and drawn as a curve.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import UsageError
from models.checkpoints.published import load_light_generator, load_wide_generator
from models.checkpoints.weights import FRESH
from models.compiled import compile_network, take_turns
from models.evaluation.edit_response import Maker, edit_responses
from models.evaluation.fvd import frechet_distance
from models.evaluation.report import versions
from models.mobile_stylegan import LATENT_DIM, TEACHER_1024, MobileStyleGan
from models.perceptual import StLpips
from models.pictures import pictures_from
from models.scorers import FaceScorers
from models.training.compression import COMPRESSION_LOG
from models.training.directions import DIRECTIONS_FILE, read_sliders
from models.training.generator import HELD_OUT, TARGETS
from models.training.log import checkpoint_dir
from models.training.narrowing import gigaflops
from models.training.samples import CodeSampler, image_tensor, openvino_teacher, teacher_image, teacher_targets
from models.training.stills import likeness

log = logging.getLogger(__name__)

UNSEEN_SEED = 9
"""Of the codes that are scored; trainings draw theirs with other seeds."""
LEAST_CODES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--codes", type=int, default=2000, help="unseen codes to score on; the first time 0.2 to 0.8 s each")
    add("--weights", type=Path, default=FRESH, help="folder of fresh weights; what ships where it has none")
    add("--edit-codes", type=int, default=24, help="codes that every slider moves on all three networks")
    add("--report", type=Path, default=Path("generators.json"))
    add("--plot", type=Path, help="picture of score against arithmetic, SVG")


def run(args: argparse.Namespace) -> int:
    """Score both, write report and plot. Raises the errors of `engine/errors.py`."""
    for flag, count in (("--codes", args.codes), ("--edit-codes", args.edit_codes)):
        if count < LEAST_CODES:
            raise UsageError(f"{flag} is {count}; at least {LEAST_CODES} was expected")
    networks = {"wide": load_wide_generator(args.weights), "light": load_light_generator(args.weights)}
    codes, images = teacher_targets(args.codes, 0, UNSEEN_SEED)
    others = teacher_targets(TARGETS, HELD_OUT)[1][HELD_OUT:]
    trunk = StLpips.load()
    real = pooled_features(trunk, image_tensors(others))
    times = time_side_by_side(networks.values())
    blocks = [
        {"generator": name, **shape_of(network), **ms, **scores(network, codes, images, real, trunk)}
        for (name, network), ms in zip(networks.items(), times, strict=True)
    ]
    for block in blocks:
        log.info(", ".join(f"{key} {_told(value)}" for key, value in block.items()))
    report = {
        "settings": {
            "codes": args.codes,
            "seed": UNSEEN_SEED,
            "other_images": len(others),
            "edit_codes": args.edit_codes,
        },
        "versions": versions(),
        "runs": blocks,
        "frechet_floor": frechet_distance(real, pooled_features(trunk, image_tensors(images))),
        "edit_responses": slider_responses(networks, args.edit_codes),
        "closed_form": closed_form_runs(),
    }
    args.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        args.plot.write_bytes(curve_plot(report))
    return 0


def shape_of(network: MobileStyleGan) -> dict[str, Any]:
    """Widths, millions of parameters and GFLOP of one image."""
    config = network.config
    numbers = sum(parameter.numel() for parameter in network.parameters())
    widths = {"widths": list(config.widths), "inner": list(config.inner_widths)}
    return {**widths, "parameters_m": numbers / 1e6, "gflop": gigaflops(config)}


@torch.no_grad()
def scores(
    network: MobileStyleGan,
    codes: NDArray[np.float32],
    images: NDArray[np.uint8],
    real: NDArray[np.float32],
    trunk: StLpips,
) -> dict[str, float]:
    """What the network makes of codes [N, L, 512] against images uint8 RGB [N, S, S, 3]; real: features [M, D]."""
    rows = network.config.latent_rows
    compiled = compile_network(network, torch.zeros(1, rows, codes.shape[2]))
    made = [torch.from_numpy(compiled(code[None, :rows]).copy()).clamp(-1.0, 1.0) for code in codes]
    distance = frechet_distance(real, pooled_features(trunk, made))
    return {**likeness(made, image_tensors(images), trunk), "frechet": distance}


def slider_responses(networks: Mapping[str, MobileStyleGan], count: int) -> dict[str, dict[str, float]]:
    """`edit_responses` of the shipped sliders at +1, on the 1024 px network ("teacher") and on these."""
    teacher = openvino_teacher("bf16")

    def teachers(codes: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.stack([teacher_image(teacher, code[None]) for code in codes])

    def maker(network: MobileStyleGan) -> Maker:
        rows = network.config.latent_rows
        compiled = compile_network(network, torch.zeros(1, rows, LATENT_DIM), "bf16")
        return lambda codes: np.concatenate([pictures_from(compiled(code[None, :rows])) for code in codes])

    makers: dict[str, Maker] = {"teacher": teachers, **{name: maker(network) for name, network in networks.items()}}
    drawn = CodeSampler.open().draw(count, torch.Generator().manual_seed(UNSEEN_SEED)).numpy()
    codes = np.repeat(drawn[:, None], TEACHER_1024.latent_rows, axis=1)
    return edit_responses(makers, read_sliders(DIRECTIONS_FILE), codes, FaceScorers.open())


def image_tensors(images: NDArray[np.uint8]) -> Iterable[Tensor]:
    """One image at a time: [1, 3, S, S] in [-1, 1]."""
    return (image_tensor(images[i : i + 1]) for i in range(len(images)))


@torch.no_grad()
def pooled_features(trunk: StLpips, images: Iterable[Tensor]) -> NDArray[np.float32]:
    """Means over the image of the trunk's last two stages, [N, D]."""
    pooled = (torch.cat([stage.mean(dim=(2, 3)) for stage in trunk.features(image)[-2:]], dim=1) for image in images)
    return torch.cat(list(pooled)).numpy()


def time_side_by_side(networks: Iterable[MobileStyleGan]) -> list[dict[str, float]]:
    """Median milliseconds of one image and of a batch of two, in bf16 where the processor has it, taking turns."""
    kinds = {"ms": 1, "ms_batch_of_two": 2}
    calls: list[Callable[[], object]] = []
    for network in networks:
        for batch in kinds.values():
            ws = torch.zeros(batch, network.config.latent_rows, LATENT_DIM)
            calls.append(partial(compile_network(network, ws, "bf16"), ws.numpy()))
    medians = np.reshape(take_turns(calls), (-1, len(kinds)))
    return [dict(zip(kinds, row, strict=True)) for row in medians.tolist()]


def closed_form_runs() -> list[dict[str, Any]]:
    """What `rigid-live train compression` measured before its trainings: the newest run of each shape."""
    path = checkpoint_dir("generator") / COMPRESSION_LOG
    lines = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    newest = {(*line["widths"], *line["inner"]): line for line in lines if line["network"] == "narrow"}
    return sorted(newest.values(), key=lambda line: line["gflop"])


def curve_plot(report: Mapping[str, Any]) -> bytes:
    """ST-LPIPS and PSNR against GFLOP: closed form as a line, the trained generators as points; SVG."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "rigid-live", "font.size": 9.0}
    panels = (("st_lpips", "ST-LPIPS to the 1024 px network"), ("psnr_db", "PSNR, dB"))
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.0, 3.2), layout="constrained")
        for axes, (key, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            axes.plot(*_points(report["closed_form"], key), "o-", color="0.6", label="narrowed in closed form")
            for block, colour in zip(report["runs"], ("tab:blue", "tab:orange"), strict=True):
                axes.plot(block["gflop"], block[key], "o", color=colour, label=f"{block['generator']}, trained")
            axes.set_xlabel("GFLOP of one image")
            axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        picture = BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    return [line["gflop"] for line in lines], [line[key] for line in lines]


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
