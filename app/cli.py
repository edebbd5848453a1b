"""The command line: `rigid-live COMMAND`. The only module that prints or exits.

Exit codes: 0 done, 1 failed, 2 wrong arguments. A failure is one line on stderr.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from app.bundles import prepare_bundle
from app.doctor import window_obstacle
from app.settings import CHOICES, RunSettings, parse_assignments, resolve
from engine.errors import RigidError, RuntimeUnavailable, UsageError

if TYPE_CHECKING:
    from app.report import RunLog
    from app.sources import SourceInfo

log = logging.getLogger(__name__)

_TRAININGS = (
    "data",
    "generator",
    "encoder",
    "refiner",
    "recurrent",
    "visibility",
    "parser",
    "landmarks",
    "detector",
    "directions",
    "compression",
)
_TRAINING_PACKAGE = "models.training"
_OTHERS = {
    "bench": ("app.bench.command", "how fast each runtime is here, side by side, stage by stage"),
    "export": ("export.command", "a bundle as ONNX, OpenVINO IR or TensorRT engines, verified"),
    "evaluate": ("models.evaluation.command", "score a bundle on clips by the paper's metrics"),
    "ceiling": ("models.evaluation.ceiling", "what the light generator can reconstruct at all, by optimisation"),
    "likeness": ("models.evaluation.likeness", "what Improve likeness does for the people of some clips"),
    "generators": ("models.evaluation.generators", "score the light generator against the one it was made from"),
    "tracking": ("models.evaluation.tracking", "score our detector and face mesh beside the published ones"),
    "networks": ("models.cost", "parameters and arithmetic of each network of a preset"),
}
"""Commands with a module of their own, which has `add_arguments(parser)` and `run(args) -> exit code`."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument like every other failure."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except UsageError as error:
        return _failed(error, 2)
    except RigidError as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 1)
    except Exception as error:
        log.debug("the traceback", exc_info=True)
        return _failed(f"unexpected {type(error).__name__}: {error} (`--verbose` shows where)", 1)


def _failed(error: Exception | str, code: int) -> int:
    print("rigid-live:", " ".join(str(error).split()), file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["gui", *words]
    parser = _parser()
    names_a_module = words[:1] == ["train"] and not {"-h", "--help"} & set(words[1:2])
    if names_a_module or (words and words[0] in _OTHERS):
        module, command, rest = _find_command(words)
        own = _Parser(prog=f"rigid-live {command}", description=module.__doc__, allow_abbrev=False)
        own.add_argument("--verbose", action="store_true")
        module.add_arguments(own)
        args = own.parse_args(rest)
        _set_up_logging(verbose=args.verbose)
        named = getattr(args, "bundle", None) or ()
        for bundle in (named,) if isinstance(named, str) else named:
            prepare_bundle(bundle)  # the engine then knows it by its name, and so do reports
        return int(module.run(args))
    args = parser.parse_args(words)
    _set_up_logging(verbose=getattr(args, "verbose", False))
    return int(args.function(args))


def _find_command(words: list[str]) -> tuple[Any, str, list[str]]:
    """The module that does a command, the command's full name, and the words that are left for it."""
    if words[0] != "train":
        return _load(_OTHERS[words[0]][0]), words[0], words[1:]
    name = words[1] if len(words) > 1 else ""
    if name not in _trainings():
        raise UsageError(f"train got {name!r}; expected one of {', '.join(_trainings())}")
    return _load(f"{_TRAINING_PACKAGE}.{name}"), f"train {name}", words[2:]


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise RuntimeUnavailable(f"this command needs the package {error.name}; install the extra `train`") from error


def _trainings() -> list[str]:
    return [name for name in _TRAININGS if find_spec(f"{_TRAINING_PACKAGE}.{name}")]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rigid-live", description="Edits faces in video, live or from files.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_gui(commands.add_parser("gui", help="the window (the default)", allow_abbrev=False))
    _add_run(commands.add_parser("run", help="edit a source into a sink", allow_abbrev=False))
    _add_assets(commands.add_parser("assets", help="third-party files and the default bundle", allow_abbrev=False))
    _add_doctor(commands.add_parser("doctor", help="what this machine can do, and why not", allow_abbrev=False))
    if _trainings():
        train = commands.add_parser("train", help="train a network")
        train.add_argument("name", choices=_trainings(), help="`rigid-live train NAME --help` tells more")
    for name, (module, text) in _OTHERS.items():
        if find_spec(module):
            commands.add_parser(name, help=text)
    return parser


def _add_gui(parser: argparse.ArgumentParser) -> None:
    _add_run_options(parser)
    parser.set_defaults(function=_gui)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_run_options(parser)
    add, given = parser.add_argument, argparse.SUPPRESS
    add("--pace", action="store_true", default=given, help="play a file at its own rate, dropping late frames")
    add("--progress", action=argparse.BooleanOptionalAction, default=given, help="show a bar (on a terminal)")
    parser.set_defaults(function=_run)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    given = argparse.SUPPRESS  # only what is given overrides the settings file
    add = parser.add_argument
    add("--settings", type=Path, metavar="FILE", help="TOML file with the options below as keys")
    add("--source", default=given, metavar="SOURCE", help="demo (the default), a camera's index, a file or a URL")
    add("--set", action="extend", nargs="+", default=given, metavar="NAME=VALUE", help="attribute in [-1, 1]")
    add(
        "--sink",
        action="extend",
        nargs="+",
        default=given,
        metavar="SINK",
        help="a file, virtual (a camera), or null (the default)",
    )
    add("--bundle", default=given, metavar="NAME|DIR", help="the networks; `default` ships with the program")
    for name, choices in CHOICES.items():
        add(f"--{name.replace('_', '-')}", default=given, choices=choices)
    add("--max-faces", type=int, default=given, metavar="N", help="edit the N largest faces (1)")
    add("--frames", type=int, default=given, metavar="N", help="stop after N frames")
    add("--likeness", action="store_true", default=given, help="search what the encoder lacks of this person")
    add("--person", default=given, metavar="NAME", help="keep the likeness on this computer, or use the kept one")
    add("--compare", action="store_true", default=given, help="write before | after side by side")
    add("--keep-partial", action="store_true", default=given, help="keep the output of a truncated source")
    add("--report", default=given, metavar="FILE", help="write counts and timings as JSON")
    add("--verbose", action="store_true", help="log all there is to say")


def _add_assets(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    pull = actions.add_parser("pull", help="fetch and verify the pinned files", allow_abbrev=False)
    pull.add_argument("names", nargs="*", metavar="NAME", help="all, when neither a name nor a group is given")
    pull.add_argument("--group", metavar="run|train|evaluate", help="the files that are needed for it")
    pull.set_defaults(function=_pull_assets)
    actions.add_parser("list", help="the pinned files", allow_abbrev=False).set_defaults(function=_list_assets)
    actions.add_parser("build", help="build the default bundle", allow_abbrev=False).set_defaults(function=_build)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", metavar="FILE", help="tell what a file or URL holds and whether it can be read")
    parser.set_defaults(function=_doctor)


def _gui(args: argparse.Namespace) -> int:
    flags = _flags(args)
    resolve(flags, args.settings)  # what is wrong with them is said before anything is loaded
    obstacle = window_obstacle()
    if obstacle:
        raise RuntimeUnavailable(f"the window cannot be opened: {obstacle}")
    from app.gui.start import run_window

    stop = threading.Event()
    with _stopping(stop):
        ended_well = run_window(flags, args.settings, stop.is_set)
    if not ended_well:
        # A driver or a connection does not let go; its thread would keep the program alive.
        log.warning("something did not end in time and was broken off")
        logging.shutdown()
        os._exit(0)
    return 0


def _run(args: argparse.Namespace) -> int:
    settings = resolve(_flags(args), args.settings)
    from app.pipeline import run

    stop = threading.Event()
    with _stopping(stop), _progress(settings) as notice:
        report = run(settings, stop, notice)
    print(
        f"{report['frames_in']} frames in, {report['frames_out']} out, {report['dropped']} dropped, "
        f"{report['fps']:.1f} frames/s -> {', '.join(settings.sink)}{' (interrupted)' if stop.is_set() else ''}"
    )
    return 0


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given on the command line."""
    flags = {name: value for name, value in vars(args).items() if name in RunSettings.__dataclass_fields__}
    if "set" in flags:
        flags["set"] = parse_assignments(flags["set"])
    if "sink" in flags:
        flags["sink"] = tuple(flags["sink"])
    return flags


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C, or the first request to terminate, ends the run in good order; a second one breaks it off."""

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(settings: RunSettings) -> Iterator[Callable[["SourceInfo", "RunLog"], None]]:
    """A bar on stderr that moves with every frame; none when stderr is no terminal, unless asked for."""
    wanted = sys.stderr.isatty() if settings.progress is None else settings.progress
    if not wanted:
        yield lambda info, run_log: None
        return
    from tqdm import tqdm

    with tqdm(unit=" frames", file=sys.stderr, total=settings.frames or None) as bar:

        def advance(info: "SourceInfo", run_log: "RunLog") -> None:
            bar.total = bar.total or info.frames or None
            bar.update(run_log.frames_out - bar.n)

        yield advance


def _pull_assets(args: argparse.Namespace) -> int:
    from engine.assets import pull

    pull(args.names, args.group, progress=print)
    return 0


def _list_assets(args: argparse.Namespace) -> int:
    from engine.assets import ASSETS, is_cached

    for row in ASSETS:
        state = "cached" if is_cached(row.name) else "missing"
        print(f"{state:8} {row.group:9} {row.name:20} {row.package} {row.version}: {row.licence}")
    return 0


def _build(args: argparse.Namespace) -> int:
    from engine.bundle_build import build_default_bundle

    print(build_default_bundle())
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from app.doctor import check_source, examine

    marks = {"yes": "ok", "no": "--", "note": "  "}
    for finding in check_source(args.check) if args.check else examine():
        print(f"{marks[finding.state]} {finding.topic}: {finding.text}")
    return 0


def _set_up_logging(*, verbose: bool) -> None:
    # What goes on is told on stdout, so that stderr holds nothing but warnings and the one line of a failure.
    told = logging.StreamHandler(sys.stdout)
    told.addFilter(lambda record: record.levelno < logging.WARNING)
    warned = logging.StreamHandler(sys.stderr)
    warned.setLevel(logging.WARNING)
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[told, warned], force=True)
    for package in ("app", "export", "models", "engine"):
        logging.getLogger(package).setLevel(level)
