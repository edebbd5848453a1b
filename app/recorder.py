"""The files that a run which goes on writes: started and stopped while it goes on."""

import logging
from dataclasses import replace

from app.sinks import NULL, VIRTUAL, Sink, check_sinks, open_sink
from app.sources import SourceInfo
from engine.errors import RigidError
from engine.frames import EditedFrame, ImageU8

log = logging.getLogger(__name__)


class Recorder:
    """Writes frames into the sinks that are wanted. Used by one thread; a sink that fails ends the recording only."""

    def __init__(self) -> None:
        self.problem = ""
        """Why the recording could not be started or ended early, in one line; empty otherwise."""
        self.finished = ""
        """The file that was finished last."""
        self._wanted: tuple[str, ...] = ()
        self._sinks: dict[str, Sink] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are being written."""
        return tuple(self._sinks)

    def follow(self, wanted: tuple[str, ...], info: SourceInfo | None, *, compare: bool) -> None:
        """Finishes what is no longer wanted and opens what is, once info says what the source is like."""
        files = tuple(name for name in wanted if name not in (NULL, VIRTUAL))
        if files == self._wanted or (files and info is None):
            return
        self._finish()
        self.problem = ""
        self._wanted = files
        if info is None:
            return
        # Recording starts in the middle of the source: its sound would start at its beginning.
        described = replace(info, live=True, sound=None)
        try:
            check_sinks(files, info.name)
            for name in files:
                self._sinks[name] = open_sink(name, described, compare=compare)
        except RigidError as error:
            self._failed(error)

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Writes one frame into every sink."""
        try:
            for sink in self._sinks.values():
                sink.write(edited, original)
        except RigidError as error:
            self._failed(error)

    def _finish(self) -> None:
        try:
            for name, sink in self._sinks.items():
                sink.finish(whole=False)
                self.finished = name
        except RigidError as error:
            self._failed(error)
        self._sinks = {}

    def _failed(self, error: RigidError) -> None:
        log.warning("%s", error)
        self.problem = str(error)
        for sink in self._sinks.values():
            sink.discard()
        self._sinks = {}
