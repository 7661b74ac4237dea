"""How long the stages of a tick take, in histograms: adding to one takes no memory.

times = StageTimes()
times.add("read", 0.0021)
print(times)            # a line for each stage: p50, p99, p99.9, max, in milliseconds
"""

import math

BINS_PER_OCTAVE = 32
"""A bin is 2.2 % wide, from 1 µs on."""
OCTAVES = 24
"""Up to 17 s."""
QUANTILES = (0.5, 0.99, 0.999)


class Histogram:
    """Durations, in bins of equal ratio."""

    def __init__(self) -> None:
        self._counts = [0] * (BINS_PER_OCTAVE * OCTAVES + 2)
        self.count = 0
        """How many there are."""
        self.max_s = 0.0
        """The longest [s]."""

    def add(self, duration_s: float) -> None:
        """Count one; negative ones as zero."""
        micros = duration_s * 1e6
        place = 1 + int(math.log2(micros) * BINS_PER_OCTAVE) if micros >= 1 else 0
        self._counts[min(place, len(self._counts) - 1)] += 1
        self.count += 1
        self.max_s = max(self.max_s, duration_s)

    def quantile(self, share: float) -> float:
        """Duration [s] that `share` of them do not exceed, at most 2.2 % too long; 0 of none."""
        wanted, seen = share * self.count, 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(2 ** (place / BINS_PER_OCTAVE) * 1e-6, self.max_s)
        return 0.0


class StageTimes:
    """A histogram for each stage of a tick, in the order in which they came first."""

    def __init__(self) -> None:
        self.stages: dict[str, Histogram] = {}

    def add(self, stage: str, duration_s: float) -> None:
        """Count one."""
        if (histogram := self.stages.get(stage)) is None:
            histogram = self.stages[stage] = Histogram()
        histogram.add(duration_s)

    def __str__(self) -> str:
        return "\n".join(
            f"{stage:10} "
            + "  ".join(
                f"p{100 * share:g} {histogram.quantile(share) * 1e3:6.3f}" for share in QUANTILES
            )
            + f"  max {histogram.max_s * 1e3:6.3f} ms"
            for stage, histogram in self.stages.items()
        )
