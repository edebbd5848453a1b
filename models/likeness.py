"""A person's likeness: what the encoder's codes lack of a face, found by optimisation.

One offset of W+ [L, D] is sought that serves all frames: added to the code of each, it makes the generator's images
look like the crops. An anchor code alone would not do: all rows but the last two are the encoder's on every frame
(Eq. 3), so what it gets wrong of a person it gets wrong again. An offset leaves motion to the encoder and edits to
their directions, and it is kept small, in units of how faces spread.

Images are compared by squared error and ST-LPIPS at the size of the crop: what is optimised at 128 px looks right at
128 px only (60 steps on a held-out face: 0.14 at 256 px, against 0.03). These two alone bring the picture nearer and
the person, by dlib, further off; so dlib's embedding has a say. The networks run in bf16, channels last, the codes stay
float32: on a processor with AMX about half the time of float32.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.bundle import open_bundle
from engine.bundle_build import bundle_path
from engine.errors import BundleError
from engine.recurrence import advance
from engine.runtimes.base import FloatArray, Network, Networks
from engine.runtimes.select import open_networks, select
from models.checkpoints.published import load_light_generator
from models.identity import open_embedding
from models.mobile_stylegan import LATENT_DIM, MobileStyleGan
from models.perceptual import StLpips
from models.pictures import images_from

CODE_RATE = 0.06
"""Adam's step for codes; the codes of faces are spread by 0.42 around their mean."""

MAP_RATE = 0.02
"""Adam's step for noise maps."""

BETAS = (0.9, 0.99)
WARM_STEPS = 5
COOLING = 0.3
"""The last share of an optimisation, in which the steps shrink to nothing."""

SPREAD = 0.42
"""Standard deviation of the mapping network's codes, mean over their numbers."""

LISTENING = (0.35, 0.55, 0.75)
"""Shares of the time after which the recurrent encoder is asked what it adds."""

PERSON = 0.1
"""Weight of the squared distance of embeddings; at 0.5 edits lose up to half of their response."""

SMALL = 0.02
"""Weight of the offset's mean square, in units of the spread."""

_SAME_GENERATOR = 0.1
"""Mean difference on [-1, 1] up to which two images are one generator's, in two arithmetics."""

Progress = Callable[[float], None]
"""Is told the share of the work that is done, in (0, 1]."""


class Seen(NamedTuple):
    """A crop [B, 3, 256, 256], the trunk's stages for it, and its embedding [B, E]."""

    crop: Tensor
    stages: list[Tensor]
    embedding: Tensor


@dataclass(frozen=True)
class Painter:
    """Draws codes and says how far the image is from a crop; all networks are frozen.

    embed: who is on images [B, 3, 256, 256], [B, E].
    """

    generator: MobileStyleGan
    trunk: StLpips
    embed: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.bfloat16

    @classmethod
    def open(cls) -> Self:
        """The light generator, ST-LPIPS and dlib's network. Raises AssetMissing, CheckpointError."""
        networks = load_light_generator(), StLpips.load()
        generator, trunk = (net.to(torch.bfloat16).to(memory_format=torch.channels_last) for net in networks)
        return cls(generator, trunk, open_embedding(torch.device("cpu")))

    @torch.no_grad()
    def see(self, crops: Tensor) -> Seen:
        """What `distance` and `estrangement` need of crops RGB [-1, 1] [B, 3, 256, 256]."""
        return Seen(crops, self.trunk.features(crops.to(self.dtype)), self.embed(crops))

    def draw(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images [B, 3, 256, 256] of codes [B, L, 512] with maps [B, C, 32, 32] or without."""
        image: Tensor = self.generator(ws.to(self.dtype), None if noise is None else noise.to(self.dtype))
        return image

    def distance(self, seen: Seen, image: Tensor) -> Tensor:
        """Mean of ST-LPIPS and squared error."""
        unlike = self.trunk.distance(self.trunk.features(image), seen.stages)
        return unlike.float().mean() + F.mse_loss(image.float(), seen.crop)

    def estrangement(self, seen: Seen, image: Tensor) -> Tensor:
        """Mean squared distance of embeddings: how far the image is from being that person's."""
        return (self.embed(image.float()) - seen.embedding).square().sum(dim=1).mean()


def descend(
    groups: Sequence[tuple[Tensor, float]], loss: Callable[[int], Tensor], progress: Callable[[int], float]
) -> None:
    """Adam on tensors, each with its step size, until `progress` says that all is done.

    loss: of step n. progress: called after each step with how many were taken, gives the share of the whole that is
    done then, 1 at the end. The tensors are changed in place.
    """
    tensors = [tensor for tensor, _ in groups]
    adam = torch.optim.Adam([{"params": [tensor]} for tensor in tensors], betas=BETAS)
    steps, done = 0, 0.0
    while done < 1.0:
        strength = min(1.0, (steps + 1) / WARM_STEPS, (1.0 - done) / COOLING)
        slopes = torch.autograd.grad(loss(steps), tensors)
        for (tensor, rate), slope, group in zip(groups, slopes, adam.param_groups, strict=True):
            tensor.grad, group["lr"] = slope, rate * strength
        adam.step()
        steps += 1
        done = progress(steps)


@dataclass(frozen=True)
class Compensation:
    """What the recurrent encoder adds to the codes of frames: dws [T, F, D], F former rows; maps [T, C, 32, 32]."""

    dws: Tensor
    noise: Tensor


Compensate = Callable[[NDArray[np.float32]], Compensation]
"""An offset [L, D] -> what the loop adds to the frames' codes with it."""


def find_likeness(
    crops: NDArray[np.uint8], bundle: str, seconds: float, progress: Progress = lambda share: None
) -> NDArray[np.float32]:
    """The likeness [L, D] of the person on these frames, for a bundle with the light generator.

    crops: aligned, uint8 RGB [T, 256, 256, 3]. seconds: of optimisation on free cores, after about ten of loading;
    beside other work it takes longer and finds the same. Raises BundleError for a bundle with another generator,
    AssetMissing and CheckpointError.
    """
    clock = partial(processor_s, torch.get_num_threads())
    networks = open_networks(open_bundle(bundle_path(bundle)), select("auto"), "cpu", "auto")
    try:
        return likeness_of(crops, networks, Painter.open(), seconds, progress, clock)
    finally:
        networks.close()


def processor_s(threads: int) -> float:
    """Seconds that this process would have taken so far with so many free cores."""
    return time.process_time() / threads


def likeness_of(
    crops: NDArray[np.uint8],
    networks: Networks,
    painter: Painter,
    seconds: float,
    progress: Progress = lambda share: None,
    clock: Callable[[], float] = time.monotonic,
) -> NDArray[np.float32]:
    """`find_likeness` with networks that are open. clock: in seconds."""
    images = images_from(crops)
    codes = np.concatenate([networks.encoder_anchor(crop=image[None])["ws"] for image in images])
    check_generator(networks, painter, codes[:1])
    return refine(painter, images, codes, lambda offset: settled(networks, images, offset), seconds, progress, clock)


def settled(networks: Networks, images: NDArray[np.float32], offset: NDArray[np.float32]) -> Compensation:
    """What the loop adds once it has settled on each frame, shown as a still, with the offset in its code."""
    heard = _Recorded(networks.recurrent)
    encoder, anchor = (_Moved(network, offset) for network in (networks.encoder, networks.encoder_anchor))
    moved = replace(networks, recurrent=heard, encoder=encoder, encoder_anchor=anchor)
    unedited, found = np.zeros((1, *offset.shape), np.float32), []
    for image in images:
        state, *_ = advance(moved, None, image[None], unedited)
        advance(moved, state, image[None], unedited)
        found.append(heard.last)
    return Compensation(
        *(torch.from_numpy(np.concatenate([each[name] for each in found])) for name in ("dws", "noise"))
    )


class _Moved:
    """An encoder whose codes are moved by an offset."""

    def __init__(self, network: Network, offset: NDArray[np.float32]) -> None:
        self._network, self._offset = network, offset
        self.spec = network.spec

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        ws = self._network(**arrays)["ws"]
        return {"ws": ws + self._offset[: ws.shape[1]]}

    def close(self) -> None:
        """The network is another's."""


class _Recorded:
    """A network that remembers what it gave last."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.spec = network.spec
        self.last: Mapping[str, FloatArray] = {}

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        self.last = self._network(**arrays)
        return self.last

    def close(self) -> None:
        """The network is another's."""


@torch.no_grad()
def check_generator(networks: Networks, painter: Painter, ws: NDArray[np.float32]) -> None:
    """Raises BundleError when the bundle draws a code [1, L, D] otherwise than the painter does."""
    spec = networks.generator.spec.inputs
    nothing = np.zeros((1, *(int(n) for n in spec["noise"][1:])), np.float32)
    same = ws.shape[1:] == (painter.generator.config.latent_rows, LATENT_DIM)
    if same:
        drawn = networks.generator(ws=ws, noise=nothing)["image"]
        ours = painter.draw(torch.from_numpy(ws)).float().numpy()
        same = drawn.shape == ours.shape and float(np.abs(drawn - ours).mean()) < _SAME_GENERATOR
    if not same:
        raise BundleError("this bundle has a generator of its own; a likeness can be found for the default bundle only")


def refine(
    painter: Painter,
    images: NDArray[np.float32],
    codes: NDArray[np.float32],
    compensate: Compensate,
    seconds: float,
    progress: Progress = lambda share: None,
    clock: Callable[[], float] = time.monotonic,
) -> NDArray[np.float32]:
    """The offset [L, D] that brings the frames' images nearest to the crops in so many seconds of `clock`.

    images: crops RGB [-1, 1] [T, 3, 256, 256]; codes: the encoder's of them, [T, L, D]. First the codes are to do it
    alone, then with what the loop adds to them, found anew at each of `LISTENING`. One frame a step, all of them in
    turn. progress may raise to break off.
    """
    began_s = clock()
    seen = [painter.see(image[None]) for image in torch.from_numpy(images)]
    starts = torch.from_numpy(codes)
    offset = torch.zeros_like(starts[:1]).requires_grad_()
    heard: list[Compensation] = []

    def loss(step: int) -> Tensor:
        frame = step % len(seen)
        ws, noise = starts[frame : frame + 1] + offset, None
        if heard:
            dws, noise = heard[-1].dws[frame : frame + 1], heard[-1].noise[frame : frame + 1]
            ws = ws + F.pad(dws, (0, 0, 0, ws.shape[1] - dws.shape[1]))
        image = painter.draw(ws, noise)
        unlike = painter.distance(seen[frame], image) + PERSON * painter.estrangement(seen[frame], image)
        return unlike + SMALL * (offset / SPREAD).square().mean()

    def done(steps: int) -> float:
        share = min(1.0, (clock() - began_s) / seconds)
        progress(share)
        if len(heard) < len(LISTENING) and LISTENING[len(heard)] <= share < 1.0:
            heard.append(compensate(offset.detach()[0].numpy()))
        return share

    descend([(offset, CODE_RATE)], loss, done)
    found: NDArray[np.float32] = offset.detach()[0].numpy()
    return found
