"""Ends asked for from outside: Ctrl-C, `kill`, a closed terminal. All of them let go of what was started."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_asked: list[int] = []  # numbers of the signals that asked this process to end


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.status = 128 + number  # the exit status that shells know


def asked_to_stop() -> bool:
    """Whether SIGTERM or SIGHUP came: libraries make a plain KeyboardInterrupt of what is raised then."""
    return bool(_asked)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this, SIGTERM and SIGHUP end the run as Ctrl-C does, unless whoever started it has them ignored.

    Raises Stopped for all of them, with the status of the first.
    """

    def stop(number: int, frame: object) -> None:
        _asked.append(number)
        raise Stopped(number)

    caught = [one for one in _ENDS[1:] if _here() and signal.getsignal(one) == signal.SIG_DFL]
    for one in caught:
        signal.signal(one, stop)
    try:
        yield
    except KeyboardInterrupt as end:
        alone = end.number if isinstance(end, Stopped) else signal.SIGINT  # told by somebody else's handler
        raise Stopped(_asked[0] if _asked else alone) from None
    finally:
        for one in caught:
            signal.signal(one, signal.SIG_DFL)
        _asked.clear()


@contextmanager
def deaf() -> Iterator[None]:
    """Within this, which must be short, signals that ask for an end are ignored: it has come already."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in _ENDS} if _here() else {}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, signal.SIG_DFL if handler is None else handler)


def _here() -> bool:
    """Whether this is the thread that signals are delivered to."""
    return threading.current_thread() is threading.main_thread()
