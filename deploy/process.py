"""Processes: starting our own programs, and what signals do for a while."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def command_of(module: str, *arguments: object) -> list[str]:
    """Command line that runs one of our modules in a process of its own.

    Python's `-m` alone looks into the current folder first: a `deploy/`, a `numpy.py` there would
    run in place of ours. `-P` leaves that folder out.
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


@contextlib.contextmanager
def handling(handler: Handler | signal.Handlers, *numbers: signal.Signals) -> Iterator[None]:
    """Signals are handled so in the block; outside the main thread nothing changes."""
    main = threading.current_thread() is threading.main_thread()  # which alone may say how
    previous = {number: signal.signal(number, handler) for number in numbers if main}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
