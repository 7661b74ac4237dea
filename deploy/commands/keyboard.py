"""The terminal's keys: each press moves an element of the command by a tenth of its range.

    w s   the first element up and down      space   stop at once, in the safe state
    a d   the second                         p       pause, and go on
    q e   the third (then r f, t g, y h)     Enter   end as planned
    0     back to neutral

Keys are read only while the robot is driven, so questions before that are answered as usual.
"""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

import numpy as np

from deploy.commands.source import Command, CommandSource, neutral, within
from deploy.contract import CommandSpec
from deploy.errors import ConfigError
from deploy.state import Requests

PAIRS = ("ws", "ad", "qe", "rf", "tg", "yh")
"""Up and down, element by element."""
STEP = 0.1
"""Of an element's range, for a press."""


@contextlib.contextmanager
def keyboard(
    spec: CommandSpec, requests: Requests, terminal: int | None = None
) -> Iterator[CommandSource]:
    """Commands and requests from a terminal's file descriptor, the standard input's by default.

    Raises:
        ConfigError: it is no terminal.
    """
    terminal = _standard_input() if terminal is None else terminal
    if not os.isatty(terminal):
        raise ConfigError(
            "--command keyboard reads keys, but standard input is no terminal; start it from one, "
            "or use --command udp"
        )
    before = termios.tcgetattr(terminal)
    command, size = neutral(spec), np.subtract(spec.high, spec.low).astype(np.float32)
    listening = False

    def press(key: str) -> None:
        nonlocal command
        for row, pair in enumerate(PAIRS[: len(command)]):
            if key in pair:
                command = command.copy()
                command[row] += (STEP if key == pair[0] else -STEP) * size[row]
                command = within(spec, command)
        if key == "0":
            command = neutral(spec)
        elif key == " ":
            requests.stop("the space bar was pressed")
        elif key == "p":
            requests.paused = not requests.paused
        elif key in "\r\n":
            requests.finish()

    def source(time_s: float) -> Command:
        nonlocal listening
        if not listening:
            tty.setcbreak(terminal, termios.TCSANOW)
            listening = True
        while select.select((terminal,), (), (), 0)[0]:
            try:
                pressed = os.read(terminal, 64).decode(errors="replace")
            except OSError:  # of a terminal whose window is closed
                pressed = ""
            if not pressed:
                requests.stop("the terminal is gone")
                break
            for key in pressed:
                press(key)
        return command

    try:
        yield source
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, before)


def _standard_input() -> int:
    """Its file descriptor; -1 where a program has put something else in its place."""
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):
        return -1
