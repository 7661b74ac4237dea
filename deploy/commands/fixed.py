"""Always the same command."""

from deploy.commands.source import CommandSource, check
from deploy.contract import CommandSpec


def fixed_command(spec: CommandSpec, values: list[float]) -> CommandSource:
    """Always the same command.

    Raises:
        ConfigError: it is not of the size or within the range that the policy promises.
    """
    command = check(spec, values)
    return lambda time_s: command
