"""A picture that is made once, by whoever asks first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.later import LaterPicture

IMAGE = np.zeros((2, 2, 3), np.uint8)


def test_it_is_made_once_and_the_others_wait_for_it():
    made, may_go_on = [], threading.Event()

    def make():
        made.append(threading.get_ident())
        assert may_go_on.wait(30)
        return IMAGE

    picture = LaterPicture(make, threading.RLock())
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(picture) for _ in range(3)]
        may_go_on.set()
        assert all(future.result(30) is IMAGE for future in asked)
    assert len(made) == 1


def test_one_lock_makes_one_picture_at_a_time_and_one_may_need_another():
    lock = threading.RLock()
    first = LaterPicture(lambda: IMAGE, lock)
    assert LaterPicture(first, lock)() is IMAGE


def test_what_its_making_raises_everyone_gets():
    picture = LaterPicture(lambda: 1 / 0, threading.RLock())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            picture()
    assert picture.if_any() is None
