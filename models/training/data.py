"""`rigid-live train data`: prepare clips and images once, for every training and every machine.

Tracks and aligns the largest face of each clip and image, and writes packs of at most 32 MB that hold it as JPEG, 256
px. A second run takes up only what is new. `models/training/pack_sources.py` says how a folder is divided into
training and validation; a folder of packs is what `--data` of the other trainings takes, too.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from engine.errors import RuntimeUnavailable
from engine.geometry import CROP_SIZE
from models.flow import SpyNet
from models.training.pack_files import FLOW_SIZE, JpegCrops, PackedSequence, read_pack, save_arrays
from models.training.packs import MAX_FRAMES_A_CLIP, PACKS, default_folder, flow_path, prepare, read_packs
from models.training.samples import image_tensor
from models.training.splits import Split

logger = logging.getLogger(__name__)

_PAIRS_AT_ONCE = 8
_COMPUTED_AT = 128
"""Size of the crops that the flow is computed on, for four times the speed of 256 px; at 64 px, a neighbour that is
warped by it comes as close to its frame within 4 %."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the preparation."""
    parser.add_argument("--data", type=Path, required=True, help="folder of clips and images, or of packs (for --flow)")
    parser.add_argument("--out", type=Path, help="folder of the packs; the cache's when not given")
    parser.add_argument("--frames", type=int, default=MAX_FRAMES_A_CLIP, help="most frames of a clip")
    parser.add_argument("--flow", action="store_true", help="also the flow between neighbours, in files of its own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the flow is computed")


def run(args: argparse.Namespace) -> int:
    """Prepare. Raises UsageError, SourceError and SinkError as `models.training.packs.prepare`."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailable(f"torch {torch.__version__} sees no CUDA device; use --device cpu")
    folder = args.data
    if not any(folder.glob(PACKS)):
        folder = args.out or default_folder(args.data)
        logger.info("%d new clips and images", prepare(args.data, folder, args.frames))
    if args.flow:
        add_flow(folder, torch.device(args.device))
    for split in Split:
        sequences = read_packs(folder, split)
        clips = [len(sequence.crops) for sequence in sequences if len(sequence.crops) > 1]
        told = "%s: %d stills and %d stretches of clips with %d frames"
        logger.info(told, split, len(sequences) - len(clips), len(clips), sum(clips))
    packs = sorted(folder.glob(PACKS))
    logger.info("%d packs, %.0f MB, in %s", len(packs), sum(p.stat().st_size for p in packs) / 1e6, folder)
    return 0


def add_flow(folder: Path, device: torch.device) -> None:
    """Write the flow of every pack of `folder` that has none yet. Raises AssetMissing, SourceError and SinkError."""
    network: SpyNet | None = None
    for path in tqdm(sorted(folder.glob(PACKS)), desc="flow", unit="pack", disable=None):
        if flow_path(path).is_file():
            continue
        network = network or SpyNet.load().to(device)
        pairs = [flow_of(sequence, network) for sequence in read_pack(path) if len(sequence.files) > 1]
        none = np.empty((0, 2, FLOW_SIZE, FLOW_SIZE), np.float16)
        forward, backward = (np.concatenate([none, *(pair[n] for pair in pairs)]) for n in (0, 1))
        save_arrays(flow_path(path), next=forward, previous=backward)


def flow_of(sequence: PackedSequence, network: SpyNet) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Flow between neighbours, there and back, each [T-1, 2, 64, 64] in pixels of the 256 px crop."""
    crops, device = JpegCrops(sequence.files, sequence.name), next(network.parameters()).device
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, len(crops) - 1, _PAIRS_AT_ONCE):
        images = 0.5 * image_tensor(crops[start : start + _PAIRS_AT_ONCE + 1]).to(device) + 0.5
        images = F.avg_pool2d(images, CROP_SIZE // _COMPUTED_AT)
        for side, (a, b) in zip(found, ((images[:-1], images[1:]), (images[1:], images[:-1])), strict=True):
            flow = network(a, b) * (CROP_SIZE / _COMPUTED_AT)
            side.append(F.avg_pool2d(flow, _COMPUTED_AT // FLOW_SIZE).half().cpu())
    forward, backward = (torch.cat(side).numpy() for side in found)
    return forward, backward
