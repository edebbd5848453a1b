"""The script for a machine with a card: its order, its resuming and its parts, on stand-ins; no card is here."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engine.kernels.whole_step import open_card
from engine.runtimes.select import open_networks
from export import card_step, gpu_check, gpu_parts
from export.eager import EagerRuntime
from export.gpu_check import FAILED, MISSING, NO_CARD, RESULTS, TABLE, Result, read_results, run_here, run_parts
from export.gpu_parts import PARTS, Found, NotHere, Part, Work
from tests.engine.conftest import tiny, tiny_folder, tiny_networks
from tests.engine.kernels.host_kernels import HostKernels

__all__ = ["tiny", "tiny_folder", "tiny_networks"]

NAMES = ["machine", "parity", "kernel-times"]
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Finder())
import export.gpu_check, export.card_step
"""


def test_a_bare_machine_can_import_it():
    """It has torch, CuPy, onnx, onnxruntime and OpenCV, but not what a person's machine has."""
    missing = {"openvino", "platformdirs", "av", "PyQt6", "dlib", "tensorboard", "matplotlib", "tqdm", "scipy",
               "onnxscript", "tensorrt", "tensorrt_rtx", "cupy"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(names=missing)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_part_after_the_other_each_result_written_at_once(tmp_path):
    seen = []

    def runner(name, limit_s):
        assert limit_s <= PARTS[name].limit_s
        seen.append((name, list(read_results(tmp_path / RESULTS))))
        return Result(FAILED if name == "parity" else "done", f"{name} was run", figures={"n": 1})

    assert run_parts(NAMES, tmp_path, (), runner, 500.0) == 1
    assert seen == [("machine", []), ("parity", NAMES[:1]), ("kernel-times", NAMES[:2])]
    assert "| parity | failed | 0 | parity was run |" in (tmp_path / TABLE).read_text(encoding="utf-8")

    again = []
    good = Result("done", "now")
    assert run_parts(NAMES, tmp_path, (), lambda name, limit_s: again.append(name) or good, 500.0) == 0
    assert again == ["parity"]
    assert read_results(tmp_path / RESULTS)["machine"].figures == {"n": 1}


def test_without_a_card_every_part_that_needs_one_says_so(tmp_path):
    run = []
    reasons = ("there is no NVIDIA card in this machine",)
    code = run_parts(
        list(PARTS), tmp_path, reasons, lambda name, limit_s: run.append(name) or Result("done", ""), 500.0
    )
    assert code == 3
    assert run == ["machine"]
    results = read_results(tmp_path / RESULTS)
    assert {results[name].status for name in PARTS if name != "machine"} == {NO_CARD}
    assert results["parity"].summary == reasons[0]


def test_what_the_time_is_too_short_for_is_left_for_the_next_run(tmp_path):
    assert run_parts(NAMES, tmp_path, (), lambda name, limit_s: Result("done", ""), 10.0) == 1
    statuses = [result.status for result in read_results(tmp_path / RESULTS).values()]
    assert statuses == ["done", "no time left", "no time left"]


def test_an_unreadable_result_file_is_begun_anew(tmp_path):
    (tmp_path / RESULTS).write_text('{"machine": {"status"', encoding="utf-8")
    assert run_parts(NAMES[:1], tmp_path, (), lambda name, limit_s: Result("done", ""), 500.0) == 0


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (NotHere("compute-sanitizer"), MISSING, "compute-sanitizer"),
        (RuntimeError("first\nsecond"), FAILED, "RuntimeError: first second"),
        (Found("too slow", fulfilled=False), FAILED, "too slow"),
        (Found("fine"), "done", "fine"),
    ],
)
def test_what_a_part_raises_is_its_result(monkeypatch, tmp_path, raised, status, words):
    def run(work):
        if isinstance(raised, Exception):
            raise raised
        return raised

    monkeypatch.setattr(gpu_check, "PARTS", {"one": Part(run, 10)})
    result = run_here("one", Work(tmp_path, "none"))
    assert (result.status, result.summary) == (status, words)


def test_the_whole_script_here(tmp_path, monkeypatch):
    """As it is started, with its process for each part; this machine has no card."""
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(gpu_check, "card_obstacles", lambda: ("no card",))
    assert gpu_check.main(["--work", str(tmp_path / "work"), "--only", "machine,parity"]) == 3
    written = json.loads((tmp_path / "out" / RESULTS).read_text(encoding="utf-8"))
    assert written["machine"]["status"] == "done"
    assert "torch" in written["machine"]["figures"]["packages"]
    monkeypatch.delenv("OUT")
    assert gpu_check.main([]) == 2


def test_a_part_that_hangs_or_dies_is_ended(tmp_path, monkeypatch):
    runner = gpu_check.in_process_of_its_own(Work(tmp_path, "none"))
    assert runner("machine", 0.01).summary == "took longer than 0 s"
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert runner("machine", 10.0).summary == "its process ended with 1 and left no result"


@pytest.fixture
def kernels():
    return HostKernels()


@pytest.fixture
def card(monkeypatch, kernels):
    """The parts' way to a card, with the CPU in its place."""

    class Hook:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    class Event:
        def record(self, stream):
            pass

        def synchronize(self):
            pass

    cuda = SimpleNamespace(MemoryHook=Hook, Event=Event, get_elapsed_time=lambda begin, end: 5.0)
    pool = SimpleNamespace(total_bytes=lambda: 7)
    cupy = SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool, zeros=np.zeros, float32=np.float32)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(card_step.torch.cuda, "memory_stats", dict)
    monkeypatch.setattr(card_step, "WARM_UP", 1)
    monkeypatch.setattr(card_step, "STEPS", 3)
    monkeypatch.setattr(EagerRuntime, "stream", nullcontext())

    def open_imaging(device, runtime, networks, parser, settings):
        if device == "cpu":
            return None, None
        rest = settings.mask, settings.switches, settings.max_faces, lambda work: work
        return open_card(kernels, networks, parser, *rest)

    monkeypatch.setattr(card_step, "open_imaging", open_imaging)
    monkeypatch.setattr(gpu_parts.CudaKernels, "open", lambda: kernels)
    monkeypatch.setattr(
        gpu_parts,
        "open_networks",
        lambda bundle, runtime, device, precision: open_networks(bundle, runtime, "cpu", precision),
    )


@pytest.fixture
def work(tmp_path, tiny_folder):
    return Work(tmp_path, str(tiny_folder))


def test_a_runtime_is_verified_and_timed(card, work, monkeypatch):
    monkeypatch.setattr(card_step, "CASES", (replace(card_step.CASES[0], faces=2),))
    monkeypatch.setattr(gpu_parts, "STEPS", 3)
    monkeypatch.setattr(card_step, "network_times_us", lambda networks, stream: {"generator": 1.0})
    found = gpu_parts.runtime_part("eager", "fp16", 1e6)(work)
    assert found.fulfilled
    assert 0 < found.figures["verify"]["worst"] < 5e-3
    assert found.figures["verify"]["steps"] == 3
    assert [step["faces"] for step in found.figures["steps"]] == [2]
    assert 0 < found.figures["steps"][0]["p50_ms"] <= found.figures["steps"][0]["p99_ms"]
    first, in_pieces = found.figures["steps"][0], found.figures["in_pieces"]
    assert [(figures["at_once"], figures["graphs"]) for figures in (first, in_pieces)] == [(3, 2), (0, 0)]


def test_a_step_that_is_too_slow_or_allocates_is_a_failure(card, work, monkeypatch):
    figures = {"p50_ms": 4.1, "p95_ms": 5.0, "p99_ms": 6.0, "allocations": 0, "at_once": 3, "graphs": 2, "steps": 3}
    monkeypatch.setattr(card_step, "CASES", card_step.CASES[:1])
    monkeypatch.setattr(card_step, "latency", lambda *given, **more: figures)
    monkeypatch.setattr(card_step, "network_times_us", lambda networks, stream: {})
    monkeypatch.setattr(gpu_parts, "_verified", lambda *given: {"worst": 1e-3})
    run = gpu_parts.runtime_part("eager", "fp16", 4.0)
    assert not run(work).fulfilled
    figures["p50_ms"] = 3.9
    assert run(work).fulfilled
    for name, wrong, right in (("allocations", 1, 0), ("graphs", 0, 2)):
        figures[name] = wrong
        assert not run(work).fulfilled
        figures[name] = right
    monkeypatch.setattr(gpu_parts, "_verified", lambda *given: {"worst": 6e-3})
    assert not run(work).fulfilled


def test_networks_are_timed_one_by_one(card, tiny_networks):
    times = card_step.network_times_us(tiny_networks, EagerRuntime.stream, repeats=2)
    assert times == dict.fromkeys(("encoder_anchor", "encoder", "recurrent", "generator", "parser"), 2500.0)


def test_the_step_on_the_card_is_the_cpus(card, work):
    found = gpu_parts.whole_step(work)
    assert found.fulfilled, found.summary
    assert found.figures["largest_edit"] > 20


def test_kernels_are_compared_with_their_definitions(card, work, kernels):
    found = gpu_parts.parity(work)
    assert found.fulfilled, found.summary
    steps = ["align", "steady", "restore", "masks", "surround", "surround_masks", "blend"]
    assert list(found.figures["levels"]) == steps


@pytest.mark.parametrize(
    ("right", "wrong", "steps"),
    [
        ("+ crop.uc)", "+ crop.uc + 0.5f)", {"align"}),
        ("float u = x + enlarged", "float u = x + 0.5f + enlarged", {"steady"}),
        ("expf(-share * share)", "expf(-share)", {"restore", "surround", "blend"}),
        ("beyond + there *", "there *", {"surround"}),
        ("float reach = fade +", "float reach = 0.9f * fade +", {"surround_masks"}),
    ],
)
def test_a_planted_mistake_is_found_and_named(right, wrong, steps):
    kernels = HostKernels(edit=lambda code: code.replace(right, wrong))
    worst = card_step.kernel_differences(kernels, few=True)
    assert {name for name, levels in worst.items() if levels > 1.0} == steps


def test_int8_is_calibrated_on_films_that_the_bundle_draws(card, work, monkeypatch):
    """A bare machine has no tracker for clips."""
    given = []

    def export(source, order, folder, films):
        given.append((order.to, order.precision, order.calibrate, films))
        shutil.copytree(source, folder)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(gpu_parts.TensorRtRuntime, "obstacles", lambda self, device, precision: ())
    monkeypatch.setattr(gpu_parts, "export", export)
    for precision in ("int8", "fp16"):
        gpu_parts._prepared("tensorrt_rtx", precision, work)
    (to, precision, calibrate, films), (*_, none) = given
    assert (to, precision, calibrate, none) == ("tensorrt", "int8", (), None)
    assert [len(film) for film in (*films.calibration, films.verification)] == [6, 6, 6]
    assert np.abs(films.calibration[0][0] - films.verification[0]).max() > 0.05


def test_what_is_not_installed_is_no_failure(work, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    parts = [gpu_parts.runtime_part(name, "fp16") for name in ("tensorrt", "torch-tensorrt")]
    for run in (*parts, gpu_parts.suite):
        with pytest.raises(NotHere):
            run(work)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NotHere, match="compute-sanitizer"):
        gpu_parts.sanitizer(work)
    with pytest.raises(NotHere, match="is no bundle"):
        gpu_parts.bundle(replace(work, bundle=str(work.folder / "no such")))


def test_errors_that_the_sanitizer_finds_are_a_failure(work, tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho '========= ERROR SUMMARY: 3 errors'\nexit 9\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(tool))
    found = gpu_parts.sanitizer(work)
    assert (found.fulfilled, found.summary) == (False, "ERROR SUMMARY: 3 errors")


def test_kernels_that_are_too_slow_are_named(card, work, monkeypatch):
    case = gpu_parts.bandwidth.Case((640, 360), 90.0, 1)
    timings = [gpu_parts.bandwidth.Timing("mask", case, 5, 1000, took_us, 20.0) for took_us in (10.0, 30.0)]
    monkeypatch.setattr(gpu_parts.bandwidth, "run", lambda kernels: timings)
    found = gpu_parts.kernel_times(work)
    assert not found.fulfilled
    assert found.summary.startswith("1 of 2 within; worst mask")
