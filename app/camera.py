"""Cameras as sources, through OpenCV."""

import logging
import threading
import time

import cv2
import numpy as np
from cv2.typing import MatLike

from app.sources import Closing, SourceInfo
from engine.errors import SourceError
from engine.frames import CameraFrame

log = logging.getLogger(__name__)

_RECONNECT_EVERY_S = 1.0
_RECONNECT_FOR_S = 60.0


class CameraSource(Closing):
    """A camera, by index. When it is unplugged, it is looked for again for a minute."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._cancelled = threading.Event()
        self._camera = open_camera(index)
        read, image = self._camera.read()
        if not read:
            self._camera.release()
            raise SourceError(f"camera {index} opened but gave no frame; is another program using it?")
        self._pending: MatLike | None = image
        self._next = 0
        fps = self._camera.get(cv2.CAP_PROP_FPS)
        self._info = SourceInfo(f"camera {index}", image.shape[1], image.shape[0], max(fps, 0.0), live=True)

    @property
    def info(self) -> SourceInfo:
        """Size and nominal rate as the camera reports them."""
        return self._info

    def read(self) -> CameraFrame | None:
        """The next picture, stamped with the monotonic time at which it arrived; None once cancelled."""
        image, self._pending = self._pending, None
        while image is None and not self._cancelled.is_set():
            read, image = self._camera.read()
            if not read:
                self._reconnect()
                image = None
        if image is None:
            return None
        frame = CameraFrame(self._next, time.monotonic_ns(), np.asarray(image, dtype=np.uint8))
        self._next += 1
        return frame

    def cancel(self) -> None:
        """Ends the waiting for a camera that is gone."""
        self._cancelled.set()

    def close(self) -> None:
        """Gives the camera back."""
        self._camera.release()

    def _reconnect(self) -> None:
        log.warning("camera %d is gone; waiting for it to come back", self._index)
        self._camera.release()
        give_up = time.monotonic() + _RECONNECT_FOR_S
        while not self._cancelled.wait(_RECONNECT_EVERY_S):
            try:
                self._camera = open_camera(self._index)
            except SourceError as error:
                if time.monotonic() > give_up:
                    raise SourceError(f"camera {self._index} did not come back in {_RECONNECT_FOR_S:.0f} s") from error
                continue
            log.warning("camera %d is back", self._index)
            return


def open_camera(index: int) -> cv2.VideoCapture:
    """An open camera; SourceError when there is none of that index or it is in use."""
    # OpenCV reports a missing camera on stderr by itself, in several lines; the error below is the one that counts.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    camera = cv2.VideoCapture(index)
    if not camera.isOpened():
        camera.release()
        raise SourceError(f"camera {index} is not there or is in use; `rigid-live doctor` lists the cameras it finds")
    return camera
