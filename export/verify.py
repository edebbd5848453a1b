"""Compares two ways of running a bundle's networks over the recurrent loop, and judges the difference.

Both start from one seed and go their own way: each feeds back its own images and its own ConvLSTM state, so that errors
that grow over time show. An error is the absolute difference of an output, in units of [-1, 1] images; an output that
reaches further than 1 is measured against how far it reaches.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.bundle import Bundle, GraphSpec
from engine.errors import ExportError
from engine.recurrence import advance
from engine.runtimes.base import FloatArray, Network, Networks, Precision

log = logging.getLogger(__name__)

STEPS = 50
SEED = 0

_SWING = 0.3
"""How far the sliders of the drawn film go, in units of their range."""

_TURNS = 7
"""How often a grey picture's code is drawn and inverted anew before it is taken for a face's."""

_GRAIN = 0.05
"""Half the height of the drawn film's noise, on images in [-1, 1]."""

Outputs = Mapping[str, FloatArray]
"""What the networks gave at one step, by `graph.output`."""


@dataclass(frozen=True)
class Tolerance:
    """Which figure of the errors of an output is judged, and how large it may be at any step."""

    figure: str
    limit: float


TOLERANCES: Mapping[Precision, Tolerance] = MappingProxyType(
    {
        "fp32": Tolerance("max", 1e-3),
        "fp16": Tolerance("mean", 5e-3),
        "bf16": Tolerance("mean", 1.5e-2),
        # 30 dB of the range from -1 to 1.
        "int8": Tolerance("rms", 2.0 * 10.0 ** (-30.0 / 20.0)),
    }
)


@dataclass(frozen=True)
class Errors:
    """Of one output: its errors at every step, and how far the reference reaches over all steps.

    max, mean, rms: the largest, the mean, and the root of the mean square.
    """

    max: tuple[float, ...]
    mean: tuple[float, ...]
    rms: tuple[float, ...]
    reach: float


def record(networks: Networks, bundle: Bundle, crops: Sequence[FloatArray]) -> list[Outputs]:
    """Everything that the networks give over the frames `crops`, [1, 3, S, S] each, the bundle's first slider set.

    Each step is `engine.recurrence.advance` and the parser on the crop and the edit, as in a session.
    """
    offset = np.zeros((1, bundle.manifest.latent_rows, bundle.manifest.latent_dim), np.float32)
    for direction in list(bundle.directions.values())[:1]:
        offset += np.float32(direction.hi / 2) * direction.direction
    state = None
    made: list[Outputs] = []
    for crop in crops:
        seen: dict[str, FloatArray] = {}
        state, _, edit = advance(_recording(networks, seen), state, crop, offset)
        seen["parser.logits"] = networks.parser(crop=np.concatenate([crop, edit]))["logits"]
        made.append(seen)
    return made


def drawn_faces(networks: Networks, bundle: Bundle, steps: int, seed: int = SEED) -> list[FloatArray]:
    """A seeded film that the bundle's own generator draws, with grain; RGB [-1, 1] [1, 3, S, S] a frame.

    From the face that becomes of a grey picture, every slider swings at its own pace. Pictures that are no faces, such
    as noise, lead trained networks to where no crop of a session ever is: images reach 100,000, and nothing can be
    judged.
    """
    manifest, rng = bundle.manifest, np.random.default_rng(seed)
    size = manifest.resolution
    noise = np.zeros((1, *manifest.noise), np.float32)
    code = networks.encoder_anchor(crop=np.zeros((1, 3, size, size), np.float32))["ws"]
    for _ in range(_TURNS):
        picture = np.clip(networks.generator(ws=code, noise=noise)["image"], -1.0, 1.0)
        code = networks.encoder_anchor(crop=picture)["ws"]
    directions = list(bundle.directions.values())
    phases, paces = rng.uniform(0.0, 2 * np.pi, len(directions)), rng.uniform(0.1, 0.4, len(directions))
    crops = []
    for step in range(steps):
        swings = _SWING * np.sin(phases + paces * step)
        moves = [swing * d.hi * d.direction for swing, d in zip(swings, directions, strict=True)]
        ws = (code + sum(moves, np.zeros_like(code))).astype(np.float32)
        image = networks.generator(ws=ws, noise=noise)["image"]
        grain = rng.uniform(-_GRAIN, _GRAIN, image.shape)
        crops.append(np.clip(image + grain, -1.0, 1.0).astype(np.float32))
    return crops


def compare(reference: Sequence[Outputs], target: Sequence[Outputs]) -> Mapping[str, Errors]:
    """The errors of each output, by `graph.output`.

    Raises ExportError when a target's number is not finite.
    """
    found = {}
    for name in dict.fromkeys(name for step in reference for name in step):
        reach = max(1.0, *(float(np.abs(step[name]).max()) for step in reference if name in step))
        differences = [
            np.abs(ours[name].astype(np.float64) - theirs[name]) / reach
            for ours, theirs in zip(target, reference, strict=True)
            if name in theirs
        ]
        if not all(np.isfinite(difference).all() for difference in differences):
            raise ExportError(f"the export's {name} is not finite; export with --precision fp32 or bf16")
        found[name] = Errors(
            max=tuple(float(d.max()) for d in differences),
            mean=tuple(float(d.mean()) for d in differences),
            rms=tuple(float(np.sqrt(np.square(d).mean())) for d in differences),
            reach=reach,
        )
    return found


def judge(errors: Mapping[str, Errors], precision: Precision) -> None:
    """Raises ExportError, naming the worst output, when one is above the tolerance of the precision."""
    tolerance = TOLERANCES[precision]
    worst = {name: max(getattr(error, tolerance.figure)) for name, error in errors.items()}
    name = max(worst, key=lambda name: worst[name])
    log.info("verify: largest %s error %.2g (%s), %.2g allowed", tolerance.figure, worst[name], name, tolerance.limit)
    if worst[name] > tolerance.limit:
        step = getattr(errors[name], tolerance.figure).index(worst[name])
        raise ExportError(
            f"the export computes something else: the {tolerance.figure} error of {name} is {worst[name]:.3g} at step "
            f"{step}, but {precision} allows {tolerance.limit:g}"
        )


def report(errors: Mapping[str, Errors], precision: Precision) -> dict[str, Any]:
    """The errors as JSON types: the tolerance, and of each output the largest figures and those of every step."""
    tolerance = TOLERANCES[precision]
    return {
        "tolerance": {"figure": tolerance.figure, "limit": tolerance.limit},
        "steps": max(len(error.max) for error in errors.values()),
        "outputs": {
            name: {
                "max": max(error.max),
                "mean": max(error.mean),
                "rms": max(error.rms),
                "reach": error.reach,
                "max_per_step": list(error.max),
                "mean_per_step": list(error.mean),
                "rms_per_step": list(error.rms),
            }
            for name, error in errors.items()
        },
    }


def _recording(networks: Networks, seen: dict[str, FloatArray]) -> Networks:
    """The same networks, which leave what they give in `seen`."""

    def recorder(name: str, network: Network) -> Network:
        return _Recorder(name, network, seen)

    return replace(
        networks,
        generator=recorder("generator", networks.generator),
        encoder_anchor=recorder("encoder_anchor", networks.encoder_anchor),
        encoder=recorder("encoder", networks.encoder),
        recurrent=recorder("recurrent", networks.recurrent),
        refiner=recorder("refiner", networks.refiner) if networks.refiner else None,
    )


class _Recorder:
    """A network that keeps its last answer of a step in a dictionary of the caller's."""

    def __init__(self, name: str, network: Network, seen: dict[str, FloatArray]) -> None:
        self._name = name
        self._network = network
        self._seen = seen

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._network.spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        outputs = self._network(**arrays)
        self._seen.update({f"{self._name}.{output}": array for output, array in outputs.items()})
        return outputs

    def close(self) -> None:
        """See `Network.close`."""
        self._network.close()
