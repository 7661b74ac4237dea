"""How long replies take: the histogram beside numpy, and a latency that follows what is seen."""

import numpy as np
import pytest

from deploy.servos.reply_times import (
    DECAY,
    MARGIN_S,
    ReplyTimes,
    followed_latency,
    measured_latency,
)


def test_quantiles_are_numpys_to_a_tenth_of_a_millisecond():
    durations = np.random.default_rng(0).gamma(4.0, 0.001, 5000)
    times = ReplyTimes()
    for duration in durations:
        times.add(duration)
    for share in (0.01, 0.5, 0.99):
        expected = np.quantile(durations, share, method="inverted_cdf")
        assert times.quantile(share) == pytest.approx(expected, abs=1.01e-4)
        assert times.quantile(share) >= expected - 1e-12
    assert times.max_s == durations.max()


def test_summary_names_median_p99_and_maximum():
    times = ReplyTimes()
    for duration_s in [0.00255] * 98 + [0.0041, 0.25]:
        times.add(duration_s)
    assert str(times) == "2.6 ms (median), 4.2 (p99), 250.0 (max)"


def test_nothing_counted_is_no_time():
    assert ReplyTimes().quantile(0.5) == 0.0


def test_a_tenth_of_the_pings_may_have_met_a_hiccup():
    assert measured_latency([0.001] * 44 + [0.002] + [0.1] * 4) == (0.001, 0.001)
    assert measured_latency([0.001] * 7 + [0.1]) == (0.001, 0.001)
    assert measured_latency([0.016] * 48) == (0.016, 0.016)
    assert measured_latency([0.3, 0.001, 0.2, 0.002, -0.001]) == (0.002, 0.2)


def test_latency_grows_at_once_and_shrinks_slowly():
    grown = followed_latency(0.002, 0.008)
    assert grown == 0.008 + MARGIN_S
    shrunk = grown
    for _ in range(140):
        shrunk = followed_latency(shrunk, 0.001)
    half = 0.001 + MARGIN_S + (grown - 0.001 - MARGIN_S) / 2
    assert shrunk == pytest.approx(half, rel=0.02)
    assert pytest.approx(0.5, rel=0.02) == (1 - DECAY) ** 140


def test_reply_faster_than_the_wire_is_no_negative_latency():
    assert followed_latency(0.0, -0.01) == MARGIN_S
