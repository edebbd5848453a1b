"""The files that a run which goes on writes: started and stopped while it goes on."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from app.sinks import NULL, VIRTUAL, Sink, check_sinks, open_sink
from app.sources import SourceInfo
from engine.errors import RigidError
from engine.frames import EditedFrame, ImageU8

log = logging.getLogger(__name__)


class Recorder:
    """Writes frames into the sinks that are wanted, in a thread of its own. Used by one other thread.

    A sink that fails ends the recording only.
    """

    def __init__(self) -> None:
        self.problem = ""
        """Why the recording could not be started or ended early, in one line; empty otherwise."""
        self.finished = ""
        """The file that was finished last."""
        self._wanted: tuple[str, ...] = ()
        self._sinks: dict[str, Sink] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

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
        """Has one frame written into every sink, once the one before is."""
        self._wait()
        if self._sinks:
            self._writer = self._writer or ThreadPoolExecutor(1, "record")
            self._writing = self._writer.submit(self._write, edited, original)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, edited: EditedFrame, original: ImageU8) -> None:
        try:
            for sink in self._sinks.values():
                sink.write(edited, original)
        except RigidError as error:
            self._failed(error)

    def _finish(self) -> None:
        self._wait()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
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
