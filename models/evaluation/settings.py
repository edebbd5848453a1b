"""What is evaluated, and how the command line says so."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from engine.errors import UsageError
from engine.frames import Controls
from engine.recurrence import VARIANTS
from models.evaluation.fvd import MIN_WINDOWS

RETRAINED: Mapping[str, str] = MappingProxyType(
    {"full": "full", "no_tcc": "no_tcc", "no_nm": "no_nm", "no_lfd": "no_lfd", "no_ibfcc": "full", "no_tc": "full"}
)
"""What `--retrained` can name, and the variant such a bundle runs as: a part that it was trained without stays off, a
loss that it was trained without leaves nothing to switch."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated; the names are those of the command line.

    bundles: each in every variant. retrained: bundles by what they were trained without. values: the edit. frames: of
    each clip, windows: for FVD of each clip, at most. faces: a folder of aligned stills, or None; stills: how many of
    them at most. occluders: the data folder, to score what stays before the face, or None. lpips: files of the official
    weights, empty for ST-LPIPS. threads: for the metrics' networks. fast: those in bfloat16.
    """

    clips: tuple[Path, ...]
    bundles: tuple[str, ...]
    retrained: Mapping[str, str]
    values: Mapping[str, float]
    variants: tuple[str, ...]
    frames: int
    windows: int
    faces: Path | None
    stills: int
    occluders: Path | None
    lpips: tuple[Path, ...]
    runtime: str
    precision: str
    threads: int
    fast: bool
    report: Path

    def __post_init__(self) -> None:
        Controls(self.values)
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or not self.variants:
            raise UsageError(f"--variants names {', '.join(unknown) or 'nothing'}; there are {', '.join(VARIANTS)}")
        if unknown := [name for name in self.retrained if name not in RETRAINED]:
            raise UsageError(f"--retrained names {', '.join(unknown)}; there are {', '.join(RETRAINED)}")
        if not self.clips and self.faces is None and self.occluders is None:
            raise UsageError("nothing to evaluate; a clip, a folder of clips, --faces or --occluders was expected")
        if self.frames < 4 or self.stills < 1 or self.threads < 1 or self.windows < MIN_WINDOWS:
            raise UsageError(f"--frames and --windows start at 4 and {MIN_WINDOWS}, --stills and --threads at 1")
        if self.report.suffix in (".html", ".md"):
            raise UsageError(
                f"--report {self.report}: name the JSON file; the page and the tables are written beside it"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; `from_arguments` takes what the parser returns."""
    add = parser.add_argument
    add("clips", nargs="*", type=Path, metavar="CLIP|DIR", help="clips, or folders of clips")
    add("--bundle", action="append", metavar="NAME|DIR", help="repeatable; default: default")
    add(
        "--retrained",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help=f"repeatable: a bundle trained without a part; NAME is one of {', '.join(RETRAINED)}",
    )
    add("--set", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="the edit")
    add("--variants", default=",".join(VARIANTS), help="of each --bundle, comma-separated; default: %(default)s")
    add("--frames", type=int, default=100, help="of each clip at most; default: %(default)s")
    add("--windows", type=int, default=16, help="of 16 frames, for FVD, of each clip at most; default: %(default)s")
    add("--faces", type=Path, metavar="DIR", help="also score these FFHQ-aligned stills")
    add("--stills", type=int, default=50, help="stills at most; default: %(default)s")
    add("--occluders", type=Path, metavar="DATA", help="also score whether hands and things before faces stay unedited")
    add(
        "--lpips",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="torchvision's AlexNet and the linear heads of LPIPS v0.1: official LPIPS in the place of ST-LPIPS",
    )
    add("--runtime", default="auto", help="default: %(default)s")
    add("--precision", default="auto", help="default: %(default)s")
    add("--threads", type=int, default=2, help="of the metrics' networks; default: %(default)s")
    add("--fast", action="store_true", help="the metrics' networks in bfloat16: scores move in digit 3")
    add(
        "--report", type=Path, default=Path("out/evaluation.json"), help=".md and .html beside it; default: %(default)s"
    )


def from_arguments(args: argparse.Namespace) -> EvaluationSettings:
    """The settings that the command line asks for; raises UsageError and its kinds."""
    return EvaluationSettings(
        clips=tuple(args.clips),
        bundles=tuple(dict.fromkeys(args.bundle or ["default"])),
        retrained=_retrained(args.retrained),
        values=_values(args.set),
        variants=tuple(dict.fromkeys(args.variants.split(","))),
        frames=args.frames,
        windows=args.windows,
        faces=args.faces,
        stills=args.stills,
        occluders=args.occluders,
        lpips=tuple(args.lpips),
        runtime=args.runtime,
        precision=args.precision,
        threads=args.threads,
        fast=args.fast,
        report=args.report,
    )


def _retrained(assignments: Sequence[str]) -> dict[str, str]:
    """`NAME=DIR` texts as folders by name; raises UsageError for another form and for a name given twice."""
    folders: dict[str, str] = {}
    for text in assignments:
        name, _, folder = text.partition("=")
        if not folder:
            raise UsageError(f"--retrained {text}: NAME=DIR was expected, for example no_nm=out/bundle-without-nm")
        if name in folders:
            raise UsageError(f"--retrained {name} was given twice; one bundle of each kind was expected")
        folders[name] = folder
    return folders


def _values(assignments: Sequence[str]) -> dict[str, float]:
    """`NAME=VALUE` texts as numbers by name; raises UsageError for another form."""
    values = {}
    for text in assignments:
        name, _, number = text.partition("=")
        try:
            values[name] = float(number)
        except ValueError:
            raise UsageError(f"--set {text}: NAME=VALUE was expected, for example smile=0.8") from None
    return values
