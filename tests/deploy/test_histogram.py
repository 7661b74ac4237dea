import tracemalloc

import numpy as np
import pytest

from deploy.histogram import BINS_PER_OCTAVE, Histogram, StageTimes


@pytest.mark.parametrize("scale_s", [2e-6, 3e-4, 0.05])
def test_quantiles_are_those_of_the_sorted_durations_to_a_bin(scale_s: float):
    durations = np.random.default_rng(0).lognormal(0.0, 1.0, 20_000) * scale_s
    histogram = Histogram()
    for duration_s in durations:
        histogram.add(float(duration_s))
    for share in (0.5, 0.99, 0.999):
        exact = float(np.quantile(durations, share, method="inverted_cdf"))
        assert max(exact, 1e-6) * (1 - 1e-9) <= histogram.quantile(share)
        assert histogram.quantile(share) <= max(exact, 1e-6) * 2 ** (1 / BINS_PER_OCTAVE) + 1e-12
    assert histogram.quantile(1.0) == histogram.max_s == durations.max()


def test_empty_histogram_has_no_durations():
    assert (Histogram().quantile(0.5), Histogram().max_s) == (0.0, 0.0)


@pytest.mark.parametrize("duration_s", [-1.0, 0.0, 1e-9, 1e-6, 17.0, 1e9])
def test_any_duration_is_counted(duration_s: float):
    histogram = Histogram()
    histogram.add(duration_s)
    assert histogram.count == 1
    assert histogram.quantile(0.5) <= max(duration_s, 1e-6)


def test_a_hundred_short_ones_and_a_long_one_are_told_apart():
    times = StageTimes()
    for _ in range(100):
        times.add("read", 0.002)
    times.add("read", 0.5)
    times.add("write", 0.0001)
    read, write = str(times).splitlines()
    assert read.split() == ["read", "p50", "2.004", "p99", "2.004", "p99.9", "500.000",
                            "max", "500.000", "ms"]  # fmt: skip
    assert write.startswith("write      p50  0.100")


def test_adding_takes_no_memory():
    histogram = Histogram()
    for _ in range(1000):
        histogram.add(0.001)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(1000):
        histogram.add(0.001)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 500
