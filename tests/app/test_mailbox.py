"""The newest item wins, and the reader learns when there will be no more."""

import threading
import time

from app.mailbox import Mailbox


def test_the_newest_item_wins_and_the_others_are_counted() -> None:
    box: Mailbox[int] = Mailbox()
    for item in range(5):
        box.put(item)
    assert box.take(0) == 4
    assert box.dropped == 4
    assert box.take(0) is None


def test_the_last_item_can_be_taken_after_closing() -> None:
    box: Mailbox[int] = Mailbox()
    box.put(1)
    box.close()
    assert not box.drained
    assert box.take(0) == 1
    assert box.drained


def test_a_waiting_reader_wakes_up_for_an_item_and_for_closing() -> None:
    box: Mailbox[int] = Mailbox()
    for act, expected in ((lambda: box.put(7), 7), (box.close, None)):
        timer = threading.Timer(0.05, act)
        started = time.monotonic()
        timer.start()
        assert box.take(10.0) == expected
        assert time.monotonic() - started < 5.0
        timer.join()
