"""How late the loop is, beside a C loop of clock_nanosleep. Run by hand:

    python tests/benchmarks/loop.py [SECONDS] [--rates 50 200 1000]

Lateness: the start of a tick after its absolute deadline, for the C loop (compiled here, with the
same scheduling), for the same with the end of its wait spent looking at the clock as ours is, for
`deploy.clock` as `robotrl run` uses it (FIFO, locked memory, hybrid wait, where allowed), and for
the same without any privilege. What else the machine does comes and goes, and p99.9 of a short run
is chance: so they take turns of a second, and the quantiles are of all SECONDS together. `ratio` is
that of p99.9 to the C loop's, with the range that holds nine in ten of what other draws of the same
turns would give. A tick that begins over a quarter of a period late makes ours skip the next
(`deploy.clock.Ticker`): `skipped`, of a thousand.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deploy.clock import MonotonicClock, Ticker
from deploy.realtime import LoopConfig, realtime

QUANTILES = (0.5, 0.99, 0.999, 1.0)
TURN_S = 1.0
DRAWS = 1000

C_LOOP = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

int main(int argc, char **argv) {
    long period = atol(argv[1]), ticks = atol(argv[2]), spin = atol(argv[3]), late;
    struct sched_param param = {.sched_priority = 50};
    prctl(PR_SET_TIMERSLACK, 1);
    sched_setscheduler(0, SCHED_FIFO, &param); /* refused without the privilege, as ours is */
    mlockall(MCL_CURRENT | MCL_FUTURE);
    struct timespec due, wake, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (long i = 0; i < ticks; i++) {
        due.tv_nsec += period;
        while (due.tv_nsec >= 1000000000) { due.tv_nsec -= 1000000000; due.tv_sec++; }
        wake = due;
        wake.tv_nsec -= spin;
        if (wake.tv_nsec < 0) { wake.tv_nsec += 1000000000; wake.tv_sec--; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
        do {
            clock_gettime(CLOCK_MONOTONIC, &now);
            late = (now.tv_sec - due.tv_sec) * 1000000000 + now.tv_nsec - due.tv_nsec;
        } while (late < 0);
        printf("%ld\n", late);
    }
}
"""
Lateness = tuple[np.ndarray, int]
"""Of the ticks that began [s], and how many were skipped."""


def build_c_loop(folder: str) -> str:
    """Compile the C loop; returns its path."""
    source, program = Path(folder) / "loop.c", f"{folder}/loop"
    source.write_text(C_LOOP)
    subprocess.run(["cc", "-O2", str(source), "-o", program], check=True)
    return program


def c_lateness(program: str, rate_hz: int, ticks: int, spin_us: float) -> Lateness:
    """Of the C loop."""
    command = [program, str(10**9 // rate_hz), str(ticks), str(round(spin_us * 1e3))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), float) * 1e-9, 0


def our_lateness(rate_hz: int, ticks: int) -> Lateness:
    """Of ours, with what the machine allows."""
    config = LoopConfig()
    with realtime(config):
        return ticked(MonotonicClock(config.spin_us * 1e-6), rate_hz, ticks)


def plain_lateness(rate_hz: int, ticks: int) -> Lateness:
    """Of an ordinary process that sleeps."""
    return ticked(MonotonicClock(), rate_hz, ticks)


def ticked(clock: MonotonicClock, rate_hz: int, ticks: int) -> Lateness:
    """Of a loop that does nothing else."""
    ticker = Ticker(clock, 1 / rate_hz)
    return np.array([ticker.wait()[1] for _ in range(ticks)]), ticker.overruns


def range_of_ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """5 % and 95 % of the ratio of p99.9, turns drawn anew; both (turns, ticks)."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(ours), size=(DRAWS, len(ours)))
    ratios = [np.quantile(ours[draw], 0.999) / np.quantile(theirs[draw], 0.999) for draw in draws]
    low, high = np.quantile(ratios, (0.05, 0.95))
    return low, high


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--rates", type=int, nargs="+", default=[50, 200, 1000])
    options = parser.parse_args()
    with realtime(LoopConfig()) as advice:
        print("\n".join(advice) or "FIFO, locked memory and exact timers are allowed here")
    with tempfile.TemporaryDirectory() as folder:
        program, spin_us = build_c_loop(folder), LoopConfig().spin_us
        contenders: dict[str, Callable[[int, int], Lateness]] = {
            "C clock_nanosleep": lambda rate_hz, ticks: c_lateness(program, rate_hz, ticks, 0),
            "C, spinning": lambda rate_hz, ticks: c_lateness(program, rate_hz, ticks, spin_us),
            "robotrl": our_lateness,
            "robotrl, unprivileged": plain_lateness,
        }
        print(f"{'lateness [µs]':30} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9} {'skipped':>9}"
              "  ratio")  # fmt: skip
        for rate_hz in options.rates:
            ticks, turns = round(TURN_S * rate_hz), round(options.seconds / TURN_S)
            late_us = np.zeros((len(contenders), turns, ticks))
            skipped = np.zeros(len(contenders), int)
            for turn in range(turns):
                for row, measure in enumerate(contenders.values()):
                    late_s, left_out = measure(rate_hz, ticks)
                    late_us[row, turn] = 1e6 * late_s
                    skipped[row] += left_out
            for name, ours, left_out in zip(contenders, late_us, skipped, strict=True):
                *_, p999, _ = numbers = np.quantile(ours, QUANTILES)
                row = " ".join(f"{value:9.1f}" for value in numbers)
                low, high = range_of_ratio(ours, late_us[0])
                print(
                    f"{rate_hz:4} Hz {name:22} {row} {1e3 * left_out / ours.size:9.2f}"
                    f"  {p999 / np.quantile(late_us[0], 0.999):.2f} ({low:.2f} to {high:.2f})"
                )
    print("allowed is a ratio of 2 at 200 Hz")


if __name__ == "__main__":
    main()
