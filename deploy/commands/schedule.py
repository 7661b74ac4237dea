"""Commands from a file, each from its time on until the next: YAML, or CSV from any spreadsheet.

    commands:                                    time_s,vx,vy,yaw
      - {at_s: 0.0, command: [0.3, 0.0, 0.0]}    0.0,0.3,0.0,0.0
      - {at_s: 4.0, command: {yaw: 0.5}}         4.0,0.0,0.0,0.5

Elements that a YAML line does not name are zero. Everything is checked before the robot moves.
"""

import csv
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import Field

from deploy.commands.source import CommandSource, check
from deploy.configuration import MAX_BYTES, Section, did_you_mean, load_yaml, read_bytes
from deploy.contract import CommandSpec, CommandValue
from deploy.errors import ConfigError
from deploy.quantities import Name

AtS = Annotated[float, Field(ge=0, le=100_000)]
TIME = "time_s"
"""Column of a CSV."""


class Row(Section):
    """One command."""

    at_s: AtS
    """From when it holds, of the time the policy has run."""
    command: list[CommandValue] | dict[Name, CommandValue]
    """All its numbers, or some by name."""


class Schedule(Section):
    """A file of commands."""

    commands: Annotated[list[Row], Field(min_length=1)]
    """In order of time; the first begins at 0."""


def schedule(spec: CommandSpec, path: Path) -> CommandSource:
    """What a file says.

    Raises:
        ConfigError: names the file, the line and what is wrong with it.
    """
    rows = _read_csv(path) if path.suffix == ".csv" else load_yaml(path, Schedule).commands
    times = [row.at_s for row in rows]
    if times[0] != 0 or any(later <= earlier for earlier, later in pairwise(times)):
        raise ConfigError(
            f"{path}: commands must begin at 0 s, each later than the one before it; found the "
            f"times {times[:20]}"
        )
    commands = []
    for row in rows:
        try:
            commands.append(check(spec, _values(spec, row)))
        except ConfigError as error:
            raise ConfigError(f"{path}: at {row.at_s:g} s: {error}") from error
    return lambda time_s: commands[max(0, bisect_right(times, time_s) - 1)]


def _values(spec: CommandSpec, row: Row) -> list[float]:
    if isinstance(row.command, list):
        return row.command
    for name in row.command:
        if name not in spec.elements:
            raise ConfigError(
                f"{name!r} is no element of command {spec.name!r}"
                f"{did_you_mean(name, spec.elements)}; it has {', '.join(spec.elements)}"
            )
    return [row.command.get(name, 0.0) for name in spec.elements]


def _read_csv(path: Path) -> list[Row]:
    lines = read_bytes(path, MAX_BYTES, ConfigError).decode(errors="replace").splitlines()
    rows = []
    for number, row in enumerate(csv.DictReader(lines, strict=True), start=2):
        try:
            values = {str(name).strip(): float(value) for name, value in row.items()}
            rows.append(Row(at_s=values.pop(TIME), command=values))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: line {number}: expected numbers below a header such as "
                f"`{TIME},vx,vy,yaw`, found {row} ({error.__class__.__name__}: {error})"
            ) from error
    if not rows:
        raise ConfigError(f"{path}: has no commands; expected a header and a line for each")
    return rows
