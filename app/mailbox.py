"""A one-slot mailbox between two threads: the newest item wins, the overwritten ones are counted."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item, so that a slow reader drops items and never falls behind the writer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Items that were overwritten before anybody took them."""
        return self._dropped

    @property
    def drained(self) -> bool:
        """True when the mailbox is closed and its last item has been taken."""
        with self._changed:
            return self._closed and self._item is None

    def put(self, item: T) -> None:
        """Leaves the item for the reader, in place of one that is still there."""
        with self._changed:
            assert not self._closed, "put after close"
            if self._item is not None:
                self._dropped += 1
            self._item = item
            self._changed.notify_all()

    def close(self) -> None:
        """Says that nothing more will come; the item that is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, timeout_s: float) -> T | None:
        """The newest item, waiting up to timeout_s seconds for it; None when none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout_s)
            item, self._item = self._item, None
            return item
