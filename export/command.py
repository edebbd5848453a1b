"""`rigid-live export`: a bundle in another format or precision, verified over the recurrent loop."""

import argparse
import logging
from pathlib import Path

from engine.bundle_build import bundle_path
from engine.runtimes.tensorrt import LIBRARIES, RTX
from export.exported import PREFERRED, Order, export
from export.to_tensorrt import TARGETS
from export.verify import STEPS

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="a name (default, paper-256) or a bundle's folder")
    add("--to", required=True, choices=tuple(PREFERRED), help="ONNX, OpenVINO's IR or TensorRT engines")
    add(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16", "int8"),
        help="auto: fp16 for tensorrt, fp32 for the others",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="the new bundle; an older export there is replaced")
    add(
        "--targets",
        default="",
        metavar="CC,...",
        help=f"compute capabilities that the engines run on, by default {','.join(TARGETS)}; without 7.5, newer cards "
        f"may run faster",
    )
    add(
        "--library", default=RTX, choices=LIBRARIES, help="tensorrt, full TensorRT, builds for the card in this machine"
    )
    add(
        "--calibrate",
        action="append",
        default=[],
        type=Path,
        metavar="CLIP|DIR",
        help="for int8: clips of real faces, two at least; the last one is left out, to verify with",
    )
    add("--steps", type=int, default=STEPS, metavar="N", help=f"frames of the comparison with the source ({STEPS})")


def run(args: argparse.Namespace) -> int:
    """Export and verify; 0 when done. Raises the errors of `engine/errors.py`; nothing is written then."""
    targets = tuple(text.strip() for text in args.targets.split(",") if text.strip())
    order = Order(args.to, args.precision, targets, args.library, args.steps, tuple(args.calibrate))
    out = export(bundle_path(args.bundle), order, args.out)
    log.info("written: %s", out)
    return 0
