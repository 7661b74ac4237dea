"""Did a run go well: by how it went, and by the limits it kept."""

import math
from dataclasses import dataclass

import numpy as np

from deploy.runtime import State
from robotrl.report.log import Log, describe_end
from robotrl.report.reaching import ERROR_LIMIT_M
from robotrl.report.walking import Walk

MIN_TARGETS = 5
"""Fewer say too little: of two near ones, another two may lie far."""
PARKED = [State.STOPPING.name.lower(), State.IDLE.name.lower()]
"""The last two states of a run that went as planned."""


@dataclass(frozen=True)
class Verdict:
    """How the run went."""

    errors_m: list[float] | None
    """Mean distance in the last second of each target; None if the command is no point to reach."""
    violations: list[str]
    """Limits that were exceeded, and faults."""
    source: str
    """Where the path of the tool, or of the thing, comes from."""
    walk: Walk | None = None
    """How it went, if it walks and that is known."""
    enough_s: float = 0.0
    """A run of random commands this long has `MIN_TARGETS`."""
    limit_m: float = ERROR_LIMIT_M
    """Largest median of those distances that counts as success."""

    @property
    def median_error_m(self) -> float:
        """Median over targets, not a number if there were none."""
        return float(np.median(self.errors_m)) if self.errors_m else float("nan")

    @property
    def undecided(self) -> bool:
        """Nothing is wrong, and too little was seen to say that all is well."""
        few = self.errors_m is not None and len(self.errors_m) < MIN_TARGETS
        return few and not self.violations

    @property
    def passed(self) -> bool:
        """Accurate enough, often enough, and no limit violated."""
        if self.undecided or self.violations:
            return False
        accurate = self.errors_m is None or self.median_error_m <= self.limit_m
        return accurate and (self.walk is None or self.walk.passed)

    @property
    def word(self) -> str:
        """The verdict in one."""
        return "UNDECIDED" if self.undecided else "PASS" if self.passed else "FAIL"

    def summary(self) -> str:
        """The verdict in a line or two."""
        lines = [f"{self.word}: {self._judgement()}"]
        if self.undecided:
            lines.append(
                f"  too few targets to judge, expected at least {MIN_TARGETS} that have their time;"
                f" run it with --command random --duration {math.ceil(self.enough_s)}"
            )
        return "\n".join([*lines, *(f"  violated: {text}" for text in self.violations)])

    def _judgement(self) -> str:
        if self.walk is not None:
            return self.walk.summary()
        if self.errors_m is None:
            return "judged by the limits alone, its command is no point to reach"
        return (
            f"median distance to target {self.median_error_m * 100:.2f} cm over "
            f"{len(self.errors_m)} targets ({self.source}); allowed {self.limit_m * 100:g} cm"
        )


def violations(log: Log) -> list[str]:
    """Hardware limits the measured joints exceeded, and an end other than the planned one."""
    found = []
    for index, name in enumerate(log.contract.joint_names):
        wiring = log.robot.joints[name]
        low, high = wiring.range_rad
        angle = log.ticks["joint_position"][log.running, index]
        speed = np.abs(log.ticks["joint_velocity"][log.running, index]).max()
        if angle.min() < low or angle.max() > high:
            found.append(
                f"{name} was at {angle.min():.3f} to {angle.max():.3f} rad, "
                f"allowed {low} to {high} rad"
            )
        if speed > log.robot.safety.overspeed_factor * wiring.velocity_limit_rad_s:
            found.append(f"{name} moved at {speed:.1f} rad/s")
    if log.damage:
        found.append(f"the log is not complete: {log.damage}")
    if [event["state"] for event in log.events[-2:]] != PARKED:
        found.append(f"the run ended before the robot was parked; {describe_end(log)}")
    return found
