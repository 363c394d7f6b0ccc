"""Ends asked for from outside: whoever tells of them, the status is that of the first signal."""

import os
import signal
from collections.abc import Callable

import pytest

from sahub.compute.signals import Stopped, stoppable


def plain() -> None:
    raise KeyboardInterrupt


def told() -> None:
    raise Stopped(signal.SIGTERM)


def swallowed() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Stopped:
        raise KeyboardInterrupt from None


def twice() -> None:
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    except Stopped:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("end", "status"), [(plain, 130), (told, 143), (swallowed, 143), (twice, 129)])
def test_the_status_is_that_of_the_first_signal(end: Callable[[], None], status: int) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite under nohup has it ignored
    try:
        with pytest.raises(Stopped) as caught, stoppable():
            end()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert caught.value.status == status
