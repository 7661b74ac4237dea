"""Start our own programs: what runs is what was installed, whatever lies in the current folder."""

import sys


def command_of(module: str, *arguments: object) -> list[str]:
    """Command line that runs one of our modules in a process of its own.

    Python's `-m` alone looks into the current folder first: a `deploy/`, a `numpy.py` there would
    run in place of ours. `-P` leaves that folder out.
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]
