"""The virtual camera's process: it sends at its own rate, dies and comes back, and never outlives the program."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.camera_backends import BACKENDS, STEPS, step_for
from app.sinks import open_sink
from app.sources import SourceInfo
from app.virtual_camera import FPS, VirtualCamera, probe
from engine.errors import SinkError
from engine.frames import EditedFrame, Phase
from tests.app.clips import number_of, numbered
from tests.app.registered_camera import Log, is_running, need_pyvirtualcam, until

SIZE = (64, 48)

_PARENT = """
import sys, time
from app.virtual_camera import VirtualCamera
camera = VirtualCamera((64, 48), ["test"], [sys.executable, "-c", sys.argv[1]])
camera.wait()
print(camera.pid, camera._frames.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    need_pyvirtualcam()
    return Log(tmp_path / "sent.txt")


@pytest.fixture
def camera(log: Log) -> Iterator[VirtualCamera]:
    made = VirtualCamera(SIZE, ["test"], [sys.executable, "-c", log.program])
    made.wait()
    yield made
    made.end()


def test_frames_go_out_at_a_fixed_rate_and_the_last_is_repeated(camera: VirtualCamera, log: Log) -> None:
    assert camera.name == "Test Camera (test)"
    camera.show(numbered(5, *SIZE))
    until(lambda: log.numbers.count("5") > FPS)
    camera.show(numbered(9, *SIZE))
    until(lambda: log.numbers.count("9") > 5)
    numbers = [number for number in log.numbers if number in ("5", "9")]
    assert numbers == sorted(numbers), "nothing old comes after what is newer"
    times = [at for at, what, _ in log.rows if what == "5"]
    assert np.median(np.diff(times)) == pytest.approx(1 / FPS, rel=0.2)


def test_the_camera_is_no_part_of_the_program_that_has_the_window(camera: VirtualCamera) -> None:
    assert "pyvirtualcam" not in sys.modules
    assert camera.pid != os.getpid()


def test_another_size_is_fitted(camera: VirtualCamera, log: Log) -> None:
    camera.show(numbered(77, 128, 96))
    until(lambda: "77" in log.numbers)


def test_a_killed_process_comes_back_with_the_last_frame(
    camera: VirtualCamera, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.virtual_camera._STEADY_S", 0.0)
    camera.show(numbered(6, *SIZE))
    until(lambda: "6" in log.numbers)
    first = camera.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: "ended" in camera.problem)
    camera.show(numbered(8, *SIZE))  # meanwhile the program goes on
    until(lambda: any(what == "8" and process != first for _, what, process in log.rows))
    assert camera.name
    assert not camera.problem
    assert "0" not in log.numbers[log.numbers.index("6") :], "no black picture in between"


def test_the_end_closes_the_camera_and_leaves_nothing(camera: VirtualCamera, log: Log) -> None:
    camera.end()
    assert log.numbers[-1] == "closed"
    assert not is_running(camera.pid)
    assert not camera._frames.path.exists()
    camera.end()


def test_a_program_that_is_killed_takes_the_camera_with_it(log: Log) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, log.program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, path = parent.stdout.readline().split()
        assert is_running(int(pid))
        parent.kill()
    until(lambda: not is_running(int(pid)), 10)
    assert not Path(path).exists()


def test_a_driver_that_hangs_is_left_behind(log: Log) -> None:
    hanging = log.program.replace("def send(self, frame):", "def send(self, frame):\n        time.sleep(3600)")
    camera = VirtualCamera(SIZE, ["test"], [sys.executable, "-c", hanging])
    camera.wait()
    began = time.monotonic()
    camera.end()
    assert time.monotonic() - began < 10
    assert not is_running(camera.pid)


def test_a_process_that_cannot_start_is_told(tmp_path: Path) -> None:
    camera = VirtualCamera(SIZE, ["test"], [str(tmp_path / "nothing")])
    with pytest.raises(SinkError, match="cannot be started"):
        camera.wait()
    camera.end()


@pytest.mark.skipif(sys.platform != "linux", reason="a backend of Linux")
def test_v4l2loopback_without_a_device_says_what_to_do() -> None:
    need_pyvirtualcam()
    if any(name.read_text().startswith("RIGID") for name in Path("/sys/class/video4linux").glob("*/name")):
        pytest.skip("this machine has a loopback device")
    camera = VirtualCamera(SIZE, ["v4l2loopback"])
    try:
        with pytest.raises(SinkError, match=r"v4l2loopback.*No v4l2 loopback device.*`.*modprobe v4l2loopback"):
            camera.wait()
    finally:
        camera.end()


def test_pipewire_that_does_not_run_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PIPEWIRE_RUNTIME_DIR", raising=False)
    (reason,) = [text for usable, text in probe() if text.startswith("pipewire")]
    assert "PipeWire" in reason
    assert "`" in reason
    info = SourceInfo("one", *SIZE, 25.0, live=True)
    with pytest.raises(SinkError, match=r"no virtual camera: .*pipewire"):
        open_sink("virtual", info, compare=False)
    assert not capfd.readouterr().err, "the error is told once, by whoever gets it"


@pytest.mark.parametrize("missing", sorted(STEPS))
def test_every_step_is_a_command_where_its_program_is_there(missing: str) -> None:
    for program, command in STEPS[missing].items():
        assert step_for(missing, lambda name, program=program: name == program) == command
    assert step_for("unheard of") == ""


def test_every_backend_has_a_step() -> None:
    assert {name for names in BACKENDS.values() for name in names} <= set(STEPS)


def test_compare_shows_both(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.take_the_place_of_every_camera(monkeypatch)
    sink = open_sink("virtual", SourceInfo("one", *SIZE, 25.0), compare=True)
    black, white = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
    sink.write(EditedFrame(0, 0, white, Phase.TRACKING, {}), black)
    both = str(number_of(np.hstack((black, white))))
    until(lambda: both in log.numbers)
    sink.finish(whole=True)
    assert log.numbers[-1] == "closed"
