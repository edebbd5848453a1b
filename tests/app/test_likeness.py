"""A search in a process of its own, and the switch that follows the settings. The worker is a stand-in of a few lines,
but one test speaks with the real one.
"""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import people as people_module
from app.likeness import APART_NS, CROPS, LikenessSwitch, Search
from app.likeness_worker import framed
from app.people import People
from app.settings import RunSettings
from engine.frames import CameraFrame
from tests.app.fakes import FakeSession

WAIT_S = 60.0
PATIENT_S = 300.0
"""For the real worker, which loads networks at a low priority."""
LIKENESS = np.arange(6, dtype=np.float32).reshape(2, 3)

WORKER = """
import io, os, sys, time
import numpy as np
def read(size):
    parts = b""
    while len(parts) < size:
        parts += os.read(0, size - len(parts))
    return parts
crops = np.load(io.BytesIO(read(int.from_bytes(read(8), "little"))))
out = sys.stdout.buffer
kind = "KIND"
if kind == "refuses":
    out.write(b"no it has its reasons\\n"); out.flush(); sys.exit(1)
if kind == "dies":
    sys.exit(3)
out.write(b"done 0.50\\n"); out.flush()
while kind == "hangs":
    time.sleep(0.05)
out.write(b"found\\n")
np.save(out, np.full((2, 3), crops.mean(), np.float32)); out.flush()
"""


def worker(kind: str = "finds") -> tuple[str, ...]:
    return (sys.executable, "-c", WORKER.replace("KIND", kind))


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    monkeypatch.setattr(people_module, "networks_of", lambda bundle: "these")
    return People(tmp_path / "people")


def crops(level: int = 7) -> np.ndarray:
    return np.full((CROPS, 8, 8, 3), level, np.uint8)


class TestSearch:
    def test_it_finds_what_the_worker_makes_of_the_crops(self) -> None:
        search = Search(crops(), "default", worker())
        assert search.wait(WAIT_S)
        np.testing.assert_array_equal(search.found, np.full((2, 3), 7.0))
        assert (search.share, search.problem) == (0.5, "")

    @pytest.mark.parametrize(("kind", "problem"), [("refuses", "it has its reasons"), ("dies", "broke off")])
    def test_a_worker_that_fails_says_why(self, kind: str, problem: str) -> None:
        search = Search(crops(), "default", worker(kind))
        assert search.wait(WAIT_S)
        assert search.found is None
        assert problem in search.problem

    def test_it_can_be_broken_off(self) -> None:
        search = Search(crops(), "default", worker("hangs"))
        until(lambda: search.share == 0.5)
        search.end()
        assert search.over
        assert search.found is None
        assert search._process.poll() is not None

    def test_the_real_worker_refuses_a_bundle_that_is_not_there(self) -> None:
        search = Search(crops(), "no-such-bundle")
        assert search.wait(PATIENT_S)
        assert "no-such-bundle" in search.problem

    def test_the_real_worker_finds_one_for_the_default_bundle(self) -> None:
        faces = np.random.default_rng(1).integers(0, 256, (2, 256, 256, 3), np.uint8)
        search = Search(faces, "default")
        assert search.wait(PATIENT_S)
        assert search.problem == ""
        assert search.found.shape == (12, 512)
        assert 0.01 < np.sqrt(np.square(search.found).mean()) < 0.42
        assert search.share == 1.0


def until(condition) -> None:
    give_up_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def frame(index: int) -> CameraFrame:
    return CameraFrame(index, index * APART_NS, np.zeros((4, 4, 3), np.uint8))


def play(switch: LikenessSwitch, settings: RunSettings, session: FakeSession, count: int = CROPS) -> None:
    for index in range(count):
        switch.follow(settings, session, frame(index))


class TestSwitch:
    settings = RunSettings(likeness=True)

    def found(self, switch: LikenessSwitch, settings: RunSettings, session: FakeSession) -> None:
        play(switch, settings, session)

        def follow() -> bool:
            switch.follow(settings, session, None)
            return switch.share is None

        until(follow)

    def test_crops_of_the_first_seconds_go_to_the_worker_and_what_it_finds_to_the_session(self, people: People) -> None:
        switch, session = LikenessSwitch(people, worker()), FakeSession()
        self.found(switch, self.settings, session)
        (given,) = session.likenesses
        np.testing.assert_array_equal(given, np.full((2, 3), np.mean(range(CROPS))))
        assert switch.in_force
        assert people.names() == []
        assert switch.problem == ""

    def test_frames_too_near_to_each_other_or_without_a_face_do_not_count(self, people: People) -> None:
        switch, session = LikenessSwitch(people, worker()), FakeSession()
        for _ in range(2 * CROPS):
            switch.follow(self.settings, session, frame(0))
        session.face = False
        play(switch, self.settings, session, 2 * CROPS)
        assert not switch.searching
        assert switch.share == 0.0

    def test_a_named_one_is_kept_and_is_there_without_a_search(self, people: People) -> None:
        switch, session = LikenessSwitch(people, worker()), FakeSession()
        self.found(switch, replace(self.settings, person="anna"), session)
        assert people.names() == ["anna"]
        later = FakeSession()
        LikenessSwitch(people).follow(RunSettings(person="anna"), later, None)
        np.testing.assert_array_equal(later.likenesses[0], session.likenesses[0])

    def test_a_person_who_was_not_kept_is_a_problem(self, people: People) -> None:
        switch = LikenessSwitch(people)
        switch.follow(RunSettings(person="anna"), FakeSession(), None)
        assert "anna" in switch.problem

    def test_asking_for_nothing_breaks_it_off(self, people: People) -> None:
        switch, session = LikenessSwitch(people, worker("hangs")), FakeSession()
        play(switch, self.settings, session)
        assert switch.searching
        switch.follow(RunSettings(), session, None)
        assert not switch.searching
        assert (switch.share, switch.problem, session.likenesses) == (None, "", [])

    def test_taking_it_back_fades_it_out(self, people: People) -> None:
        switch, session = LikenessSwitch(people, worker()), FakeSession()
        self.found(switch, self.settings, session)
        switch.follow(RunSettings(), session, None)
        assert session.likenesses[-1] is None
        assert not switch.in_force

    def test_another_session_is_given_it_too(self, people: People) -> None:
        switch, session, other = LikenessSwitch(people, worker()), FakeSession(), FakeSession()
        self.found(switch, self.settings, session)
        switch.follow(self.settings, other, frame(0))
        np.testing.assert_array_equal(other.likenesses[0], session.likenesses[0])

    def test_another_source_starts_the_gathering_anew(self, people: People) -> None:
        switch, session = LikenessSwitch(people, worker("hangs")), FakeSession()
        play(switch, self.settings, session, CROPS - 1)
        switch.another_source()
        play(switch, self.settings, session, CROPS - 1)
        assert not switch.searching
        switch.end()


def test_who_may_start_a_search_loads_nothing_for_it() -> None:
    told = "import sys, app.likeness; print({'onnx', 'openvino', 'cv2'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_array_is_framed_by_its_length() -> None:
    content = framed(LIKENESS)
    assert int.from_bytes(content[:8], "little") == len(content) - 8
