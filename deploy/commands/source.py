"""What every source of commands is, and what they share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.contract import CommandSpec
from deploy.errors import ConfigError

Command = NDArray[np.float32]


class CommandSource(Protocol):
    """The command for now, within what the policy promises.

    It is called at every tick, also while the robot ramps or waits: a source that carries requests
    takes them then. It never waits, and what it raises stops the robot.
    """

    def __call__(self, time_s: float, /) -> Command:
        """The command (n,) at `time_s`, the time the policy has run."""
        ...


def neutral(spec: CommandSpec) -> Command:
    """Zero, or the nearest to it within the range; the middle of a range for points to reach."""
    low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
    middle = (low + high) / 2 if spec.site else np.clip(np.zeros_like(low), low, high)
    return middle.astype(np.float32)


def within(spec: CommandSpec, command: Command) -> Command:
    """`command` (n,), as far as the policy promises."""
    return np.clip(command, np.array(spec.low, np.float32), np.array(spec.high, np.float32))


def from_sticks(spec: CommandSpec, sticks: list[float]) -> Command:
    """Sticks from -1 to 1 over the whole range, the middle of a stick being `neutral`."""
    low, middle, high = np.array(spec.low), neutral(spec), np.array(spec.high)
    reach = np.zeros(len(middle))
    reach[: len(sticks)] = sticks[: len(middle)]
    command = np.where(reach < 0, middle + reach * (middle - low), middle + reach * (high - middle))
    return command.astype(np.float32)


def check(spec: CommandSpec, values: list[float]) -> Command:
    """`values` as a command.

    Raises:
        ConfigError: they are not of the size or within the range that the policy promises.
    """
    if len(values) != len(spec.low):
        raise ConfigError(
            f"command {spec.name!r} takes {len(spec.low)} numbers ({describe(spec)}), found "
            f"{len(values)}: {values}"
        )
    for value, low, high in zip(values, spec.low, spec.high, strict=True):
        if not low <= value <= high:
            raise ConfigError(
                f"command {spec.name!r} {values} is outside what the policy promises: "
                f"{spec.low} to {spec.high} ({describe(spec)})"
            )
    return np.array(values, np.float32)


def describe(spec: CommandSpec) -> str:
    """Elements and units, e.g. `x [m/s], yaw [rad/s]`."""
    pairs = zip(spec.elements, spec.units, strict=True)
    return ", ".join(f"{element} [{unit}]" for element, unit in pairs)
