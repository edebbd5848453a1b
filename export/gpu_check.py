"""Runs what only an NVIDIA card can show, on a machine with no network: `OUT=DIR python -m export.gpu_check`.

Each part (`export/gpu_parts.py`) runs in a process of its own, so that one that fails, hangs or spoils the card does
not take the others with it. `OUT/gpu_check.json` is written after every part and `OUT/gpu_check.md` is its table;
another run with the same folder goes on with what is not done yet. Exit codes: 0 all done, or not installed here;
1 something failed, or there was no time for it; 2 no folder; 3 there is no card.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.card import card_obstacles
from export.gpu_parts import PARTS, NotHere, Work

log = logging.getLogger(__name__)

RESULTS, TABLE = "gpu_check.json", "gpu_check.md"
TOTAL_S = 530.0
"""A run ends before ten minutes are over."""

DONE, FAILED, MISSING, NO_CARD, LATER = "done", "failed", "not installed", "no card", "no time left"


@dataclass(frozen=True)
class Result:
    """How a part went. summary: one line for the table. figures: what was measured, as JSON types."""

    status: str
    summary: str
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)


Runner = Callable[[str, float], Result]
"""Runs the part of that name for so many seconds at most."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parsed(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    work = Work(args.work, args.bundle)
    if args.part:
        os.environ.setdefault("RIGID_CACHE", str(args.work / "cache"))
        Path(args.result).write_text(json.dumps(asdict(run_here(args.part, work))), encoding="utf-8")
        return 0
    out = os.environ.get("OUT")
    if not out:
        log.error("the environment variable OUT must name the folder for the results")
        return 2
    names = args.only.split(",") if args.only else list(PARTS)
    return run_parts(names, Path(out), card_obstacles(), in_process_of_its_own(work), args.seconds)


def run_parts(names: list[str], out: Path, obstacles: tuple[str, ...], runner: Runner, seconds: float) -> int:
    """Runs the parts that `out` does not have as done, one after the other; returns the exit code.

    obstacles: why there is no card, empty when there is one. seconds: for all of them together.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = read_results(out / RESULTS)
    ends_at = time.monotonic() + seconds
    for name in names:
        if name in results and results[name].status == DONE:
            log.info("%s: done before", name)
            continue
        left_s = min(PARTS[name].limit_s, ends_at - time.monotonic())
        if obstacles and PARTS[name].needs_card:
            results[name] = Result(NO_CARD, "; ".join(obstacles))
        elif left_s < PARTS[name].least_s:
            results[name] = Result(LATER, "run the same command again")
        else:
            log.info("%s ...", name)
            started = time.monotonic()
            result = runner(name, left_s)
            results[name] = Result(result.status, result.summary, time.monotonic() - started, result.figures)
        log.info("%s: %s, %s", name, results[name].status, results[name].summary)
        write_results(out, results)
    statuses = {results[name].status for name in names}
    if statuses & {FAILED, LATER}:
        return 1
    return 3 if NO_CARD in statuses else 0


def run_here(name: str, work: Work) -> Result:
    """Runs one part in this process; whatever it raises becomes its result."""
    try:
        found = PARTS[name].run(work)
    except NotHere as reason:
        return Result(MISSING, str(reason))
    except Exception as error:
        log.exception("%s failed", name)
        return Result(FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:600]}")
    return Result(DONE if found.fulfilled else FAILED, found.summary, figures=found.figures)


def in_process_of_its_own(work: Work) -> Runner:
    """A runner that starts this program again for one part."""

    def run(name: str, limit_s: float) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = [sys.executable, "-m", "export.gpu_check", "--part", name, "--result", str(result)]
            command += ["--work", str(work.folder), "--bundle", work.bundle]
            try:
                done = subprocess.run(command, timeout=limit_s, check=False)
            except subprocess.TimeoutExpired:
                return Result(FAILED, f"took longer than {limit_s:.0f} s")
            if not result.is_file():
                return Result(FAILED, f"its process ended with {done.returncode} and left no result")
            return Result(**json.loads(result.read_text(encoding="utf-8")))

    return run


def read_results(path: Path) -> dict[str, Result]:
    """What an earlier run has left; nothing when there was none, or it cannot be read."""
    try:
        return {name: Result(**result) for name, result in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_results(out: Path, results: Mapping[str, Result]) -> None:
    """Both files, each under a temporary name first."""
    rows = [f"| {name} | {r.status} | {r.seconds:.0f} | {r.summary} |" for name, r in results.items()]
    table = "\n".join(["| part | status | seconds | what was found |", "|---|---|---|---|", *rows])
    document = json.dumps({name: asdict(result) for name, result in results.items()}, indent=1)
    for name, text in ((RESULTS, document), (TABLE, table)):
        temporary = out / f".{name}.part"
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, out / name)


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.gpu_check", description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    work = Path(tempfile.gettempdir()) / "rigid-live-gpu-check"
    add("--work", type=Path, default=work, metavar="DIR", help=f"for large files between runs ({work})")
    add("--bundle", default="paper-256", metavar="DIR", help="a bundle's folder; by default paper-256 is built")
    add("--only", default="", metavar="PART,...", help=f"of {', '.join(PARTS)}")
    add("--seconds", type=float, default=TOTAL_S, metavar="S", help=f"for everything ({TOTAL_S:.0f})")
    add("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    add("--result", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    unknown = [name for name in args.only.split(",") if name and name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
