"""Commands drawn as in training."""

import numpy as np

from deploy.commands.source import Command, CommandSource
from deploy.contract import CommandSpec

STAND_S = 2.0
"""A robot on legs stands for so long before it is sent anywhere: somebody may still hold it."""


def random_commands(spec: CommandSpec, seed: int) -> CommandSource:
    """Uniform in the range, each for a random while.

    What commands a velocity begins with the slowest, see `STAND_S`.
    """
    generator = np.random.default_rng(seed)
    command = np.clip(np.zeros(len(spec.low)), spec.low, spec.high).astype(np.float32)
    until_s = STAND_S if spec.name == "velocity" else -np.inf

    def source(time_s: float) -> Command:
        nonlocal command, until_s
        if time_s >= until_s:
            command = generator.uniform(spec.low, spec.high).astype(np.float32)
            until_s = time_s + generator.uniform(*spec.interval_s)
        return command

    return source
