"""Ends asked for from outside: Ctrl-C, `kill`, a closed terminal. All of them let go of what was started."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.status = 128 + number  # the exit status that shells know


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this, SIGTERM and SIGHUP end the run as Ctrl-C does, unless whoever started it has them ignored."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_DFL]
    for one in asked:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in asked:
            signal.signal(one, signal.SIG_DFL)
