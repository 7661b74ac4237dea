"""Deadlines are absolute: what a late tick costs is paid once."""

import time

import numpy as np
import pytest

from deploy.clock import MonotonicClock, Ticker, VirtualClock
from tests.until import PATIENCE_S

PERIOD_S = 0.02


class LateClock:
    """Time that moves when told to; a sleep ends `oversleep_s` late."""

    def __init__(self, now_s: float = 0.0):
        self.now_s = now_s
        self.oversleep_s = 0.0

    def now(self) -> float:
        return self.now_s

    def sleep_until(self, time_s: float) -> None:
        if time_s > self.now_s:
            self.now_s = time_s + self.oversleep_s


@pytest.fixture
def clock() -> LateClock:
    return LateClock(100.0)


@pytest.fixture
def ticker(clock: LateClock) -> Ticker:
    return Ticker(clock, PERIOD_S)


def test_nothing_is_overdue_at_the_start(ticker: Ticker):
    assert (ticker.overruns, ticker.consecutive_overruns) == (0, 0)


def test_first_tick_is_one_period_after_the_start(clock: LateClock, ticker: Ticker):
    assert ticker.wait() == pytest.approx((100.02, 0.0))
    assert clock.now() == pytest.approx(100.02)


def test_work_within_the_period_does_not_shift_the_next_tick(clock: LateClock, ticker: Ticker):
    deadlines = []
    for work_s in (0.001, 0.019, 0.007):
        clock.now_s += work_s
        deadlines.append(ticker.wait()[0])
    assert deadlines == pytest.approx([100.02, 100.04, 100.06])
    assert ticker.overruns == 0


def test_oversleep_is_not_carried_over(clock: LateClock, ticker: Ticker):
    clock.oversleep_s = 0.003
    ticks = [ticker.wait() for _ in range(1000)]
    assert ticks[-1] == pytest.approx((120.0, 0.003))
    assert clock.now() == pytest.approx(120.003)


def test_small_lateness_is_caught_up_and_counts_as_no_overrun(clock: LateClock, ticker: Ticker):
    clock.now_s += 0.0249  # a tick due at 20 ms starts 4.9 ms late, a quarter of a period is 5 ms
    assert ticker.wait() == pytest.approx((100.02, 0.0049))
    assert clock.now() == pytest.approx(100.0249)
    assert ticker.wait() == pytest.approx((100.04, 0.0))
    assert (ticker.overruns, ticker.consecutive_overruns) == (0, 0)


def test_tick_that_is_too_late_gives_way_to_the_next(clock: LateClock, ticker: Ticker):
    clock.now_s += 0.0251
    assert ticker.wait() == pytest.approx((100.04, 0.0))
    assert (ticker.overruns, ticker.consecutive_overruns) == (1, 1)


def test_tick_that_slept_too_long_is_not_followed_at_once(clock: LateClock, ticker: Ticker):
    clock.oversleep_s = 0.018
    assert ticker.wait() == pytest.approx((100.02, 0.018))
    clock.oversleep_s = 0.0
    assert ticker.wait() == pytest.approx((100.06, 0.0))  # not at 100.04, 2 ms later


def test_ticks_never_come_closer_than_three_quarters_of_a_period(clock: LateClock, ticker: Ticker):
    random, starts = np.random.default_rng(0), []
    for _ in range(2000):
        clock.now_s += random.choice([0.0, 0.003, 0.015, 0.019, 0.024, 0.05, 0.3])
        clock.oversleep_s = random.choice([0.0, 0.001, 0.012, 0.1])
        deadline_s, late_s = ticker.wait()
        starts.append(deadline_s + late_s)
        assert starts[-1] == pytest.approx(clock.now())
    assert np.diff(starts).min() >= 0.75 * PERIOD_S - 1e-9


def test_missed_deadlines_are_skipped_instead_of_run_in_a_burst(clock: LateClock, ticker: Ticker):
    clock.now_s += 0.095  # deadlines at 20, 40, 60 and 80 ms have passed
    deadline_s, _ = ticker.wait()
    assert deadline_s == pytest.approx(100.10)
    assert clock.now() == pytest.approx(100.10)
    assert ticker.overruns == 4


def test_overruns_add_up(clock: LateClock, ticker: Ticker):
    clock.now_s += 0.095  # misses 20, 40, 60 and 80 ms
    ticker.wait()
    clock.now_s += 0.055  # misses 120 and 140 ms
    ticker.wait()
    assert ticker.overruns == 4 + 2


def test_lateness_is_counted_from_the_deadline_that_is_returned(clock: LateClock, ticker: Ticker):
    clock.now_s += 0.095
    deadline_s, late_s = ticker.wait()
    assert deadline_s + late_s == pytest.approx(clock.now())


def test_consecutive_overruns_count_ticks_and_end_with_the_first_punctual_one(
    clock: LateClock, ticker: Ticker
):
    for expected in (1, 2, 3):
        clock.now_s += 2.5 * PERIOD_S
        ticker.wait()
        assert ticker.consecutive_overruns == expected

    ticker.wait()
    assert ticker.consecutive_overruns == 0


def test_machine_clock_sleeps_until_the_deadline():
    clock = MonotonicClock()
    deadline_s = clock.now() + 0.01
    clock.sleep_until(deadline_s)
    assert deadline_s <= time.monotonic() < deadline_s + PATIENCE_S


def test_machine_clock_returns_at_once_when_the_deadline_has_passed():
    clock = MonotonicClock()
    started_s = time.monotonic()
    clock.sleep_until(started_s - 2 * PATIENCE_S)
    assert time.monotonic() - started_s < PATIENCE_S


def test_virtual_clock_moves_only_when_somebody_waits():
    clock = VirtualClock(3.0)
    assert clock.now() == clock.now() == 3.0
    clock.sleep_until(3.5)
    assert clock.now() == 3.5
    clock.sleep_until(3.2)
    assert clock.now() == 3.5


def test_virtual_clock_starts_at_zero():
    assert VirtualClock().now() == 0.0
