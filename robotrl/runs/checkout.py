"""Which version of this program runs."""

import subprocess
from pathlib import Path

UNKNOWN = "unknown"
"""What stands for a commit where there is none."""


def git_commit() -> str:
    """The commit of the checkout that this package runs from, with `-dirty` if it has changes.

    `unknown` for an installed package, also one below somebody else's repository.
    """
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return UNKNOWN
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return done.stdout.strip()
