"""What is measured, and how the command line says so."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from app.settings import CHOICES
from engine.errors import UsageError

MOST_FACES = 16


class Size(NamedTuple):
    """Width and height of a frame in px."""

    width: int
    height: int


@dataclass(frozen=True)
class Scene:
    """What the frames show. faces: how often the source's picture is in each; size: None is the source's own."""

    faces: int = 1
    size: Size | None = None


@dataclass(frozen=True)
class Entry:
    """One run of the bench."""

    bundle: str
    runtime: str
    precision: str
    variant: str
    scene: Scene


@dataclass(frozen=True)
class BenchSettings:
    """Everything `rigid-live bench` can be told. Every combination of what holds several values is one run.

    frames: counted in each run, warm-up aside. pace: the source plays at its own rate. baseline: `eager` or None.
    """

    source: str = "demo"
    frames: int = 90
    bundle: tuple[str, ...] = ("default",)
    runtime: tuple[str, ...] = ("auto",)
    precision: tuple[str, ...] = ("auto",)
    variant: tuple[str, ...] = ("full",)
    device: str = "cpu"
    faces: tuple[int, ...] = (1,)
    size: tuple[Size, ...] = ()
    pace: bool = False
    baseline: str | None = None

    def __post_init__(self) -> None:
        if self.frames < 3:
            raise UsageError(f"frames is {self.frames}; expected 3 or more: every run takes three turns")
        for count in self.faces:
            if not 1 <= count <= MOST_FACES:
                raise UsageError(f"faces is {count}; expected 1 to {MOST_FACES}")
        if self.baseline and len(self.scenes) > 1:
            raise UsageError("a baseline compares on the same frames; name one --faces and one --size with it")

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """What is shown, every size with every number of faces."""
        return tuple(Scene(faces, size) for size in self.size or (None,) for faces in self.faces)

    def entries(self) -> Iterator[Entry]:
        """The runs, in the order of the report."""
        for named in product(self.bundle, self.runtime, self.precision, self.variant, self.scenes):
            yield Entry(*named)

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON types; sizes as WxH."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return plain | {"size": [f"{size.width}x{size.height}" for size in self.size]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; `from_arguments` takes what the parser returns."""
    add = parser.add_argument
    default = BenchSettings()
    add("--source", default=default.source, help="demo, a file, and, live, a camera's index or a URL")
    add("--frames", type=int, default=default.frames, metavar="N", help="counted in each run; default: %(default)s")
    add("--bundle", action="extend", nargs="+", metavar="NAME|DIR", help="repeatable; default: default")
    add("--runtime", action="extend", nargs="+", choices=CHOICES["runtime"], help="repeatable; default: auto")
    add("--precision", action="extend", nargs="+", choices=CHOICES["precision"], help="repeatable; default: auto")
    add("--variant", action="extend", nargs="+", choices=CHOICES["variant"], help="repeatable; default: full")
    add("--device", default=default.device, choices=CHOICES["device"])
    add("--faces", action="extend", nargs="+", type=int, metavar="K", help="repeatable: the picture K times a frame")
    add("--size", action="extend", nargs="+", type=_size, metavar="WxH", help="repeatable: the picture in such a frame")
    add("--pace", action="store_true", help="play a file at its own rate: latency, drops, glass to glass")
    add("--baseline", choices=("eager",), help="compare with the paper's structure in plain PyTorch")
    add("--report", type=Path, metavar="FILE", help="write the figures as JSON")
    add("--plot", type=Path, metavar="FILE", help="draw them (.png, .svg or .pdf)")
    add("--page", type=Path, metavar="FILE.md", help="measure nothing; write a page, and its .json, from --reports")
    add("--reports", nargs="+", default=[], type=Path, metavar="FILE", help="of `bench` and of `run`, for --page")


def from_arguments(args: argparse.Namespace) -> BenchSettings:
    """The settings that the command line asks for; raises UsageError."""
    default = BenchSettings()
    return BenchSettings(
        source=args.source,
        frames=args.frames,
        bundle=_once(args.bundle) or default.bundle,
        runtime=_once(args.runtime) or default.runtime,
        precision=_once(args.precision) or default.precision,
        variant=_once(args.variant) or default.variant,
        device=args.device,
        faces=_once(args.faces) or default.faces,
        size=_once(args.size),
        pace=args.pace,
        baseline=args.baseline,
    )


def _once(values: Sequence[Any] | None) -> tuple[Any, ...]:
    """The values in their order, without repetitions."""
    return tuple(dict.fromkeys(values or ()))


def _size(text: str) -> Size:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r}: WxH was expected, for example 1920x1080")
    return Size(int(width), int(height))
