"""Commands drawn as in training."""

import numpy as np

from deploy.commands.source import Command, CommandSource
from deploy.contract import CommandSpec


def random_commands(spec: CommandSpec, seed: int) -> CommandSource:
    """Uniform in the range, each for a random while."""
    generator = np.random.default_rng(seed)
    command = np.array(spec.low, np.float32)
    until_s = -np.inf

    def source(time_s: float) -> Command:
        nonlocal command, until_s
        if time_s >= until_s:
            command = generator.uniform(spec.low, spec.high).astype(np.float32)
            until_s = time_s + generator.uniform(*spec.interval_s)
        return command

    return source
