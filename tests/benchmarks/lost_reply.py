"""What a damaged or a missing reply costs: time of its tick, and what becomes of the targets.

    python tests/benchmarks/lost_reply.py

A policy runs at 50 Hz on a two-joint arm's twin in virtual time, 60 s for each kind of device and
fault; one reply in every fifth of a second is lost, or has a bit flipped. `cost` is how much longer
than usual such a tick took to read the robot. `step` is the largest change of a target from a tick
to the next, over what the same policy's largest is when nothing goes wrong.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from deploy.twin.faults import Fault, FaultScript, Kind
from tests.deploy.faulty_arm import FAMILIES, FaultyArm

EVERY_S = 0.2137


def ticks_of(family: str, folder: Path, kind: Kind | None, duration_s: float) -> np.ndarray:
    """The records (T,) of a run, those in which the policy was in charge."""
    on = "imu" if family == "own IMU" else None
    times_s = np.arange(0.3, duration_s, EVERY_S).tolist() if kind else ()
    faults = [
        Fault(kind=kind, at_s=at_s, for_s=0.1, replies=1, device=on) for at_s in times_s if kind
    ]
    arm = FaultyArm(family, folder, FaultScript(faults=faults))
    if error := arm.run(duration_s):
        raise error
    if arm.monitor.violations:
        raise RuntimeError(f"unsafe: {arm.monitor.violations[0]}")
    return arm.recorder.running


def largest_step(ticks: np.ndarray) -> float:
    """Of any target [rad]."""
    return float(np.abs(np.diff(ticks["sent_target"], axis=0)).max())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="What a lost reply costs.")
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    print(f"{'':12}{'reply':>9}{'ticks hit':>11}{'cost p50':>10}{'p99':>7}{'max [ms]':>10}"
          f"{'readings lost':>15}{'step':>6}")  # fmt: skip
    kinds: list[tuple[Kind, str]] = [("drop", "missing"), ("corrupt", "damaged")]
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            usual = ticks_of(family, Path(folder), None, 2.0)
            for kind, name in kinds:
                ticks = ticks_of(family, Path(folder), kind, seconds)
                trouble = ticks["crc_errors"] + ticks["timeouts"] + ticks["lost"]
                hit = np.diff(trouble, prepend=trouble[0]).astype(bool)
                cost_ms = 1e3 * (ticks["read_s"][hit] - np.median(ticks["read_s"]))
                p50, p99, most = np.quantile(cost_ms, (0.5, 0.99, 1.0)) if hit.any() else 3 * (0.0,)
                lost = int(ticks["lost"][-1] - ticks["lost"][0])
                step = largest_step(ticks) / largest_step(usual)
                print(f"{family:12}{name:>9}{hit.sum():11}{p50:10.1f}{p99:7.1f}{most:10.1f}"
                      f"{lost:15}{step:6.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
