"""One run of the bench: a session, what it is fed with, and what it did in its turns."""

import threading
from typing import Any

from app.bench.feed import Feed
from app.bench.scene import cells
from app.bench.settings import Scene, Size
from app.bench.stamp import GlassSink
from app.pipeline import Editor, Job, edit
from app.report import RunLog
from app.sinks import NullSink, Sink
from app.sources import Source
from engine.frames import Controls, EditedFrame, ImageU8


class Contender:
    """Takes turns with the others, so that whatever else the machine does hits all alike."""

    def __init__(self, editor: Editor, controls: Controls, feed: Feed, scene: Scene, lead_in: int) -> None:
        """lead_in: frames at the start of a turn that do not count, for they find the caches full of others' data."""
        self.log = RunLog()
        self.scene = scene
        self._editor = editor
        self._controls = controls
        self._feed = feed
        self._lead_in = lead_in
        self._glass = GlassSink()
        self._seen = _Edited(scene)
        self._next = 0

    @property
    def size(self) -> Size:
        """Of its frames; known once it is warm."""
        return self._seen.size

    def warm_up(self, count: int) -> None:
        """Edit the first frames, which find the face and take the anchor; they are not counted."""
        self._edit(self._feed.lead_in(self.scene, self._next), count, RunLog(), self._seen)

    def take_turn(self, count: int) -> None:
        """Edit `count` frames that are counted."""
        if self._lead_in:
            self._edit(self._feed.lead_in(self.scene, self._next), self._lead_in, RunLog(), NullSink())
        sink = self._glass if self._feed.live else NullSink()
        self._edit(self._feed.turn(self.scene, self._next), count, self.log, sink)
        self.log.pause()

    def as_json(self) -> dict[str, Any]:
        """The figures of all turns. faces_edited: parts of the picture that came out changed after the warm-up."""
        figures = self.log.as_json(live=self._feed.live) | {"faces_edited": self._seen.count}
        if self._feed.live and self._glass.read:
            figures["glass_to_glass_ms"] = self._glass.ages.percentiles()
            figures["stamps_unreadable"] = self._glass.unreadable
        return figures

    def _edit(self, source: Source, count: int, log: RunLog, sink: Sink) -> None:
        before = log.frames_in
        limit = log.frames_out + count
        with source:
            job = Job(source, self._editor, (sink,), self._controls, limit, threading.Event(), log, lambda *_: None)
            edit(job)
        self._next += log.frames_in - before


class _Edited(NullSink):
    """Counts the faces that came out edited in the newest frame."""

    def __init__(self, scene: Scene) -> None:
        self.count = 0
        self.size = scene.size or Size(0, 0)
        self._faces = scene.faces

    def write(self, edited: EditedFrame, original: ImageU8) -> None:
        """Notes in how many cells of the scene the newest frame was changed."""
        height, width = original.shape[:2]
        self.size = Size(width, height)
        places = cells(self._faces, self.size)
        self.count = sum(bool((edited.image[place] != original[place]).any()) for place in places)
