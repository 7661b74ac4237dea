"""How long a robot moves on when its controller is lost: from the fault to the joints at rest.

    python -m tests.benchmarks.dead_man [--turns 5] [--watchdog-ms 100] [family ...]

A controller swings the joints of a twin in real time (`tests/deploy/lost.py`: runtime, recorder and
companion as in `robotrl run`, at 50 Hz, the balancer at 100 Hz); it is killed, stopped (SIGSTOP),
hangs, or the twin's end of the cable hangs up, at another moment of the swing in each turn. All
times come from the twin. Before the fault: the fastest joint. Acts: the first of the robot's own
watchdog and the companion. At rest: from then on no joint is faster than 0.1 rad/s. Milliseconds,
median (worst).
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import get_args

from tests.deploy.lost import Family, Fault, SpoiltError, Trial, lose

MOMENTS_S = (0.9, 1.1, 1.95, 2.05, 1.0)
"""Of the swing, whose period is 2 s: where it is fast."""


def main() -> None:
    """Take turns, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family", nargs="*", help=f"of {', '.join(get_args(Family))}")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--watchdog-ms", type=int, default=100)
    options = parser.parse_args()
    trials: dict[tuple[Family, Fault], list[Trial]] = {}
    for turn in range(options.turns):
        for family in options.family or get_args(Family):
            for fault in get_args(Fault):
                print(f"turn {turn + 1}: {family}, {fault}", file=sys.stderr, flush=True)
                moment_s = MOMENTS_S[turn % len(MOMENTS_S)]
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        trial = lose(
                            family,
                            fault,
                            Path(folder),
                            watchdog_ms=options.watchdog_ms,
                            swing_s=moment_s,
                        )
                except SpoiltError as error:  # one less
                    print(error, file=sys.stderr, flush=True)
                    continue
                trials.setdefault((family, fault), []).append(trial)
    print("| robot | fault | trials | before [rad/s] | acts first | acts [ms] | at rest [ms] |")
    print("|---|---|---|---|---|---|---|")
    for (family, fault), found in trials.items():
        speed = statistics.median(trial.speed_before for trial in found)
        print(
            f"| {family} | {fault} | {len(found)} | {speed:.1f} | {_actors(found)} "
            f"| {_times([_acts_s(trial) for trial in found])} "
            f"| {_times([trial.rest_s for trial in found])} |"
        )


def _acts_s(trial: Trial) -> float:
    return min(trial.companion_s, trial.watchdog_s, key=lambda s: math.inf if math.isnan(s) else s)


def _actors(trials: list[Trial]) -> str:
    actors = {
        "nobody"
        if math.isnan(acts_s := _acts_s(trial))
        else "companion"
        if acts_s == trial.companion_s
        else "watchdog"
        for trial in trials
    }
    return ", ".join(sorted(actors))


def _times(times_s: list[float]) -> str:
    known = sorted(1e3 * time_s for time_s in times_s if not math.isnan(time_s))
    return f"{statistics.median(known):.0f} ({known[-1]:.0f})" if known else ""


if __name__ == "__main__":
    main()
