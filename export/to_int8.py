"""Graphs whose convolutions compute in int8, calibrated on crops of real clips: ONNX with QuantizeLinear pairs.

Weights have a scale for each output channel, activations one for each tensor, all of them symmetric, as graphics cards
want them. The ranges of the activations are what they reach in the mean frame while the recurrent loop runs over the
crops: the furthest that any frame reaches would cost all of them half their levels. Films that
the bundle's own generator draws are no substitute: calibrated on those, the default bundle's pictures of a real clip
came out at 24 dB of the fp32 ones.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from engine.bundle import Bundle, GraphSpec
from engine.errors import UsageError
from engine.runtimes.base import FloatArray, Network
from engine.runtimes.onnxruntime import OnnxRuntime
from engine.runtimes.select import open_networks
from export.precision import exact_nodes
from export.verify import record

log = logging.getLogger(__name__)

Film = Sequence[FloatArray]
"""Consecutive crops of one face, RGB [-1, 1] [1, 3, S, S] each."""

Feeds = Sequence[Mapping[str, FloatArray]]
"""What a graph was called with."""

FRAMES = 48
"""Crops to calibrate on, of all clips together."""

LEFT_OUT = 24
"""Crops of the clip that the result is verified with."""


@dataclass(frozen=True)
class Films:
    """Clips of real faces: those to calibrate on, and the one to verify with, which is none of them."""

    calibration: tuple[Film, ...]
    verification: Film


def read_films(paths: Sequence[Path]) -> Films:
    """Tracks and aligns the clips; the last one is for verification. Raises UsageError for fewer than two clips,
    SourceError for one that shows no face, AssetMissing without the tracker's networks."""
    # They load the tracker, which nothing else here needs.
    from models.evaluation.clips import align_clip, find_clips, open_tracker
    from models.pictures import images_from

    clips = find_clips(paths)
    if len(clips) < 2:
        raise UsageError(
            f"int8 is calibrated on clips of real faces and verified with another one; {len(clips)} given, name at "
            f"least two files or a folder with --calibrate"
        )
    tracker, each = open_tracker(), max(FRAMES // (len(clips) - 1), 3)
    lengths = [each] * (len(clips) - 1) + [LEFT_OUT]
    films = []
    for clip, length in zip(clips, lengths, strict=True):
        images = images_from(align_clip(clip, tracker, length).crops)
        films.append([images[t : t + 1] for t in range(len(images))])
    return Films(tuple(films[:-1]), films[-1])


def recorded_inputs(bundle: Bundle, films: Sequence[Film]) -> Mapping[str, Feeds]:
    """What each ONNX file of a float32 bundle is called with while the loop runs over the films, by file."""
    feeds: dict[str, list[Mapping[str, FloatArray]]] = {}

    def watched(graph: str, network: Network) -> Network:
        return _Watched(network, feeds.setdefault(bundle.manifest.graphs[graph].file, []))

    networks = open_networks(bundle, OnnxRuntime())
    seen = replace(
        networks,
        generator=watched("generator", networks.generator),
        encoder_anchor=watched("encoder_anchor", networks.encoder_anchor),
        encoder=watched("encoder", networks.encoder),
        recurrent=watched("recurrent", networks.recurrent),
        parser=watched("parser", networks.parser),
        refiner=watched("refiner", networks.refiner) if networks.refiner else None,
    )
    for film in films:
        record(seen, bundle, film)
    networks.close()
    return feeds


def quantised(model: ModelProto, feeds: Feeds, *, float_biases: bool = False) -> ModelProto:
    """A copy of a plain float32 graph whose convolutions are int8; what does not bear it stays float32.

    Kept: what leads from the last weighted layer to an output, depthwise convolutions, which cost little and lose the
    most, and everything but convolutions. float_biases: convolutions keep theirs in float32, as TensorRT wants them;
    else they are int32, which ONNX Runtime needs to compute in int8.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    fresh = ModelProto()
    fresh.CopyFrom(model)
    for number, node in enumerate(fresh.graph.node):
        node.name = f"node{number}"
    exact, thin = exact_nodes(fresh), _depthwise(fresh)
    kept = [node.name for node in fresh.graph.node if node.output[0] in exact or node.name in thin]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            fresh,
            path,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "CalibMovingAverage": True,
                "WeightSymmetric": True,
                "QuantizeBias": not float_biases,
                # What a convolution gives stays float: rounded once, where the next one takes it.
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        )
        return onnx.load(path)


def _depthwise(model: ModelProto) -> set[str]:
    """The convolutions that look at one channel each, by name."""
    channels = {tensor.name: tensor.dims[1] for tensor in model.graph.initializer if len(tensor.dims) > 1}
    return {node.name for node in model.graph.node if node.op_type == "Conv" and channels.get(node.input[1]) == 1}


class _Watched:
    """A network whose inputs are kept."""

    def __init__(self, network: Network, feeds: list[Mapping[str, FloatArray]]) -> None:
        self._network = network
        self._feeds = feeds

    @property
    def spec(self) -> GraphSpec:
        """See `Network.spec`."""
        return self._network.spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        self._feeds.append({name: np.array(array) for name, array in arrays.items()})
        return self._network(**arrays)

    def close(self) -> None:
        """See `Network.close`."""


class _Reader:
    """`onnxruntime.quantization.CalibrationDataReader`: one feed after the other, then None."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, FloatArray] | None:
        """The next feed."""
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[Any]:
        return self._feeds


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the package's advice about what else could be done to the model, and what it says of its own tools."""
    import onnxruntime

    errors_only, usual = 3, 2
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(errors_only)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(usual)
        logging.disable(logging.NOTSET)
