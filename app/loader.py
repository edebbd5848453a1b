"""The engine session of a run that goes on: opened in a thread of its own while the one before goes on working."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillBusy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.settings import RunSettings
from engine.errors import RigidError
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8

log = logging.getLogger(__name__)

_KEY = ("bundle", "runtime", "device", "precision", "max_faces", "variant")
"""The settings that need another session when they change."""


class LiveSession(Protocol):
    """What a run that goes on needs of an engine session."""

    @property
    def runtime(self) -> str:
        """What the networks run on, in words."""

    def step(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """Edits one frame; when it fails it has changed nothing."""

    def expect(self, frame: CameraFrame) -> None:
        """Told of the frame that is likely to be edited next, in any thread."""

    def policy_frame(self, frame: CameraFrame, controls: Controls) -> EditedFrame:
        """What may be shown of a frame that cannot be edited."""

    def set_lost_face(self, lost_face: str) -> None:
        """Puts another lost-face policy in force."""

    def set_likeness(self, likeness: NDArray[np.float32] | None) -> None:
        """Fades a likeness in, or out."""

    def crop(self, frame: CameraFrame) -> ImageU8 | None:
        """The main face of the frame that was edited last, aligned."""

    def reset(self) -> None:
        """Forgets every frame so far."""

    def close(self) -> None:
        """Frees what the session holds."""


@dataclass(frozen=True)
class Backend:
    """Where sessions come from. labels: of the attributes that a bundle has, by name, without opening its networks."""

    labels: Callable[[RunSettings], Mapping[str, str]]
    open_session: Callable[[RunSettings], LiveSession]


@dataclass(frozen=True)
class _Opened:
    labels: Mapping[str, str]
    session: LiveSession


class Loader:
    """Keeps the session that the settings ask for. Used by one thread, which alone works with the session."""

    def __init__(self, backend: Backend) -> None:
        self.session: LiveSession | None = None
        """The newest session that could be opened; None until there is one."""
        self.labels: Mapping[str, str] | None = None
        """The attributes of the bundle, label by name; the first bundle's are known before its session is."""
        self.problem = ""
        """Why the wanted session could not be opened, in one line; empty when it could, or is still being opened."""
        self._backend = backend
        self._key: tuple[object, ...] = ()
        self._session_key: tuple[object, ...] = ()
        self._pool = ThreadPoolExecutor(1, "loader")
        self._opening: Future[_Opened] | None = None
        self._stale = False

    @property
    def loading(self) -> bool:
        """True while a session is being opened."""
        return self._opening is not None

    def follow(self, settings: RunSettings) -> None:
        """Starts opening the session that the settings ask for, and takes over one that is ready."""
        if self._opening is not None and self._opening.done():
            self._take_over(self._opening)
        key = tuple(getattr(settings, name) for name in _KEY)
        if self._opening is None and (key != self._key or self._stale):
            self._key, self._stale, self.problem = key, False, ""
            self._opening = self._pool.submit(self._open, settings)
        if self.session is not None:
            self.session.set_lost_face(settings.lost_face)

    def open_again(self) -> None:
        """Has the session replaced by a fresh one: what it runs on may be gone."""
        self._stale = True

    def works(self) -> None:
        """The session has made a frame: that no fresh one of the same settings could be opened is past."""
        if self._session_key == self._key:
            self._stale, self.problem = False, ""

    def end(self, timeout_s: float) -> bool:
        """Closes the session; False when one is still being opened after timeout_s seconds."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._opening is not None:
            try:
                failure = self._opening.exception(timeout_s)
            except StillBusy:
                return False
            if failure is None:
                self._opening.result().session.close()
        if self.session is not None:
            self.session.close()
            self.session = None
        return True

    def _open(self, settings: RunSettings) -> _Opened:
        labels = self._backend.labels(settings)
        if self.session is None:
            self.labels = labels
        return _Opened(labels, self._backend.open_session(settings))

    def _take_over(self, opening: Future[_Opened]) -> None:
        self._opening = None
        try:
            fresh = opening.result()
        except Exception as error:
            log.debug("the session could not be opened", exc_info=True)
            self.problem = str(error) if isinstance(error, RigidError) else f"{type(error).__name__}: {error}"
            log.warning("%s", self.problem)
            return
        if self.session is not None:
            self.session.close()
        self.labels, self.session, self._session_key = fresh.labels, fresh.session, self._key


def read_labels(settings: RunSettings) -> Mapping[str, str]:
    """The attributes of a bundle, label by name; BundleError when it cannot be read."""
    from app.bundles import prepare_bundle
    from engine.bundle import load_directions, read_manifest
    from engine.bundle_build import bundle_path
    from engine.direction_file import DIRECTIONS

    folder = bundle_path(prepare_bundle(settings.bundle))
    directions = load_directions(folder / DIRECTIONS, read_manifest(folder))
    return {name: direction.label for name, direction in directions.items()}


def open_live_session(settings: RunSettings) -> LiveSession:
    """The session that a run of these settings would have."""
    from app.pipeline import open_session  # loads what opens sources and sinks

    return open_session(settings)


ENGINE = Backend(read_labels, open_live_session)
"""The real engine."""
