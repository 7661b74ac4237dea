"""How long replies take, and how long to wait for one.

A reply takes its time on the wire, which is known, and what adapter, operating system and this
process add: the latency. An FTDI adapter alone may hold a reply for its latency timer, 16 ms unless
it is set lower. So the latency is measured when the robot is connected, and followed afterwards.
"""

import math

import numpy as np

MARGIN_S = 0.0005
"""Waited beyond the latency measured: one thread's turn on a machine that is not busy."""
MEASURED_SHARE = 0.9
"""Replies are awaited as long as so many pings took: a tenth of them may have met a hiccup. An
adapter is judged by the median, because a machine that is busy at the moment is not its fault."""
DECAY = 0.005
"""Part of the surplus given up after each good reply: half of it in 140 replies."""
_BIN_S = 1e-4
_BINS = 1000


class ReplyTimes:
    """Durations in a histogram of 0.1 ms up to 100 ms: nothing of it allocates an array."""

    def __init__(self) -> None:
        self._counts, self._up_to = np.zeros((2, _BINS), np.int64)
        self._tally = memoryview(self._counts.data)  # half the time of an array's items
        self.max_s = 0.0
        """The longest [s]."""

    def add(self, duration_s: float) -> None:
        """Count one."""
        self._tally[min(int(duration_s / _BIN_S), _BINS - 1)] += 1
        if duration_s > self.max_s:
            self.max_s = duration_s

    def include(self, other: "ReplyTimes") -> None:
        """Count those of another as well."""
        self._counts += other._counts
        self.max_s = max(self.max_s, other.max_s)

    def quantile(self, share: float) -> float:
        """Duration [s] that `share` of them do not exceed, to 0.1 ms; 0 if there were none."""
        counts = self._counts.cumsum(out=self._up_to)
        if not (count := int(counts[-1])):
            return 0.0
        wanted = math.ceil(share * count)  # a fraction would make floats of all of them
        upper_edge = (1 + int(counts.searchsorted(wanted))) * _BIN_S
        return min(upper_edge, self.max_s)

    def __str__(self) -> str:
        median, p99 = self.quantile(0.5) * 1e3, self.quantile(0.99) * 1e3
        return f"{median:.1f} ms (median), {p99:.1f} (p99), {self.max_s * 1e3:.1f} (max)"


def measured_latency(samples_s: list[float]) -> tuple[float, float]:
    """Median and `MEASURED_SHARE` of the latencies [s] that pings showed, less the wire's time."""
    ordered = sorted(max(0.0, sample_s) for sample_s in samples_s)
    last = len(ordered) - 1
    return ordered[last // 2], ordered[int(MEASURED_SHARE * last)]


def followed_latency(latency_s: float, sample_s: float) -> float:
    """The latency to reckon with [s] after one more was seen: up at once, down slowly."""
    enough_s = sample_s + MARGIN_S if sample_s > 0 else MARGIN_S
    surplus_s = latency_s - enough_s
    return latency_s - DECAY * surplus_s if surplus_s > 0 else enough_s
