"""The virtual camera of a run that goes on: switched on and off while it goes on."""

import logging
from typing import TYPE_CHECKING

from app.sinks import pixel_size
from app.sources import SourceInfo
from engine.errors import SinkError
from engine.frames import EditedFrame, ImageU8

if TYPE_CHECKING:
    from app.virtual_camera import CameraSink

log = logging.getLogger(__name__)


class CameraSwitch:
    """Used by one thread. The camera keeps the size of the source that it was switched on with: programs that look at
    it do not expect another one.
    """

    def __init__(self) -> None:
        self._sink: CameraSink | None = None
        self._refused = ""

    @property
    def name(self) -> str:
        """What programs find the camera as; empty while there is none."""
        return self._sink.camera.name if self._sink else ""

    @property
    def problem(self) -> str:
        """Why there is none although it is switched on, in one line; empty while it is being opened."""
        return self._sink.camera.problem if self._sink else self._refused

    def follow(self, wanted: bool, info: SourceInfo | None, *, compare: bool) -> None:
        """Switches the camera on, once info says what the source is like, or off."""
        if not wanted:
            self._refused = ""
            if self._sink:
                self._sink.discard()
                self._sink = None
        elif self._sink is None and info is not None and not self._refused:
            from app.virtual_camera import CameraSink, VirtualCamera  # loads OpenCV: not before the window is there

            try:
                self._sink = CameraSink(VirtualCamera(pixel_size(info, compare=compare)), compare=compare)
            except SinkError as error:
                log.warning("%s", error)
                self._refused = str(error)

    def show(self, edited: EditedFrame, original: ImageU8) -> None:
        """Shows the frame where the camera is on."""
        if self._sink:
            self._sink.write(edited, original)
