"""`robotrl run --command ...`: one text says which source."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from deploy.commands.fixed import fixed_command
from deploy.commands.gamepad import find_gamepad, gamepad
from deploy.commands.keyboard import keyboard
from deploy.commands.random_commands import random_commands
from deploy.commands.schedule import schedule
from deploy.commands.source import Command, CommandSource, describe
from deploy.commands.udp import UdpListener
from deploy.configuration import did_you_mean
from deploy.contract import CommandSpec
from deploy.errors import ConfigError
from deploy.state import Requests

NAMES = ("random", "keyboard", "gamepad", "udp")


@contextlib.contextmanager
def open_commands(
    text: str,
    spec: CommandSpec,
    requests: Requests,
    *,
    seed: int = 0,
    listener: UdpListener | None = None,
) -> Iterator[CommandSource]:
    """The source that `text` names, for as long as the block runs.

    Args:
        text: numbers such as `0.2,0,0.1`, a file's name, or one of `NAMES`.
        spec: what the policy takes.
        requests: where a source puts a stop, a pause, ...
        seed: of random commands.
        listener: is heard at every tick as well; `udp` takes its commands.

    Raises:
        ConfigError: there is no such source, or it cannot give commands to this policy.
    """
    with contextlib.ExitStack() as stack:
        name, _, place = text.partition(":")
        if name == "random":
            source = random_commands(spec, seed)
        elif name == "keyboard":
            source = stack.enter_context(keyboard(spec, requests))
        elif name == "gamepad":
            source = stack.enter_context(gamepad(spec, requests, place or find_gamepad()))
        elif name == "udp" and listener is not None:
            source = listener
        elif Path(text).suffix in (".yaml", ".yml", ".csv"):
            source = schedule(spec, Path(text))
        else:
            source = fixed_command(spec, _numbers(text, spec))
        yield source if listener in (None, source) else _both(source, listener)


def _both(source: CommandSource, listener: UdpListener) -> CommandSource:
    def heard(time_s: float) -> Command:
        listener(time_s)
        return source(time_s)

    return heard


def _numbers(text: str, spec: CommandSpec) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--command takes numbers like 0.2,0.0,0.1 ({describe(spec)}), a .yaml or .csv file, "
            f"or one of {', '.join(NAMES)}, found {text!r}{did_you_mean(text, NAMES)}"
        ) from None
