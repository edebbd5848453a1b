"""Pictures that are finished later: while the networks already work on the next frame."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import RLock

from engine.frames import ImageU8


class LaterPicture:
    """A picture that the first who asks for it makes; others wait for it. Of one lock's pictures one is made at a time.

    What its making raises, everyone gets who asks.
    """

    def __init__(self, make: Callable[[], ImageU8], lock: RLock) -> None:
        self._make: Callable[[], ImageU8] | None = make
        self._lock = lock
        self._made: Future[ImageU8] = Future()

    def __call__(self) -> ImageU8:
        """The picture, uint8 BGR [H, W, 3]."""
        with self._lock:
            if self._make is not None:
                make, self._make = self._make, None  # lets go of what it was made of
                try:
                    self._made.set_result(make())
                except Exception as error:  # noqa: BLE001 - whoever asks gets it
                    self._made.set_exception(error)
        return self._made.result()

    def if_any(self) -> ImageU8 | None:
        """The picture; None where it could not be made."""
        try:
            return self()
        except Exception:  # noqa: BLE001 - whoever finishes the frame tells of it
            return None
