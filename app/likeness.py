"""The likeness of a run: found in a process of its own while the run goes on, or read from where it was kept.

`RunSettings.likeness` asks for one to be found, `RunSettings.person` for one to be kept under that name or, alone, for
the one that is. `LikenessSwitch` follows the settings, gathers crops of the first seconds and hands the session what
was found; the session fades it in.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from io import BytesIO
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.likeness_worker import DONE, FOUND, NO, framed
from app.people import People
from app.settings import RunSettings
from engine.errors import RigidError, RuntimeUnavailable
from engine.frames import CameraFrame, ImageU8

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "app.likeness_worker")
CROPS = 8
"""Frames that a likeness is found on."""
APART_NS = 400_000_000
"""Time between two of them: together about three seconds."""
_END_S = 3.0

Likeness = NDArray[np.float32]


class Sitter(Protocol):
    """What is needed of an engine session."""

    def crop(self, frame: CameraFrame) -> ImageU8 | None:
        """The main face of the frame that was stepped last, aligned."""

    def set_likeness(self, likeness: Likeness | None) -> None:
        """Fades it in, or out."""


class Search:
    """One worker process at its work, and a thread that listens to it.

    share: of its work that is done. found: the likeness [L, D] once it is there. problem: why there is none, in one
    line. over: true when nothing more will come.
    """

    def __init__(self, crops: NDArray[np.uint8], bundle: str, worker: Sequence[str] = WORKER) -> None:
        """crops: uint8 RGB [T, S, S, 3]. Raises RuntimeUnavailable when the process cannot be started."""
        self.share, self.problem, self.over = 0.0, "", False
        self.found: Likeness | None = None
        self._ending = False
        command = [*worker, "--bundle", bundle]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise RuntimeUnavailable(f"the likeness's process cannot be started: {error}") from error
        self._thread = threading.Thread(target=self._work, args=(crops,), name="likeness", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Waits until it is over; False when it goes on after timeout_s seconds."""
        self._thread.join(timeout_s)
        return self.over

    def end(self) -> None:
        """Breaks it off where it is not over, and waits for the process."""
        self._ending = True
        if self._process.poll() is None:
            self._process.kill()
        self._thread.join(_END_S)

    def _work(self, crops: NDArray[np.uint8]) -> None:
        try:
            assert self._process.stdin
            self._process.stdin.write(framed(crops))
            self._process.stdin.flush()
            self._listen()
        except (OSError, ValueError) as error:
            self.problem = f"the likeness's process broke off: {error}"
        self._process.wait()
        if self.found is None and not self.problem:
            self.problem = "the likeness's process broke off"
        if self._ending:
            self.problem = ""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self.over = True

    def _listen(self) -> None:
        assert self._process.stdout
        while line := self._process.stdout.readline():
            if line.startswith(DONE):
                self.share = float(line[len(DONE) :])
            elif line == FOUND:
                self.found = np.load(BytesIO(self._process.stdout.read()), allow_pickle=False)
            elif line.startswith(NO):
                self.problem = line[len(NO) :].decode(errors="replace").strip()


class LikenessSwitch:
    """Used by one thread, the engine's; see the module.

    share: of the search, 0 while crops are gathered, None while nothing is sought. in_force: whether the session has a
    likeness. problem: why it has none although it was asked for, in one line.
    """

    def __init__(self, people: People, worker: Sequence[str] = WORKER) -> None:
        self.share: float | None = None
        self.problem = ""
        self._people, self._worker = people, worker
        self._asked = (False, "", "")
        self._crops: list[ImageU8] = []
        self._last_ns = 0
        self._search: Search | None = None
        self._likeness: Likeness | None = None
        self._session: Sitter | None = None
        self._given: Likeness | None = None

    @property
    def in_force(self) -> bool:
        """Whether there is a likeness that the session is given."""
        return self._likeness is not None

    @property
    def searching(self) -> bool:
        """True while a process is at work."""
        return self._search is not None

    def follow(self, settings: RunSettings, session: Sitter | None, frame: CameraFrame | None) -> None:
        """After each frame. frame: the one that the session has just stepped, None when it stepped none."""
        asked = (settings.likeness, settings.person, settings.bundle)
        if asked != self._asked:
            self._ask(settings)
            self._asked = asked
        if self.share is not None and self._search is None and session is not None and frame is not None:
            self._gather(settings, session, frame)
        if self._search is not None:
            self._look(self._search, settings)
        if session is not None and (session is not self._session or self._likeness is not self._given):
            self._give(session)

    def another_source(self) -> None:
        """What was gathered so far may show somebody else."""
        self._crops = []

    def end(self) -> None:
        """Breaks the search off."""
        if self._search is not None:
            self._search.end()
            self._search = None
        self.share = None

    def _give(self, session: Sitter) -> None:
        needless = self._likeness is None and (self._given is None or session is not self._session)
        self._session, self._given = session, self._likeness
        if needless:
            return
        try:
            session.set_likeness(self._likeness)
        except RigidError as error:  # of other networks, which are on their way out or in
            log.warning("%s", error)

    def _ask(self, settings: RunSettings) -> None:
        self.end()
        self.problem, self._crops, self._likeness = "", [], None
        try:
            if settings.likeness:
                self.share = 0.0
            elif settings.person:
                self._likeness = self._people.load(settings.person, settings.bundle)
        except RigidError as error:
            self._fail(error)

    def _gather(self, settings: RunSettings, session: Sitter, frame: CameraFrame) -> None:
        if self._crops and 0 <= frame.captured_ns - self._last_ns < APART_NS:
            return
        crop = session.crop(frame)
        if crop is None:
            return
        self._crops.append(crop)
        self._last_ns = frame.captured_ns
        if len(self._crops) == CROPS:
            self.search(settings)

    def search(self, settings: RunSettings) -> bool:
        """Starts on what was gathered; False when that is nothing."""
        if not self._crops:
            return False
        try:
            self._search = Search(np.stack(self._crops), settings.bundle, self._worker)
        except RigidError as error:
            self._fail(error)
        self._crops = []
        return True

    def _look(self, search: Search, settings: RunSettings) -> None:
        self.share = search.share
        if not search.over:
            return
        self._search, self.share = None, None
        if search.found is None:
            self._fail(RuntimeUnavailable(search.problem))
            return
        self._likeness = search.found
        log.info("the likeness was found")
        if settings.person:
            try:
                self._people.save(settings.person, search.found, settings.bundle)
            except RigidError as error:
                self.problem = str(error)
                log.warning("%s", error)

    def _fail(self, error: RigidError) -> None:
        self.problem, self.share = str(error), None
        log.warning("%s", error)
