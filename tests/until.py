"""What happens in real time happens late on a busy machine: ask for a fact, not for a moment."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 100.0
"""For what another process does. Only what never happens takes so long; a test may take 240 s."""
T = TypeVar("T")


def until(fact: Callable[[], T], despite: type[Exception] | tuple[()] = ()) -> T:
    """What `fact` says as soon as it is true; `despite` errors it is asked again."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if found := fact():
                return found
        except despite:
            if time.monotonic() > give_up_s:
                raise
        assert time.monotonic() < give_up_s, f"not within {PATIENCE_S:g} s"
        time.sleep(0.01)
