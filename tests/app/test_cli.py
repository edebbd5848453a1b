"""The command line as a person meets it: exit codes, one line for a failure, and Ctrl-C."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from app.cli import main
from tests.app.clips import clip, cut, numbers_in
from tests.app.fakes import FakeSession

_SLOW_TO_LOAD = ("torch", "cv2", "av", "openvino", "onnxruntime", "onnx", "PyQt6", "tqdm")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake engine under the command line."""
    monkeypatch.setattr("app.pipeline.open_session", lambda settings: FakeSession())


def _one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("rigid-live: ")
    return line


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["dance"], 2),
        (["run", "--dance"], 2),
        (["run", "--frames", "many"], 2),
        (["run", "--max-faces", "0"], 2),
        (["run", "--runtime", "quantum"], 2),
        (["run", "--set", "age"], 2),
        (["run", "--set", "age=nan"], 2),
        (["run", "--set", "age=1.5"], 2),
        (["run", "--set", "age=old"], 2),
        (["run", "--set", "beauty=0.5", "--source", "CLIP"], 2),
        (["run", "--settings", "none.toml"], 2),
        (["run", "--sink", "virtual", "virtual", "--source", "CLIP"], 2),
        (["run", "--sink", "rtmp://host/live", "--source", "CLIP"], 2),
        (["train", "nothing"], 2),
        (["assets"], 2),
        (["assets", "pull", "no_such_asset"], 2),
        (["run", "--source", "missing.mp4"], 1),
        (["run", "--source", "TEXT"], 1),
        (["run", "--source", "TRUNCATED", "--sink", "out.mp4"], 1),
        (["run", "--source", "93"], 1),
        (["run", "--source", "http://127.0.0.1:9/a.mp4"], 1),
        (["run", "--source", "CLIP", "--sink", "nowhere/out.mp4"], 1),
        (["run", "--source", "CLIP", "--report", "nowhere/r.json"], 1),
        (["doctor", "--check", "TEXT"], 1),
    ],
)
def test_a_failure_is_one_line_and_its_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    session: None,
    words: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = {"CLIP": clip(tmp_path / "clip.mkv"), "TRUNCATED": cut(clip(tmp_path / "cut.mkv", 40), 0.5)}
    inputs["TEXT"] = tmp_path / "text.mp4"
    inputs["TEXT"].write_text("no video", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    assert main([str(inputs.get(word, word)) for word in words]) == code
    _one_line(capfd.readouterr().err)
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_through_flags_and_file(tmp_path: Path, session: None, capfd: pytest.CaptureFixture[str]) -> None:
    source = clip(tmp_path / "in.mp4")
    (tmp_path / "s.toml").write_text(f'source = "{source}"\nset = {{ age = 0.5 }}\n', encoding="utf-8")
    words = ["run", "--settings", str(tmp_path / "s.toml"), "--set", "smile=-1", "--set", "age=1", "--compare"]
    words += ["--sink", str(tmp_path / "out.mp4"), "null", "--report", str(tmp_path / "r.json"), "--frames", "5"]
    assert main(words) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "5 frames in, 5 out, 0 dropped" in said.out
    settings = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["settings"]
    assert settings["set"] == {"age": 1.0, "smile": -1.0}
    assert settings["compare"] is True


def test_the_bar_is_shown_on_request(tmp_path: Path, session: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--source", str(clip(tmp_path / "in.mp4")), "--progress"]) == 0
    assert "12/12" in capfd.readouterr().err


def test_an_unexpected_error_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.pipeline.open_session", lambda settings: FakeSession(fails_on=(3,)))
    assert main(["run", "--source", str(clip(tmp_path / "in.mp4")), "--sink", str(tmp_path / "out.mp4")]) == 1
    assert "RuntimeError: out of order" in _one_line(capfd.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_help_loads_nothing_slow() -> None:
    script = (
        "import sys\nfrom app.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"loaded = [name for name in {_SLOW_TO_LOAD!r} if name in sys.modules]\nassert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--lost-face" in done.stdout


def test_python_dash_m_app_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "app", "bogus"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    _one_line(done.stderr)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_in_good_order(tmp_path: Path, signal_number: signal.Signals) -> None:
    source, out, report = clip(tmp_path / "in.mp4", 250), tmp_path / "out.mp4", tmp_path / "r.json"
    words = ["run", "--source", str(source), "--sink", str(out), "--report", str(report), "--progress"]
    script = (
        "import app.pipeline\nfrom app.cli import main\nfrom tests.app.fakes import FakeSession\n"
        "app.pipeline.open_session = lambda settings: FakeSession(seconds=0.02)\n"
        f"raise SystemExit(main({words!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.*.part.mp4")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        running.send_signal(signal_number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "Traceback" not in said
    frames_out = json.loads(report.read_text(encoding="utf-8"))["frames_out"]
    assert 0 < frames_out < 250
    assert len(numbers_in(out)) == frames_out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "r.json"]


@pytest.mark.parametrize(("command", "words", "given"), [("evaluate", [], ["a", "b"]), ("export", ["a"], "a")])
def test_bundles_are_built_and_keep_their_names(
    monkeypatch: pytest.MonkeyPatch, command: str, words: list[str], given: object
) -> None:
    """Whether a command takes one or several; what it is given is the name, which is what reports tell."""
    built, got = [], []
    module = ModuleType("stand_in", "A command.")
    if words:
        module.add_arguments = lambda parser: parser.add_argument("bundle")
    else:
        module.add_arguments = lambda parser: parser.add_argument("--bundle", action="append")
        words = ["--bundle", "a", "--bundle", "b"]
    module.run = lambda args: got.append(args.bundle) or 0
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setattr("app.cli._OTHERS", {command: ("stand_in", "")})
    monkeypatch.setattr("app.cli.prepare_bundle", built.append)
    monkeypatch.setattr("app.cli.find_spec", lambda name: None)
    assert main([command, *words]) == 0
    assert built == list(given)
    assert got == [given]


def test_assets_are_listed(empty_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["assets", "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("missing") for line in lines)
