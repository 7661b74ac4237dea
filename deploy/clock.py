"""Time as an argument: the same loop runs on a real robot and, in virtual time, in a test."""

import math
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds on a monotonic scale."""

    def now(self) -> float:
        """The time [s]."""
        ...

    def sleep_until(self, time_s: float) -> None:
        """Return at `time_s`, or at once if that is past."""
        ...


class MonotonicClock:
    """The machine's monotonic clock.

    Args:
        spin_s: how much of the end of a wait is spent looking at the clock instead of asleep: what
            a sleep ends too late costs processor time then, and not punctuality.
    """

    def __init__(self, spin_s: float = 0.0):
        self._spin_s = spin_s

    def now(self) -> float:
        """The time [s]."""
        return time.monotonic()

    def sleep_until(self, time_s: float) -> None:
        """Return at `time_s`, or at once if that is past."""
        remaining = time_s - self._spin_s - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)
        while self._spin_s and time.monotonic() < time_s:
            pass


class VirtualClock:
    """Time that moves when told to."""

    def __init__(self, now_s: float = 0.0):
        """Start at `now_s`."""
        self._now_s = now_s

    def now(self) -> float:
        """The time [s]."""
        return self._now_s

    def sleep_until(self, time_s: float) -> None:
        """Let time pass; one that lies behind changes nothing."""
        self._now_s = max(self._now_s, time_s)


CATCH_UP = 0.25
"""Lateness, in periods, that is made up for by the next tick."""


class Ticker:
    """Absolute deadlines: an oversleep is never carried into the next tick.

    A tick that would start more than `CATCH_UP` of a period late, or that much too soon after the
    one before it, is skipped: two targets sent at nearly the same time would make a joint twice as
    fast.

    Args:
        clock: where time comes from.
        period_s: time between ticks.
    """

    def __init__(self, clock: Clock, period_s: float):
        self._clock, self._period_s = clock, period_s
        self.deadline_s = self._started_s = clock.now()
        """Deadline of the latest tick."""
        self.consecutive_overruns = 0
        """Deadlines missed in a row, now."""
        self.overruns = 0
        """Deadlines missed since the start."""

    def wait(self) -> tuple[float, float]:
        """Sleep until the next tick.

        Returns:
            The tick's deadline and how late it started [s].
        """
        self.deadline_s += self._period_s
        earliest_s = max(self._clock.now(), self._started_s + self._period_s)
        missed = math.ceil((earliest_s - self.deadline_s) / self._period_s - CATCH_UP)
        if missed > 0:
            self.deadline_s += missed * self._period_s
            self.overruns += missed
            self.consecutive_overruns += 1
        else:
            self.consecutive_overruns = 0
        self._clock.sleep_until(self.deadline_s)
        self._started_s = self._clock.now()
        return self.deadline_s, self._started_s - self.deadline_s
