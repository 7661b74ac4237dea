"""Processes: starting our own programs, and what signals do for a while."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_START_TIMEOUT_S = 30.0
Handler = Callable[[int, FrameType | None], object]


def command_of(module: str, *arguments: object) -> list[str]:
    """Command line that runs one of our modules in a process of its own.

    Python's `-m` alone looks into the current folder first: a `deploy/`, a `numpy.py` there would
    run in place of ours. `-P` leaves that folder out.
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def start_companion(
    module: str, job: dict[str, Any], handles: tuple[int, ...], *, stderr: int | None = None
) -> "subprocess.Popen[str]":
    """Start one of our modules beside this process, and tell it its job.

    In a session of its own: Ctrl-C in the terminal is for us alone. Its standard input stays open:
    the end of it tells of ours.

    Args:
        module: what runs.
        job: goes to its standard input as a line of JSON.
        handles: open files it shares with us.
        stderr: as `subprocess` has it.
    """
    companion = subprocess.Popen(
        command_of(module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=handles,
        start_new_session=True,
        text=True,
    )
    assert companion.stdin
    with contextlib.suppress(BrokenPipeError):
        companion.stdin.write(json.dumps(job) + "\n")
        companion.stdin.flush()
    return companion


def comes_up(companion: "subprocess.Popen[str]") -> bool:
    """Whether a companion says in time that it is ready."""
    assert companion.stdout
    begun = select.select((companion.stdout,), (), (), _START_TIMEOUT_S)[0]
    return bool(begun) and companion.stdout.readline() == "ready\n"


def take_job() -> dict[str, Any]:
    """In a companion: what it was started to do. Signals that end other programs do not end it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return json.loads(sys.stdin.readline())


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
