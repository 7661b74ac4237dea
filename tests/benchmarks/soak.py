"""An hour of faults in virtual time: no write to a servo may be unsafe, whatever goes wrong.

    python tests/benchmarks/soak.py                 # an hour of the robot's time; minutes of ours
    python tests/benchmarks/soak.py --minutes 5 --jobs 2

A two-joint arm on each kind of device in turn runs a policy for 20 s at a time, while a seeded
script spoils replies, pulls cables, takes power away, blocks joints and silences parts
(`deploy.twin.faults`). What is lost and comes back is resumed; what stops a run is followed by a
new run on another arm. A monitor inside the twin, which knows nothing of the runtime, judges every
write. The exit code is the number of unsafe writes, at most 100.
"""

import argparse
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deploy.runtime import State
from deploy.twin.faults import Fault, FaultScript, Kind
from tests.deploy.faulty_arm import FAMILIES, FaultyArm

RUN_S = 20.0
LINE: tuple[Kind, ...] = ("drop", "corrupt", "truncate", "delay", "echo")
LOSS: tuple[Kind, ...] = ("unplug", "brown_out", "absent")
PART: tuple[Kind, ...] = ("stuck", "overload", "absent", "duplicate")
LINE_FAULTS = 4
"""A run, from 0.2 to 3 s long, of up to a fifth of the replies."""
LOSS_SHARE, PART_SHARE = 0.5, 0.15
"""Of runs in which a device is lost for up to a second, and in which a part of it fails."""


class Outcome(NamedTuple):
    """Of a run."""

    family: str
    simulated_s: float
    faults: int
    stop: str
    """Why it ended in the safe state; empty if it did not."""
    resumptions: int
    writes: int
    unsafe: list[str]


def script(seed: int, family: str) -> FaultScript:
    """What goes wrong in a run."""
    rng = np.random.default_rng(seed)
    device = "imu" if family == "own IMU" and rng.random() < 0.3 else None
    faults = [
        Fault(
            kind=LINE[rng.integers(len(LINE))],
            at_s=rng.uniform(0, RUN_S),
            for_s=rng.uniform(0.2, 3),
            share=rng.uniform(0.01, 0.2),
            delay_ms=rng.uniform(1, 15),
            device=device,
        )
        for _ in range(LINE_FAULTS)
    ]
    if rng.random() < LOSS_SHARE:
        kind, for_s = LOSS[rng.integers(len(LOSS))], rng.uniform(0.05, 1)
        faults.append(Fault(kind=kind, at_s=rng.uniform(0, RUN_S), for_s=for_s, device=device))
    if rng.random() < PART_SHARE:
        part = None if device else ("shoulder", "elbow")[rng.integers(2)]
        kinds: tuple[Kind, ...] = ("stuck", "absent") if device else PART
        kind = kinds[rng.integers(len(kinds))]
        faults.append(Fault(kind=kind, at_s=rng.uniform(0, RUN_S), device=device, part=part))
    return FaultScript(seed=seed, faults=faults)


def soak(seed: int) -> Outcome:
    """One run."""
    family = list(FAMILIES)[seed % len(FAMILIES)]
    with tempfile.TemporaryDirectory() as folder:
        arm = FaultyArm(family, Path(folder), script(seed, family))
        error = arm.run(RUN_S)
    resumed = sum(
        before is State.PAUSED and after is not State.FAULT
        for before, after in pairwise(arm.states)
        if after is not State.PAUSED
    )
    unsafe = [f"seed {seed}, {family}: {violation}" for violation in arm.monitor.violations]
    return Outcome(
        family,
        arm.clock.now(),
        arm.faults.begun,
        str(error or ""),
        resumed,
        arm.monitor.writes,
        unsafe,
    )


def main() -> int:
    """Soak, and print what came of it."""
    parser = argparse.ArgumentParser(description="An hour of faults in virtual time.")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the robot's time")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = count(options.seed)
        pending = {pool.submit(soak, next(seeds)) for _ in range(2 * options.jobs)}
        while pending:
            done = next(as_completed(pending))
            pending.remove(done)
            outcomes.append(done.result())
            for text in outcomes[-1].unsafe:
                print(text, flush=True)
            if sum(outcome.simulated_s for outcome in outcomes) < 60 * options.minutes:
                pending.add(pool.submit(soak, next(seeds)))
    print(describe(outcomes))
    return min(100, sum(len(outcome.unsafe) for outcome in outcomes))


def describe(outcomes: list[Outcome]) -> str:
    """A table by family, and why runs stopped."""
    lines = [f"{'':12}{'minutes':>8}{'runs':>6}{'faults':>8}{'stops':>7}{'resumed':>9}"]
    lines[0] += f"{'writes':>9}{'unsafe':>8}"
    for family in (*FAMILIES, "all"):
        some = [outcome for outcome in outcomes if family in (outcome.family, "all")]
        lines.append(
            f"{family:12}{sum(o.simulated_s for o in some) / 60:8.1f}{len(some):6}"
            f"{sum(o.faults for o in some):8}{sum(bool(o.stop) for o in some):7}"
            f"{sum(o.resumptions for o in some):9}{sum(o.writes for o in some):9}"
            f"{sum(len(o.unsafe) for o in some):8}"
        )
    stops = Counter(" ".join(o.stop.split()[:7]) for o in outcomes if o.stop)
    lines += [f"{number:5} x {stop} ..." for stop, number in stops.most_common()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
