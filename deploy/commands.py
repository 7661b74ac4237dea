"""Where the policy's command comes from while it runs: one fixed command, or random ones.

A source is called with the time since the policy started and returns the command (n,) for now.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deploy.contract import CommandSpec
from deploy.errors import ConfigError

STAND_S = 2.0
"""A robot on legs stands for so long before it is sent anywhere: somebody may still hold it."""

CommandSource = Callable[[float], NDArray[np.float32]]


def fixed_command(spec: CommandSpec, values: list[float]) -> CommandSource:
    """Always the same command.

    Raises:
        ConfigError: it is not of the size or within the range the policy was trained on.
    """
    if len(values) != len(spec.low):
        raise ConfigError(
            f"command {spec.name!r} takes {len(spec.low)} numbers ({_describe(spec)}), found "
            f"{len(values)}: {values}"
        )
    for value, low, high in zip(values, spec.low, spec.high, strict=True):
        if not low <= value <= high:
            raise ConfigError(
                f"command {spec.name!r} {values} is outside what the policy was trained on: "
                f"{spec.low} to {spec.high} ({_describe(spec)})"
            )
    command = np.array(values, np.float32)
    return lambda time_s: command


def random_commands(spec: CommandSpec, seed: int) -> CommandSource:
    """Commands drawn as in training: uniform in the range, each for a random while.

    What commands a velocity begins with the slowest, see `STAND_S`.
    """
    generator = np.random.default_rng(seed)
    command = np.clip(np.zeros(len(spec.low)), spec.low, spec.high).astype(np.float32)
    until_s = STAND_S if spec.name == "velocity" else -np.inf

    def source(time_s: float) -> NDArray[np.float32]:
        nonlocal command, until_s
        if time_s >= until_s:
            command = generator.uniform(spec.low, spec.high).astype(np.float32)
            until_s = time_s + generator.uniform(*spec.interval_s)
        return command

    return source


def _describe(spec: CommandSpec) -> str:
    """Elements and units, e.g. `x [m/s], yaw [rad/s]`."""
    pairs = zip(spec.elements, spec.units, strict=True)
    return ", ".join(f"{element} [{unit}]" for element, unit in pairs)
