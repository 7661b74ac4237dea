"""How late the loop is, beside a C loop of clock_nanosleep, and what a robot needs to be ready.

    python tests/benchmarks/loop.py [SECONDS] [--turns N]

Lateness: the start of a tick after its absolute deadline, at 50, 200 and 1000 Hz, for the C loop
(compiled here, with the same scheduling), for `deploy.clock` as `robotrl run` uses it (FIFO, locked
memory, hybrid wait, where allowed), and for the same without any privilege. They take turns of
SECONDS; medians over the turns of p50, p99, p99.9 and max. Start-up: a Python that imports what
`robotrl run` does and loads a policy and a robot, until it could open the port: time and memory.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deploy.clock import MonotonicClock, Ticker
from deploy.realtime import LoopConfig, realtime

RATES_HZ = (50, 200, 1000)
ROOT = Path(__file__).parents[2]
POLICY = ROOT / "tests/deploy/data/arm_reach_schema_1.onnx"
ROBOT = ROOT / "configs/robots/desk_arm.yaml"

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
READY = """
import sys, time
began = float(sys.argv[1])
from pathlib import Path
import robotrl.run_policy
from deploy.configuration import load_yaml
from deploy.controller import OnnxController
from deploy.robot_config import RobotConfig
OnnxController(Path(sys.argv[2]))
load_yaml(Path(sys.argv[3]), RobotConfig)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(time.time() - began, int(peak) / 1024)
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


def start_up(turns: int) -> tuple[float, float]:
    """Median time [s] and memory [MB] until a robot could be ready."""
    runs = []
    for _ in range(turns):
        command = [sys.executable, "-c", READY, str(time.time()), str(POLICY), str(ROBOT)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        runs.append(list(map(float, done.stdout.split())))
    seconds, megabytes = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(megabytes)


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
        print(f"{'lateness [µs]':30} {'p50':>9} {'p99':>9} {'p99.9':>9} {'max':>9}")
        for rate_hz in RATES_HZ:
            ticks = round(options.seconds * rate_hz)
            rows: dict[str, list[np.ndarray]] = {name: [] for name in contenders}
            for _ in range(options.turns):
                for name, measure in contenders.items():
                    late = measure(rate_hz, ticks)
                    rows[name].append(np.quantile(late, [0.5, 0.99, 0.999, 1.0]) * 1e6)
            for name, turns in rows.items():
                numbers = " ".join(f"{value:9.1f}" for value in np.median(turns, axis=0))
                print(f"{rate_hz:4} Hz {name:22} {numbers}")
    seconds, megabytes = start_up(options.turns)
    print(f"ready-able after {seconds:.2f} s with {megabytes:.0f} MB (allowed 1 s, 120 MB)")


if __name__ == "__main__":
    main()
