"""The governor stands between the policy and the wire, on every tick, and cannot be turned off.

It clips what may be clipped and says so per joint (`limited_by`), and raises `SafetyError` for what
must stop the robot: a target that is not a number, joint readings too old to act on, a joint moving
faster than it possibly should.
"""

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from deploy.contract import Contract
from deploy.errors import SafetyError
from deploy.robot_config import RobotConfig

Floats = NDArray[np.float64]


class LimitedBy(IntFlag):
    """Why a target was changed."""

    POSITION = 1
    """Outside the joint's range."""
    VELOCITY = 2
    """Too far from the last target for one tick."""
    STEP = 4
    """Too far from where the joint is."""


class Governor:
    """Limits of one policy on one robot.

    Args:
        contract: gives the order of joints and the control period.
        robot: gives the limits of its hardware.
    """

    def __init__(self, contract: Contract, robot: RobotConfig):
        wirings = [robot.joints[name] for name in contract.joint_names]
        limits = np.array([wiring.position_limits_rad for wiring in wirings])
        speed = np.array([wiring.velocity_limit_rad_s for wiring in wirings])
        self.low, self.high = limits[:, 0].copy(), limits[:, 1].copy()
        self.limited_by = np.zeros(len(wirings), np.uint8)
        """`LimitedBy` of each joint, of the last target."""
        self._names = contract.joint_names
        self._max_change = speed * contract.control_dt_s
        self._max_step = np.full(len(wirings), robot.safety.max_step_rad)
        self._overspeed = robot.safety.overspeed_factor * speed
        self._stale_s = robot.safety.stale_after_ms / 1000
        self._lowest, self._highest, self._before = np.zeros((3, len(wirings)))
        self._changed = np.zeros(len(wirings), np.bool_)

    def check_signals(self, position: Floats, velocity: Floats, age_s: Floats) -> None:
        """Refuse to act on joint readings (n,) that are stale, not numbers, or a runaway.

        Raises:
            SafetyError: names the joint and the value.
        """
        if (joint := _first(~(age_s <= self._stale_s))) is not None:
            raise SafetyError(
                f"joint {self._names[joint]!r} has not been read for {age_s[joint] * 1e3:.0f} ms, "
                f"allowed {self._stale_s * 1e3:.0f} ms; check the bus cable and power"
            )
        if (joint := _first(~np.isfinite(position + velocity))) is not None:
            raise SafetyError(f"joint {self._names[joint]!r} reads no number")
        if (joint := _first(~(np.abs(velocity) <= self._overspeed))) is not None:
            raise SafetyError(
                f"joint {self._names[joint]!r} moves at {velocity[joint]:.1f} rad/s, faster than "
                f"{self._overspeed[joint]:.1f} rad/s; check its gains, wiring and load"
            )

    def limit(self, target: Floats, last: Floats, position: Floats, out: Floats) -> None:
        """Write the nearest permitted target into `out`, and why into `limited_by`.

        Args:
            target: (n,) what is asked for [rad].
            last: (n,) the target sent last [rad].
            position: (n,) the measured angles [rad].
            out: (n,) result [rad]; may not be `target`.

        Raises:
            SafetyError: a target is not a finite number.
        """
        if (joint := _first(~np.isfinite(target))) is not None:
            raise SafetyError(
                f"the policy asked for {target[joint]} at joint {self._names[joint]!r}, expected "
                "an angle; its inputs or the file are broken"
            )
        np.copyto(out, target)
        self.limited_by.fill(0)
        self._clip(out, *self._around(position, self._max_step), LimitedBy.STEP)
        self._clip(out, *self._around(last, self._max_change), LimitedBy.VELOCITY)
        self._clip(out, self.low, self.high, LimitedBy.POSITION)  # last: nothing overrules it

    def _around(self, middle: Floats, reach: Floats) -> tuple[Floats, Floats]:
        np.subtract(middle, reach, out=self._lowest)
        np.add(middle, reach, out=self._highest)
        return self._lowest, self._highest

    def _clip(self, target: Floats, low: Floats, high: Floats, reason: LimitedBy) -> None:
        """Clip `target` in place, and note which joints that changed."""
        np.copyto(self._before, target)
        np.clip(target, low, high, out=target)
        np.not_equal(target, self._before, out=self._changed)
        np.bitwise_or(self.limited_by, int(reason), out=self.limited_by, where=self._changed)


def _first(mask: NDArray[np.bool_]) -> int | None:
    """Index of the first true element, if any."""
    return int(mask.argmax()) if mask.any() else None
