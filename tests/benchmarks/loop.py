"""How late the loop is, beside a C loop of clock_nanosleep. Run by hand:

    python tests/benchmarks/loop.py [SECONDS] [--turns N]

Lateness: the start of a tick after its absolute deadline, at 50, 200 and 1000 Hz, for the C loop
(compiled here, with the same scheduling), for `deploy.clock` as `robotrl run` uses it (FIFO, locked
memory, hybrid wait, where allowed), and for the same without any privilege. They take turns of
SECONDS; medians over the turns of p50, p99, p99.9, max, and of how p99.9 compares with the C loop's
in the same turn: what else the machine does comes and goes.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deploy.clock import MonotonicClock, Ticker
from deploy.realtime import LoopConfig, realtime

RATES_HZ = (50, 200, 1000)
QUANTILES = (0.5, 0.99, 0.999, 1.0)

C_LOOP = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

int main(int argc, char **argv) {
    long period = atol(argv[1]), ticks = atol(argv[2]);
    struct sched_param param = {.sched_priority = 50};
    prctl(PR_SET_TIMERSLACK, 1);
    sched_setscheduler(0, SCHED_FIFO, &param); /* refused without the privilege, as ours is */
    mlockall(MCL_CURRENT | MCL_FUTURE);
    struct timespec due, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (long i = 0; i < ticks; i++) {
        due.tv_nsec += period;
        while (due.tv_nsec >= 1000000000) { due.tv_nsec -= 1000000000; due.tv_sec++; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        printf("%ld\n", (now.tv_sec - due.tv_sec) * 1000000000 + now.tv_nsec - due.tv_nsec);
    }
}
"""


def build_c_loop(folder: str) -> str:
    """Compile the C loop; returns its path."""
    source, program = Path(folder) / "loop.c", f"{folder}/loop"
    source.write_text(C_LOOP)
    subprocess.run(["cc", "-O2", str(source), "-o", program], check=True)
    return program


def c_lateness(program: str, rate_hz: int, ticks: int) -> np.ndarray:
    """Lateness of each tick of the C loop (ticks,) [s]."""
    command = [program, str(10**9 // rate_hz), str(ticks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), float) * 1e-9


def our_lateness(rate_hz: int, ticks: int) -> np.ndarray:
    """The same of ours, with what the machine allows."""
    config = LoopConfig()
    with realtime(config):
        return ticked(MonotonicClock(config.spin_us * 1e-6), rate_hz, ticks)


def plain_lateness(rate_hz: int, ticks: int) -> np.ndarray:
    """The same of an ordinary process that sleeps."""
    return ticked(MonotonicClock(), rate_hz, ticks)


def ticked(clock: MonotonicClock, rate_hz: int, ticks: int) -> np.ndarray:
    """Lateness of ticks; one that gave way to the next counts with what it missed."""
    found, period_s = np.zeros(ticks), 1 / rate_hz
    ticker = Ticker(clock, period_s)
    for tick in range(ticks):
        before = ticker.overruns
        _, late_s = ticker.wait()
        found[tick] = late_s + (ticker.overruns - before) * period_s
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=10.0)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with realtime(LoopConfig()) as advice:
        print("\n".join(advice) or "FIFO, locked memory and exact timers are allowed here")
    with tempfile.TemporaryDirectory() as folder:
        program = build_c_loop(folder)
        contenders: dict[str, Callable[[int, int], np.ndarray]] = {
            "C clock_nanosleep": lambda rate_hz, ticks: c_lateness(program, rate_hz, ticks),
            "robotrl": our_lateness,
            "robotrl, unprivileged": plain_lateness,
        }
        print(f"{'lateness [µs]':30} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9} {'ratio':>9}")
        for rate_hz in RATES_HZ:
            ticks = round(options.seconds * rate_hz)
            turns = 1e6 * np.array(
                [
                    [
                        np.quantile(measure(rate_hz, ticks), QUANTILES)
                        for measure in contenders.values()
                    ]
                    for _ in range(options.turns)
                ]
            )  # (turns, contenders, quantiles)
            ratios = turns[:, :, 2] / turns[:, :1, 2]
            rows = np.median(np.concatenate([turns, ratios[:, :, None]], axis=2), axis=0)
            for name, (*numbers, ratio) in zip(contenders, rows, strict=True):
                row = " ".join(f"{value:9.1f}" for value in numbers)
                print(f"{rate_hz:4} Hz {name:22} {row} {ratio:9.2f}")
    print("allowed is a ratio of 2 at 200 Hz")


if __name__ == "__main__":
    main()
