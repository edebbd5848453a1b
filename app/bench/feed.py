"""Where the frames of every turn come from: a clip in memory, the same clip at its own pace, or something live."""

from app.bench.scene import Clip, ClipSource, compose, read_clip
from app.bench.settings import BenchSettings, Scene
from app.bench.stamp import StampedSource
from app.sources import PacedSource, Source, open_source
from engine.errors import UsageError


class Feed:
    """Opens a source for a turn. `live`: frames come whether they are wanted or not, and carry a stamp."""

    def __init__(self, settings: BenchSettings) -> None:
        """Reads and composes the frames; raises SourceError, and UsageError for scenes of a live source."""
        self._name = settings.source
        self._clips: dict[Scene, Clip] = {}
        with open_source(settings.source) as source:
            self.live = settings.pace or source.info.live
            if not source.info.live:
                self._clips = compose(read_clip(source, settings.frames), settings.scenes)
            elif settings.scenes != (Scene(),):
                raise UsageError(f"{settings.source} is live; --faces and --size need a file or `demo`")

    def lead_in(self, scene: Scene, first: int) -> Source:
        """Frames that are not counted, from index `first` on; as fast as they are wanted where that can be."""
        return ClipSource(self._clips[scene], first) if self._clips else open_source(self._name)

    def turn(self, scene: Scene, first: int) -> Source:
        """Frames that are counted, from index `first` on."""
        source = self.lead_in(scene, first)
        if not self.live:
            return source
        return StampedSource(PacedSource(source) if self._clips else source)
