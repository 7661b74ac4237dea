"""The governor stands between the policy and the wire, on every tick, and cannot be turned off.

It clips what may be clipped and says so per joint (`limited_by`), and raises `SafetyError` for what
must stop the robot: a target that is not a number, joint readings too old to act on, a joint moving
faster than it possibly should, outside its range, or not where it is sent.
"""

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from deploy.contract import Contract
from deploy.errors import SafetyError
from deploy.robot_config import RobotConfig
from deploy.signals import SIGNALS, SignalKind

Floats = NDArray[np.float64]

RANGE_MARGIN_RAD = 0.1
"""A joint measured farther than this outside its limits has a wrong zero, or was forced out."""
LIMP_SHARE = 0.5
"""A motor driven with less than this part of what its gains demand does not obey them."""
DUTY_TOLERANCE = 0.01
"""What is lost to rounding and to readings of different moments."""
SATURATED = 0.95
"""From this duty on a motor gives all it has."""


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
        joints, safety = contract.joints, robot.safety
        wirings = [robot.joints[joint.name] for joint in joints]
        limits = np.array([wiring.position_limits_rad for wiring in wirings])
        self.low, self.high = limits[:, 0].copy(), limits[:, 1].copy()
        # float32, as they are in the graph
        allowed = np.array([joint.position_limits_rad for joint in joints], np.float32)
        self._policy_low: Floats = np.maximum(self.low, allowed[:, 0])
        self._policy_high: Floats = np.minimum(self.high, allowed[:, 1])
        self.speed: Floats = np.array(
            [
                min(joint.velocity_limit_rad_s, wiring.velocity_limit_rad_s)
                for joint, wiring in zip(joints, wirings, strict=True)
            ]
        )
        """Fastest change of a target (n,) [rad/s]: what both policy and hardware allow."""
        self.limited_by = np.zeros(len(wirings), np.uint8)
        """`LimitedBy` of each joint, of the last target."""
        self._names = contract.joint_names
        self._period_s = contract.control_dt_s
        self._max_change = self.speed * contract.control_dt_s
        self._max_step = np.full(len(wirings), safety.max_step_rad)
        self._overspeed = safety.overspeed_factor * self.speed
        self._stale_s = safety.stale_after_ms / 1000
        effort_nm = np.array([joint.effort_limit_nm for joint in joints])
        self._stiffness = np.array([joint.kp_nm_per_rad for joint in joints]) / effort_nm
        self._damping = np.array([joint.kd_nm_s_per_rad for joint in joints]) / effort_nm
        self._following_error = min(safety.following_error_rad, safety.max_step_rad)
        self._following_ticks = round(safety.following_time_ms / 1000 / self._period_s)
        self._astray_ticks = np.zeros(len(wirings), np.int64)
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
        outside = np.maximum(self.low - position, position - self.high)
        if (joint := _first(~(outside <= RANGE_MARGIN_RAD))) is not None:
            raise SafetyError(
                f"joint {self._names[joint]!r} is at {position[joint]:.2f} rad, "
                f"{outside[joint]:.2f} rad outside its range of [{self.low[joint]}, "
                f"{self.high[joint]}] rad; its zero is wrong, its horn has slipped, or it was "
                "forced there"
            )

    def check_reading(self, kind: SignalKind, values: Floats, age_s: Floats) -> None:
        """Refuse to show a policy a signal, in (n,) elements, that is stale or not a number.

        Raises:
            SafetyError: names the signal.
        """
        allowed_s = SIGNALS[kind].max_age_s or self._stale_s
        if not (oldest_s := float(age_s.max())) <= allowed_s:
            raise SafetyError(
                f"the signal {kind!r} is {oldest_s * 1e3:.0f} ms old, allowed "
                f"{allowed_s * 1e3:.0f} ms; check the device that measures it"
            )
        if not np.isfinite(values).all():
            raise SafetyError(f"the signal {kind!r} reads no number: {values.tolist()}")

    def check_following(
        self, target: Floats, position: Floats, velocity: Floats, effort: Floats
    ) -> None:
        """Refuse to go on with a joint that does not obey; called once a tick.

        A joint may lag: its error is then what its gains, its load and its speed explain. It does
        not obey if it is farther than `following_error_rad` from its target, for
        `following_time_ms` more than it is not, while its motor makes no effort, makes all the
        effort it can, or is as far off as targets ever go.

        Args:
            target: (n,) the targets sent last [rad].
            position: (n,) the measured angles [rad].
            velocity: (n,) the measured speeds [rad/s].
            effort: (n,) duty of the motors, -1 to 1, positive where it turns the joint forwards.

        Raises:
            SafetyError: names the joint and what its motor does.
        """
        error = target - position
        distance = np.abs(error)
        demanded = np.clip(self._stiffness * error - self._damping * velocity, -1, 1)
        demanded *= np.sign(error)
        along = effort * np.sign(error) + 0.0  # which makes a negative zero positive
        limp = along < LIMP_SHARE * demanded - DUTY_TOLERANCE
        saturated = along >= SATURATED
        as_far_as_ever = distance >= self._max_step - self._max_change
        astray = (distance > self._following_error) & (limp | saturated | as_far_as_ever)
        # Ticks that are all right take as many off: a swinging target meets a blocked joint too.
        self._astray_ticks += np.where(astray, 1, -1)
        np.maximum(self._astray_ticks, 0, out=self._astray_ticks)
        if (joint := _first(self._astray_ticks > self._following_ticks)) is not None:
            reason = (
                "it has let go, lost its gains, or stopped by itself"
                if limp[joint]
                else "something blocks it, or its load is too heavy"
            )
            raise SafetyError(
                f"joint {self._names[joint]!r} has been {distance[joint]:.2f} rad from its target "
                f"for {self._following_ticks * self._period_s * 1e3:.0f} ms, its motor driven at "
                f"{along[joint]:.0%} where {demanded[joint]:.0%} is called for; {reason}"
            )

    def limit(
        self,
        target: Floats,
        last: Floats,
        position: Floats,
        out: Floats,
        *,
        from_policy: bool = True,
    ) -> None:
        """Write the nearest permitted target into `out`, and why into `limited_by`.

        The step limit, which bounds the force on whoever holds a joint, overrules the velocity
        limit: the target of a joint that is pushed away comes after it as fast as it is pushed.

        Args:
            target: (n,) what is asked for [rad].
            last: (n,) the target sent last [rad].
            position: (n,) the measured angles [rad].
            out: (n,) result [rad]; may not be `target`.
            from_policy: the contract's position limits apply too, not only the hardware's.

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
        self._clip(out, *self._around(last, self._max_change), LimitedBy.VELOCITY)
        self._clip(out, *self._around(position, self._max_step), LimitedBy.STEP)
        low = self._policy_low if from_policy else self.low
        high = self._policy_high if from_policy else self.high
        self._clip(out, low, high, LimitedBy.POSITION)  # last: nothing overrules it

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
