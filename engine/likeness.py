"""A person's likeness: what the encoder's codes lack of a face, found by optimisation while the editor runs.

One offset of W+ [L, D] is sought that serves all frames: added to the code of each, it makes the generator's images
look like the crops. An anchor code alone would not do: all rows but the last two are the encoder's on every frame
(Eq. 3), so what it gets wrong of a person it gets wrong again. An offset leaves motion to the encoder and edits to
their directions, and it is kept small, in units of how faces spread.

The bundle's graph `FILE` says how unlike a drawn code looks to a crop, and the slope of that in the code
(`models/likeness.py`); Adam needs no more, and no torch.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing

import numpy as np
from numpy.typing import NDArray

from engine.bundle import BATCH, Bundle, GraphSpec
from engine.compositing import image_from_u8
from engine.errors import BundleError
from engine.recurrence import missed
from engine.runtimes.base import FloatArray, Network, Runtime, begin

FILE = "likeness.onnx"

STEPS = 32
AT_ONCE = 2
"""Frames that each step looks at, all of them in turn: a runtime may work on them side by side."""

RATE = 0.03
"""Adam's step; the codes of faces are spread by 0.42 around their mean."""

MEMORY = 0.9, 0.99
"""Adam's, of the slope and of its square."""

WARM_STEPS = 5
COOLING = 0.3
"""The last share of the steps, in which they shrink to nothing."""

SMALL = 0.02 / 0.42**2
"""Weight of the offset's mean square."""

TAKEN = 0.5
"""Share of what was found that is used. With all of it the code is more the person's, but has left the place where
edits look natural: a smile loses its teeth, an old face turns dark."""

Progress = Callable[[float], None]
"""Is told the share of the work that is done, in (0, 1]."""


def likeness_of(
    crops: NDArray[np.uint8], bundle: Bundle, runtime: Runtime, progress: Progress = lambda share: None
) -> FloatArray:
    """The likeness [L, D] of the person on these frames, sought on the CPU.

    crops: aligned, uint8 RGB [T, S, S, 3]. progress may raise to break off. Raises BundleError for a bundle that has no
    graph to search with.
    """
    images = np.concatenate([image_from_u8(crop[..., ::-1]) for crop in crops])
    with closing(_open_search(bundle, runtime)) as search:
        return find(search, images, _refined_codes(images, bundle, runtime), progress)


def _refined_codes(images: FloatArray, bundle: Bundle, runtime: Runtime) -> FloatArray:
    """The encoder's codes [T, L, D] of the frames, with what it misses of the person as the refiner sees it on all."""
    with ExitStack() as opened:

        def network(graph: str) -> Network:
            spec = bundle.manifest.graphs[graph]
            return opened.enter_context(closing(runtime.open(bundle.graph_path(graph), spec, "cpu", "auto")))

        encoder = network("encoder_anchor")
        codes = np.concatenate([encoder(crop=image[None])["ws"] for image in images])
        if "refiner" not in bundle.manifest.graphs:
            return codes
        networks, frames = (network("refiner"), network("generator")), zip(images, codes, strict=True)
        corrections = [missed(*networks, image[None], ws[None]) for image, ws in frames]
        refined: FloatArray = codes + np.mean(corrections, axis=0)
        return refined


def _open_search(bundle: Bundle, runtime: Runtime) -> Network:
    if FILE not in bundle.manifest.files:
        raise BundleError(f"{bundle.folder} has no {FILE}; a likeness can be found for the default bundle")
    numbers = bundle.manifest
    ws = (BATCH, numbers.latent_rows, numbers.latent_dim)
    crop = (BATCH, 3, numbers.resolution, numbers.resolution)
    spec = GraphSpec(FILE, {"ws": ws, "crop": crop}, {"unlike": (BATCH,), "slope": ws})
    return runtime.open(bundle.folder / FILE, spec, "cpu", "auto")


def find(network: Network, crops: FloatArray, codes: FloatArray, progress: Progress = lambda share: None) -> FloatArray:
    """`likeness_of` with the network open that says how unlike a code looks to a crop.

    crops: RGB [-1, 1] [T, 3, S, S]; codes: the refined ones of them, [T, L, D]. progress may raise to break off.
    """
    offset = np.zeros_like(codes[0])
    mean, square = np.zeros_like(offset), np.zeros_like(offset)
    for step in range(STEPS):
        frames = [(AT_ONCE * step + n) % len(crops) for n in range(AT_ONCE)]
        answers = [begin(network, ws=codes[t : t + 1] + offset, crop=crops[t : t + 1]) for t in frames]
        slope = np.mean([answer()["slope"][0] for answer in answers], axis=0)
        slope += np.float32(2.0 * SMALL / offset.size) * offset
        mean = MEMORY[0] * mean + (1.0 - MEMORY[0]) * slope
        square = MEMORY[1] * square + (1.0 - MEMORY[1]) * np.square(slope)
        unbiased, scale = (of / (1.0 - memory ** (step + 1)) for of, memory in zip((mean, square), MEMORY, strict=True))
        strength = min(1.0, (step + 1) / WARM_STEPS, (STEPS - step) / (COOLING * STEPS))
        offset = offset - RATE * strength * unbiased / (np.sqrt(scale) + 1e-8)
        progress((step + 1) / STEPS)
    found: FloatArray = (TAKEN * offset).astype(np.float32)
    return found
