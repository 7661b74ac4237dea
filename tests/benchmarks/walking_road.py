"""A walking policy on the microduck's twin, over the wire, in virtual time. Run by hand:

    python tests/benchmarks/walking_road.py --policy duck.onnx --twins 8

Everything is the robot side's own: runtime, governor, fast sync read of 14 servos and the IMU. The
robot is picked up from the floor, put on its feet, pushed every 3 to 6 s, and follows random
commands; a `Monitor` watches every write. The first row is the nominal robot, not pushed. With
`--alone` one element of the reality gap at a time, so one sees what fells it.
"""

import argparse
import itertools
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.commands import random_commands
from deploy.controller import OnnxController
from deploy.errors import DeployError
from deploy.twin.monitor import Violation
from deploy.twin.parameters import TwinParameters, draw
from deploy.twin.robot import Twin
from robotrl.report.walk_score import Leg, base_twist, count_falls, fallen, judge_legs
from tests.benchmarks.watched import only, watched

REPOSITORY = Path(__file__).parents[2]
ROBOT = REPOSITORY / "configs/robots/microduck.yaml"
MODEL = REPOSITORY / "envs/robots/microduck/microduck.xml"
ELEMENTS = {
    "mass": ("mass_scale",),
    "friction": ("friction_scale", "stribeck_scale", "load_friction"),
    "motors": ("damping_scale", "strength_scale", "armature_scale"),
    "zero error": ("zero_error_rad",),
    "backlash": ("backlash_rad",),
    "supply": ("supply_scale", "supply_resistance_ohm"),
    "latency": ("command_latency_s", "usb_latency_s"),
    "IMU": ("imu_tilt_rad", "gyro_bias_rad_s"),
    "pushes": ("push_speed_m_s",),
}


@dataclass(frozen=True)
class Outcome:
    """One run."""

    legs: list[Leg]
    falls: int
    torque_rms_nm: NDArray[np.float64]
    """(n,) of each joint's motor."""
    violations: list[Violation]
    failure: str
    seconds: float
    """Of policy."""


class Witness:
    """A command source that notes what the twin really did whenever it is asked."""

    def __init__(self, twin: Twin, controller: OnnxController, seed: int):
        self._twin, self._source = twin, random_commands(controller.contract.command, seed)
        self.rows: list[tuple[float, NDArray, NDArray, NDArray, NDArray]] = []

    def __call__(self, time_s: float) -> NDArray[np.float32]:
        """The command now."""
        assert self._twin.base
        command, base = self._source(time_s), self._twin.base
        if time_s <= (self.rows[-1][0] if self.rows else 0.0):  # ramps and lying down
            return command
        torque = self._twin.motor_torque.copy()
        self.rows.append((time_s, command.copy(), base.pose, base.velocity, torque))
        return command


def run(policy: Path, parameters: TwinParameters, *, seconds: float, seed: int) -> Outcome:
    """Run a policy on a twin."""
    setup = watched(policy, ROBOT, MODEL, parameters)
    twin, monitor, failure = setup.twin, setup.monitor, ""
    witness = Witness(twin, setup.controller, seed)
    try:
        setup.runtime.run(witness, seconds)
    except DeployError as error:
        failure = str(error)
    if not witness.rows:
        return Outcome([], 0, np.zeros(len(twin.joints)), monitor.violations, failure, 0.0)
    time_s, command, pose, velocity, torque = map(np.array, zip(*witness.rows, strict=True))
    down = fallen(pose, home_height_m=0.117)
    return Outcome(
        judge_legs(time_s, command.astype(float), base_twist(pose, velocity), down),
        count_falls(down),
        np.sqrt((torque**2).mean(axis=0)),
        monitor.violations,
        failure,
        float(time_s[-1]),
    )


def row(name: str, outcomes: list[Outcome]) -> str:
    """Speed share, error, falls, the hottest joint, violations, and how runs ended."""
    legs = list(itertools.chain(*(outcome.legs for outcome in outcomes)))
    share = np.nanmean([leg.share for leg in legs]) if legs else np.nan
    error = np.mean([leg.error_m_s for leg in legs]) if legs else np.nan
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    falls = sum(outcome.falls for outcome in outcomes)
    torque = max(float(outcome.torque_rms_nm.max()) for outcome in outcomes)
    unsafe = sum(len(outcome.violations) for outcome in outcomes)
    ends = [outcome.failure for outcome in outcomes if outcome.failure]
    return (
        f"{name:14}{share:7.2f}{error:8.3f}{falls:6}{minutes:9.1f}{torque:9.2f}{unsafe:8}"
        f"{len(ends):6}  {ends[0][:100] if ends else ''}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--policy", type=Path, required=True, help="ONNX file")
    parser.add_argument("--twins", type=int, default=4, help="twins of the whole gap")
    parser.add_argument("--alone", action="store_true", help="also one element at a time")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each runs")
    arguments = parser.parse_args()
    logging.disable()
    drawn = [draw(seed, MODEL) for seed in range(arguments.twins)]
    rows = {"nominal": [TwinParameters(seed=0)]} | {f"twin {twin.seed}": [twin] for twin in drawn}
    if arguments.alone:
        rows |= {
            name: [only(twin, elements) for twin in drawn] for name, elements in ELEMENTS.items()
        }
    print(f"{'':14}{'share':>7}{'rms m/s':>8}{'falls':>6}{'minutes':>9}{'rms N·m':>9}{'unsafe':>8}")
    for name, twins in rows.items():
        begin = time.monotonic()
        outcomes = [
            run(arguments.policy, twin, seconds=arguments.seconds, seed=twin.seed or 0)
            for twin in twins
        ]
        print(f"{row(name, outcomes)}  ({time.monotonic() - begin:.0f} s)", flush=True)
        for outcome in outcomes:
            for violation in outcome.violations[:3]:
                print(f"    {violation}")


if __name__ == "__main__":
    main()
