"""The board's clock as the host's, against clocks that run as a formula says."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.microcontroller.clocks import Clocks, unwrap_us


def exchange(
    clocks: Clocks, at_s: float, there_s: float, back_s: float, ahead_s: float, gains: float
) -> None:
    """One request at `at_s`, answered at once, between clocks of which one gains."""

    def board_us(host_s: float) -> int:
        return int((host_s * (1 + gains) + ahead_s) * 1e6) % 2**32

    heard_s = at_s + there_s
    clocks.add(at_s, board_us(heard_s), board_us(heard_s + 1e-4), heard_s + 1e-4 + back_s)


def test_with_equal_ways_the_offset_is_exact() -> None:
    clocks = Clocks()
    exchange(clocks, 100.0, 0.002, 0.002, ahead_s=12.5, gains=0.0)
    assert clocks.offset_s == pytest.approx(12.5, abs=2e-6)
    # 103.1 s here is 115.6 s there
    assert clocks.host_s(115_600_000) == pytest.approx(103.1, abs=2e-6)


def test_before_any_exchange_no_time_is_known() -> None:
    assert math.isnan(Clocks().host_s(1000))


@pytest.mark.parametrize("gains", [50e-6, -100e-6])
def test_drift_is_found_under_jitter(gains: float) -> None:
    """A crystal is good to 50 ppm, a ceramic resonator is worse; USB adds up to 1 ms, one way."""
    clocks, rng = Clocks(), random.Random(3)
    for tick in range(3000):  # a minute at 50 Hz
        exchange(
            clocks,
            20.0 + 0.02 * tick,
            0.2e-3 + rng.expovariate(2000),
            0.2e-3 + rng.random() * 1e-3,
            ahead_s=-3.0,
            gains=gains,
        )
    assert clocks.drift == pytest.approx(gains, abs=3e-6)
    late_s = 79.9
    board_us = int((late_s * (1 + gains) - 3.0) * 1e6)
    assert clocks.host_s(board_us) == pytest.approx(late_s, abs=1e-4)


def test_the_boards_clock_may_wrap() -> None:
    """After 71.6 minutes 32 bits start again at 0."""
    clocks = Clocks()
    ahead_s = 2**32 / 1e6 - 2.0
    for tick in range(40):
        exchange(clocks, 0.1 * tick, 1e-3, 1e-3, ahead_s=ahead_s, gains=0.0)
    assert clocks.offset_s == pytest.approx(ahead_s, abs=1e-5)
    assert clocks.host_s(int(1.5e6)) == pytest.approx(3.5, abs=1e-5)


@given(near=st.integers(0, 2**40), ahead=st.integers(-(2**31) + 1, 2**31 - 1))
def test_unwrapping_gives_back_the_nearest_time(near: int, ahead: int) -> None:
    assert unwrap_us((near + ahead) % 2**32, near) == near + ahead
