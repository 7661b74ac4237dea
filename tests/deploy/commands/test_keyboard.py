import os
import termios
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.commands.keyboard import keyboard
from deploy.commands.source import CommandSource
from deploy.errors import ConfigError
from deploy.state import Requests
from tests.deploy.commands.test_schedule import TWIST


@dataclass
class Terminal:
    """A terminal, its keys, and what reads them."""

    keys: int
    terminal: int
    requests: Requests
    source: CommandSource | None = None

    def press(self, keys: str) -> list[float]:
        """The command afterwards."""
        assert self.source is not None
        self.source(0.0)  # listens from the first tick on
        os.write(self.keys, keys.encode())
        return self.source(0.0).tolist()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    keys, end = os.openpty()
    found = Terminal(keys, end, Requests())
    with keyboard(TWIST, found.requests, end) as found.source:
        yield found
    os.close(keys)
    os.close(end)


def test_keys_move_each_element_by_a_tenth_of_its_range(terminal: Terminal):
    assert terminal.press("ww") == pytest.approx([0.2, 0.0, 0.0])
    assert terminal.press("sdq") == pytest.approx([0.1, -0.04, 0.2])


def test_command_stays_within_what_was_trained(terminal: Terminal):
    assert terminal.press("w" * 30 + "d" * 30) == pytest.approx([0.5, -0.2, 0.0])


def test_zero_is_neutral(terminal: Terminal):
    assert terminal.press("wwq0") == [0.0, 0.0, 0.0]


def test_keys_of_other_elements_do_nothing(terminal: Terminal):
    assert terminal.press("rfzZ\x1b[A") == [0.0, 0.0, 0.0]


def test_space_stops(terminal: Terminal):
    terminal.press(" p")
    assert terminal.requests.stopped == "the space bar was pressed"


def test_p_pauses_and_goes_on(terminal: Terminal):
    terminal.press("p")
    assert terminal.requests.paused
    terminal.press("p")
    assert not terminal.requests.paused


def test_enter_ends(terminal: Terminal):
    terminal.press("\n")
    assert terminal.requests.finished


def test_terminal_that_is_closed_stops_the_robot():
    keys, end = os.openpty()
    requests = Requests()
    with keyboard(TWIST, requests, end) as source:
        source(0.0)
        os.close(keys)
        source(0.0)
    os.close(end)
    assert requests.stopped == "the terminal is gone"


def test_terminal_is_left_as_it_was_and_untouched_until_the_robot_is_driven():
    keys, end = os.openpty()
    before = termios.tcgetattr(end)
    with keyboard(TWIST, Requests(), end) as source:
        assert termios.tcgetattr(end) == before
        source(0.0)
        assert not termios.tcgetattr(end)[3] & termios.ICANON
    assert termios.tcgetattr(end) == before
    os.close(keys)
    os.close(end)


def test_pipe_is_no_keyboard():
    read, write = os.pipe()
    with (
        pytest.raises(ConfigError, match="standard input is no terminal"),
        keyboard(TWIST, Requests(), read),
    ):
        pass
    os.close(read)
    os.close(write)
