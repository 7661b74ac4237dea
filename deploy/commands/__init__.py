"""Where a policy's command comes from while it runs: one file each, all of them `CommandSource`s.

    with open_commands("keyboard", contract.command, requests) as source:
        command = source(time_s)             # (n,), at every tick; never waits

`fixed`, `random_commands`, `schedule` (a file), `keyboard`, `gamepad`, `udp`. The last three also
carry requests (stop, pause, resume, finish), so the emergency stop is at hand.
"""

from deploy.commands.choice import open_commands as open_commands
from deploy.commands.fixed import fixed_command as fixed_command
from deploy.commands.random_commands import random_commands as random_commands
from deploy.commands.source import CommandSource as CommandSource
