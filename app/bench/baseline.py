"""The baseline: the paper's structure in plain PyTorch, on the frames that the bench edits.

Networks of the paper's size with seeded random weights, fp32, one after the other and one picture at a time: on every
frame the whole e4e encoder, the recurrent encoder, the generator for the inversion and for the edit, the parser for the
frame and for the edit. Tracking, crops and the blend are the session's own.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from app.bundles import prepare_bundle
from app.pipeline import torch_runtime
from engine.bundle import GraphSpec, open_bundle
from engine.bundle_build import bundle_path
from engine.recurrence import VARIANTS
from engine.runtimes.base import Device, FloatArray, Network, Networks
from engine.runtimes.select import open_networks, select
from engine.session import Session, Settings, open_imaging
from engine.tracking import Tracker

BUNDLE = "paper-256"
STEPS = 3
"""Timed ones; one takes seconds."""


def open_baseline(faces: int, device: Device) -> Session:
    """The session, on the device of the runs that it is compared with; on a card torch makes each network a CUDA graph.

    At first the bundle is built, which takes a minute. Raises RuntimeUnavailable without torch or the device.
    """
    runtime = select("eager", device, "fp32", (torch_runtime("eager"),))
    bundle = open_bundle(bundle_path(prepare_bundle(BUNDLE)))
    networks = paper_structure(open_networks(bundle, runtime, device, "fp32"))
    tracker = Tracker.open()
    settings, parser = Settings(max_faces=faces, switches=VARIANTS["paper"]), bundle.manifest.parser
    imaging, _ = open_imaging(device, runtime, networks, parser, settings)
    described = f"{runtime.describe(device, 'fp32')}, one network after another"
    return Session(networks, tracker, bundle.directions, parser, settings, described, imaging)


def paper_structure(networks: Networks) -> Networks:
    """The networks as the paper runs them: the encoder with all its heads on every frame, no picture beside another."""
    networks.encoder.close()
    encoder = _OneByOne(networks.encoder_anchor)
    return replace(
        networks,
        generator=_OneByOne(networks.generator),
        encoder_anchor=encoder,
        encoder=encoder,
        recurrent=_OneByOne(networks.recurrent),
        parser=_OneByOne(networks.parser),
    )


class _OneByOne:
    """A network that is given the pictures of a batch one after the other."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.close = network.close

    @property
    def spec(self) -> GraphSpec:
        """The network's own."""
        return self._network.spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        batch = len(next(iter(arrays.values())))
        rows = [self._network(**{name: array[row : row + 1] for name, array in arrays.items()}) for row in range(batch)]
        return {name: np.concatenate([row[name] for row in rows]) for name in self.spec.outputs}
