"""The governor stands between the policy and the wire, on every tick, and cannot be turned off.

It clips what may be clipped and says so per joint (`limited_by`), and raises `SafetyError` for what
must stop the robot. The whole list, what is watched, its limit in the YAML and what happens, is the
table in `deploy/README.md`; the arithmetic is in `deploy.limits`. A tick allocates no array.
"""

from collections.abc import Mapping, Sequence
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from deploy import limits
from deploy.contract import JointSpec
from deploy.device import Reading, mode_of
from deploy.errors import SafetyError
from deploy.limits import Floats
from deploy.robot_config import RobotConfig
from deploy.servos.models import SERVOS
from deploy.signals import SignalKind

RANGE_MARGIN_RAD = 0.1
"""A joint measured farther than this outside its limits has a wrong zero, or was forced out."""
LIMP_SHARE = 0.5
"""A motor driven with less than this part of what its gains demand does not obey them."""
DUTY_TOLERANCE = 0.01
"""What is lost to rounding and to readings of different moments."""
SATURATED = 0.95
"""From this duty on a motor gives all it has."""
SLOW_SHARE = 0.5
"""A joint driven by speed that is off by more than this part of it is slow."""


class LimitedBy(IntFlag):
    """Why a target was changed."""

    POSITION = 1
    """Outside the joint's range, or about to leave it."""
    VELOCITY = 2
    """Too far from the last target for one tick, or too fast."""
    STEP = 4
    """Too far from where the joint is, or from how fast it is."""
    EFFORT = 8
    """More effort than `max_effort_share` or the joint's own limit, or too much torque."""
    TEMPERATURE = 16
    """Derated: hot."""
    VOLTAGE = 32
    """Derated: its supply is low."""
    CURRENT = 64
    """Derated: much current for long."""
    SILENCE = 128
    """Not heard of now, or not in the tick before: what was sent may be lost."""


class Governor:
    """Limits of one policy on one robot.

    Args:
        joints: what drives them, in the order of all arrays; all in one operating mode.
        period_s: time between targets.
        robot: gives the limits of its hardware.
    """

    def __init__(self, joints: Sequence[JointSpec], period_s: float, robot: RobotConfig):
        count, safety = len(joints), robot.safety
        wirings = [robot.joints[joint.name] for joint in joints]
        self.mode = mode_of(robot.robot, joints)
        """What all joints are driven by."""
        ranges = np.array([wiring.range_rad for wiring in wirings])
        self.low, self.high = ranges[:, 0].copy(), ranges[:, 1].copy()
        # float32, as they are in the graph
        allowed = np.array([joint.position_limits_rad for joint in joints], np.float32)
        self._policy_low: Floats = np.maximum(self.low, allowed[:, 0])
        self._policy_high: Floats = np.minimum(self.high, allowed[:, 1])
        endless = [wiring.continuous for wiring in wirings]  # which a contract cannot say
        self._policy_low[endless], self._policy_high[endless] = -np.inf, np.inf
        self.speed: Floats = np.array(
            [
                min(joint.velocity_limit_rad_s, wiring.velocity_limit_rad_s)
                for joint, wiring in zip(joints, wirings, strict=True)
            ]
        )
        """Fastest change of a target (n,) [rad/s]: what both policy and hardware allow."""
        self.limited_by = np.zeros(count, np.uint8)
        """`LimitedBy` of each joint, of the last target."""
        self.effort_share = np.ones(count)
        """Part of its torque each joint may use now."""
        self._safety, self._names = safety, [joint.name for joint in joints]
        self._period_s = period_s
        self._max_change = self.speed * period_s
        hardware = np.array([wiring.velocity_limit_rad_s for wiring in wirings])
        self._max_way, self._way = hardware * period_s, np.zeros(count)
        self._heard, self._arrived = np.ones((2, count), np.bool_)
        step = safety.max_step_rad if self.mode == "position" else safety.max_speed_step_rad_s
        self._max_step = np.full(count, step)
        self._as_far_as_ever = self._max_step - self._max_change
        self.own_share = np.array([wiring.own_share for wiring in wirings])
        """Part of its motor's effort that each joint's own limit leaves, (n,)."""
        gentle = np.array([wiring.gentle for wiring in wirings])
        self._as_far_as_ever[gentle] = np.inf
        self._saturated = np.where(gentle, np.inf, SATURATED)
        self._overspeed = safety.overspeed_factor * self.speed
        self._effort_nm = np.array([joint.effort_limit_nm for joint in joints])
        self._kp = np.array([joint.kp_nm_per_rad for joint in joints])
        self._kd = np.array([joint.kd_nm_s_per_rad for joint in joints])
        self._known_gains = bool(self._kd.all())  # of joints driven by speed
        self._following_error = np.full(count, safety.following_speed_rad_s)
        if self.mode == "position":
            self._following_error[:] = min(safety.following_error_rad, safety.max_step_rad)
            # what is limited never has a target far away, by which it would be found limp
            reach = LIMP_SHARE * self.own_share * self._effort_nm / self._kp
            np.minimum(self._following_error, reach, out=self._following_error, where=gentle)
        self._following_ticks = round(safety.following_time_ms / 1000 / period_s)
        self._astray_ticks = np.zeros(count, np.int64)
        self._falling_ticks = 0
        self._supply_v = np.array([wiring.voltage_v for wiring in wirings])
        self._lasting_a = safety.current_share * np.array(
            [_stall_current(wiring.model) for wiring in wirings]
        )
        self._most_effort = np.minimum(safety.max_effort_share, self.own_share)
        self._heat = np.zeros(count)
        self._effort_reason = np.zeros(count, np.uint8)
        self._zones: tuple[Floats, Floats] = (
            np.full(count, safety.limit_zone_rad),
            limits.SPEED_FADE * self.speed,
        )
        self._torque, self._lowest, self._highest, self._before, self._ahead = np.zeros((5, count))
        self._changed, self._mask, self._other, self._far = np.zeros((4, count), np.bool_)
        self._more = np.zeros(count, np.int64)
        self.derate({})

    def check_signals(self, position: Floats, velocity: Floats, age_s: Floats) -> None:
        """Refuse to act on joint readings (n,) that are stale, not numbers, or a runaway.

        Raises:
            SafetyError: names the joint and the value.
        """
        stale_s = self._safety.stale_s("joint_position")
        # Negated: what is not a number must not pass.
        if (joint := self._first_not(np.less_equal(age_s, stale_s, out=self._mask))) is not None:
            raise SafetyError(
                f"joint {self._names[joint]!r} has not been read for {age_s[joint] * 1e3:.0f} ms, "
                f"allowed {stale_s * 1e3:.0f} ms; check the bus cable and power, and "
                "whether this machine is too busy"
            )
        np.add(position, velocity, out=self._ahead)
        if (joint := self._first_not(np.isfinite(self._ahead, out=self._mask))) is not None:
            raise SafetyError(f"joint {self._names[joint]!r} reads no number")
        np.abs(velocity, out=self._ahead)
        slow = np.less_equal(self._ahead, self._overspeed, out=self._mask)
        if (joint := self._first_not(slow)) is not None:
            raise SafetyError(
                f"joint {self._names[joint]!r} moves at {velocity[joint]:.1f} rad/s, faster than "
                f"{self._overspeed[joint]:.1f} rad/s; check its gains, wiring and load"
            )
        np.subtract(self.low, position, out=self._lowest)
        np.subtract(position, self.high, out=self._highest)
        outside = np.maximum(self._lowest, self._highest, out=self._lowest)
        inside = np.less_equal(outside, RANGE_MARGIN_RAD, out=self._mask)
        if (joint := self._first_not(inside)) is not None:
            raise SafetyError(
                f"joint {self._names[joint]!r} is at {position[joint]:.2f} rad, "
                f"{outside[joint]:.2f} rad outside its range of [{self.low[joint]}, "
                f"{self.high[joint]}] rad; its zero is wrong, its horn has slipped, or it was "
                "forced there"
            )

    def hear(self, heard: NDArray[np.bool_]) -> None:
        """Be told which joints (n,) have answered; called once a tick.

        Where a joint does not, what is sent may be lost too, and the next target to arrive must not
        be far from the last that did. One that answers twice in a row has got the target between.
        """
        np.logical_and(heard, self._heard, out=self._arrived)
        np.copyto(self._heard, heard)

    def check_reading(self, kind: SignalKind, values: Floats, age_s: Floats) -> None:
        """Refuse to show a policy a signal, in (n,) elements, that is stale or not a number.

        Raises:
            SafetyError: names the signal.
        """
        allowed_s = self._safety.stale_s(kind)
        if not (oldest_s := float(age_s.max())) <= allowed_s:
            raise SafetyError(
                f"the signal {kind!r} is {oldest_s * 1e3:.0f} ms old, allowed "
                f"{allowed_s * 1e3:.0f} ms; check the device that measures it"
            )
        if not np.isfinite(values).all():
            raise SafetyError(f"the signal {kind!r} reads no number: {values.tolist()}")

    def check_upright(self, gravity: Floats, angular_velocity: Floats | None) -> None:
        """Refuse to go on with a robot that lies or falls; called once a tick.

        Args:
            gravity: (3,) what points down, in the frame of the IMU, whose z points up.
            angular_velocity: (3,) in the same frame [rad/s]; None where nothing measures it.

        Raises:
            SafetyError: says how far it is tilted, or will be.
        """
        safety, now = self._safety, limits.tilt(gravity)
        if not now <= safety.max_tilt_rad:
            raise SafetyError(
                f"the robot is tilted by {now:.2f} rad, allowed {safety.max_tilt_rad:g} rad; set "
                "it upright, or raise `safety.max_tilt_rad` for a policy that gets up by itself"
            )
        if angular_velocity is None:
            return
        soon = limits.tilt_ahead(gravity, angular_velocity, safety.fall_ahead_s)
        self._falling_ticks = self._falling_ticks + 1 if not soon <= safety.fall_tilt_rad else 0
        if self._falling_ticks * self._period_s > safety.fall_time_ms / 1000:
            raise SafetyError(
                f"the robot falls: tilted by {now:.2f} rad now, by {soon:.2f} rad in "
                f"{safety.fall_ahead_s:g} s, allowed {safety.fall_tilt_rad:g} rad"
            )

    def derate(self, readings: Mapping[SignalKind, Reading]) -> None:
        """Give hot, overloaded and badly fed joints less effort; called once a tick.

        What the robot does not measure, or has not yet (not a number), derates nothing.

        Args:
            readings: what its devices measure.

        Raises:
            SafetyError: a joint is too hot to go on.
        """
        safety = self._safety
        np.copyto(self.effort_share, self._most_effort)
        self._effort_reason.fill(LimitedBy.EFFORT)
        floor = safety.derated_effort_share
        if temperature := readings.get("joint_temperature"):
            values = temperature.values
            hot = np.greater_equal(values, safety.temperature_stop_c, out=self._mask)
            if hot.any():
                joint = int(hot.argmax())
                raise SafetyError(
                    f"joint {self._names[joint]!r} has {values[joint]:.0f} °C, allowed "
                    f"{safety.temperature_stop_c:g} °C; let it cool, and give it less to do"
                )
            limits.derated(
                values, safety.temperature_derate_c, safety.temperature_stop_c, floor, self._ahead
            )
            self._at_most(self._ahead, LimitedBy.TEMPERATURE)
        if voltage := readings.get("joint_voltage"):
            np.divide(voltage.values, self._supply_v, out=self._ahead)
            limits.derated(
                self._ahead,
                safety.voltage_derate_share,
                safety.voltage_low_share,
                floor,
                self._ahead,
            )
            self._at_most(self._ahead, LimitedBy.VOLTAGE)
        if current := readings.get("joint_current"):
            share = self._period_s / (safety.current_time_s + self._period_s)
            limits.warm(self._heat, current.values, self._lasting_a, share, self._ahead, self._mask)
            limits.derated(self._heat, limits.COOL, limits.HOT, safety.current_share, self._ahead)
            self._at_most(self._ahead, LimitedBy.CURRENT)
        # A servo that may do all it can is not held back: its target tells the policy something.
        np.multiply(self.effort_share, self._effort_nm, out=self._torque)
        if self.mode != "torque":
            full = np.equal(self.effort_share, 1.0, out=self._mask)
            np.copyto(self._torque, np.inf, where=full)

    def check_following(
        self, target: Floats, position: Floats, velocity: Floats, effort: Floats
    ) -> None:
        """Refuse to go on with a joint that does not obey; called once a tick.

        A joint may lag: its error is then what its gains, its load and its speed explain. It does
        not obey if it is farther than `following_error_rad` from its target, for
        `following_time_ms` more than it is not, while its motor makes no effort, makes all the
        effort it may, or is as far off as targets ever go. A gentle one (`JointWiring.gentle`)
        holds what blocks it, so only no effort counts, and half as far as its own limit lets
        targets go is far. One driven by speed does not obey if it is off by
        `following_speed_rad_s` for as long, or by half its speed while its motor makes all the
        effort it may; one driven by torque goes where it goes.

        Args:
            target: (n,) the targets sent last.
            position: (n,) the measured angles [rad].
            velocity: (n,) the measured speeds [rad/s].
            effort: (n,) duty of the motors, -1 to 1, positive where it turns the joint forwards;
                not a number where it is not known.

        Raises:
            SafetyError: names the joint and what its motor does.
        """
        if self.mode == "torque":
            return
        demanded, along = self._highest, self._before
        distance = self._compare(target, position, velocity, effort)
        limp = np.multiply(demanded, LIMP_SHARE, out=self._ahead)
        np.subtract(limp, DUTY_TOLERANCE, out=limp)
        limp = np.less(along, limp, out=self._changed)
        astray, other = self._mask, self._other
        np.greater(distance, self._following_error, out=astray)
        np.multiply(self.effort_share, self._saturated, out=self._ahead)
        np.greater_equal(along, self._ahead, out=other)
        if self.mode == "position":
            np.logical_or(other, limp, out=other)
            np.logical_and(astray, other, out=other)
            np.greater_equal(distance, self._as_far_as_ever, out=self._far)
            np.logical_and(astray, self._far, out=astray)
        else:
            np.multiply(np.abs(target, out=self._ahead), SLOW_SHARE, out=self._ahead)
            np.greater(distance, self._ahead, out=self._far)
            np.logical_and(other, self._far, out=other)
        np.logical_or(astray, other, out=astray)
        # Ticks that are all right take as many off: a swinging target meets a blocked joint too.
        self._more.fill(-1)
        np.copyto(self._more, 1, where=astray)
        np.add(self._astray_ticks, self._more, out=self._astray_ticks)
        np.maximum(self._astray_ticks, 0, out=self._astray_ticks)
        np.greater(self._astray_ticks, self._following_ticks, out=other)
        if not other.any():
            return
        joint = int(other.argmax())
        reason = (
            "it has let go, lost its gains, or stopped by itself"
            if limp[joint]
            else "something blocks it, or its load is too heavy"
        )
        driven = (  # some devices do not say how hard, and some gains are not known
            f", its motor driven at {along[joint]:.0%} where {demanded[joint]:.0%} is called for"
            if np.isfinite(along[joint]) and (self.mode == "position" or self._known_gains)
            else ""
        )
        unit = "rad" if self.mode == "position" else "rad/s"
        raise SafetyError(
            f"joint {self._names[joint]!r} has been {distance[joint]:.2f} {unit} from its target "
            f"for {self._following_ticks * self._period_s * 1e3:.0f} ms{driven}; {reason}"
        )

    def _compare(
        self, target: Floats, position: Floats, velocity: Floats, effort: Floats
    ) -> Floats:
        """Distances (n,) from the targets.

        The effort that a distance calls for, in shares of the motor's, goes into `_highest`, what
        the motor makes of it into `_before`, both positive towards the target.
        """
        error, demanded, along, sign = self._lowest, self._highest, self._before, self._ahead
        np.subtract(target, position if self.mode == "position" else velocity, out=error)
        np.sign(error, out=sign)
        np.multiply(self._kp, error, out=demanded)
        np.multiply(self._kd, velocity, out=along)
        np.subtract(demanded, along, out=demanded)
        if self.mode == "velocity":
            np.multiply(self._kd, error, out=demanded)
        np.divide(demanded, self._effort_nm, out=demanded)
        limits.clip(demanded, -1, 1)
        np.multiply(demanded, sign, out=demanded)
        np.multiply(effort, sign, out=along)
        np.add(along, 0.0, out=along)  # which makes a negative zero positive
        return np.abs(error, out=error)

    def limit(
        self,
        target: Floats,
        last: Floats,
        position: Floats,
        velocity: Floats,
        out: Floats,
        *,
        from_policy: bool = True,
    ) -> None:
        """Write the nearest permitted target into `out`, and why into `limited_by`.

        Of positions, the step limit, which bounds the force on whoever holds a joint, overrules the
        velocity limit: the target of a joint that is pushed away comes after it as fast as it is
        pushed. A bound on effort overrules both, and the range everything.

        Args:
            target: (n,) what is asked for: rad, rad/s or N·m, by the joints' operating mode.
            last: (n,) the target sent last.
            position: (n,) the measured angles [rad].
            velocity: (n,) the measured speeds [rad/s].
            out: (n,) result; may not be `target`.
            from_policy: the contract's position limits apply too, not only the hardware's.

        Raises:
            SafetyError: a target is not a finite number.
        """
        if (joint := self._first_not(np.isfinite(target, out=self._mask))) is not None:
            expected = {"position": "an angle", "velocity": "a speed", "torque": "a torque"}
            raise SafetyError(
                f"the policy asked for {target[joint]} at joint {self._names[joint]!r}, expected "
                f"{expected[self.mode]}; its inputs or the file are broken"
            )
        np.copyto(out, target)
        self.limited_by.fill(0)
        lowest = self._policy_low if from_policy else self.low
        highest = self._policy_high if from_policy else self.high
        # The last bound overrules those before it.
        if self.mode == "position":
            self._limit_position(out, last, position, velocity)
            self._clip(out, lowest, highest, LimitedBy.POSITION)
            self._count_way(last, out)
        elif self.mode == "velocity":
            self._limit_velocity(out, position, velocity, lowest, highest)
        else:
            self._limit_torque(out, position, velocity, lowest, highest)

    def _limit_position(
        self, target: Floats, last: Floats, position: Floats, velocity: Floats
    ) -> None:
        low, high = self._lowest, self._highest
        limits.around(last, self._max_change, low, high)
        self._clip(target, low, high, LimitedBy.VELOCITY)
        np.copyto(self._way, 0.0, where=self._arrived)
        np.subtract(last, self._way, out=self._ahead)
        limits.around(self._ahead, self._max_way, low, high)
        self._clip(target, low, high, LimitedBy.SILENCE)
        limits.around(position, self._max_step, low, high)
        self._clip(target, low, high, LimitedBy.STEP)
        limits.servo_reach(position, velocity, self._kp, self._kd, self._torque, low, high)
        self._clip(target, low, high, self._effort_reason)

    def _count_way(self, last: Floats, target: Floats) -> None:
        """Note how far targets have gone since joints were heard of."""
        np.copyto(self._way, 0.0, where=self._heard)
        np.subtract(target, last, out=self._ahead)
        np.add(self._way, self._ahead, out=self._way)
        np.negative(self._max_way, out=self._lowest)
        limits.clip(self._way, self._lowest, self._max_way)

    def _limit_velocity(
        self, target: Floats, position: Floats, velocity: Floats, lowest: Floats, highest: Floats
    ) -> None:
        low, high = self._lowest, self._highest
        limits.around(velocity, self._max_step, low, high)
        self._clip(target, low, high, LimitedBy.STEP)
        if self._known_gains:
            self._before.fill(0)
            limits.servo_reach(velocity, velocity, self._kd, self._before, self._torque, low, high)
            self._clip(target, low, high, self._effort_reason)
        ahead_s = self._safety.limit_ahead_s
        limits.arriving_speed(position, lowest, highest, ahead_s, low, high)
        self._clip(target, low, high, LimitedBy.POSITION)
        np.negative(self.speed, out=low)
        self._clip(target, low, self.speed, LimitedBy.VELOCITY)

    def _limit_torque(
        self, target: Floats, position: Floats, velocity: Floats, lowest: Floats, highest: Floats
    ) -> None:
        low, high, ahead = self._lowest, self._highest, self._ahead
        np.negative(self._torque, out=low)
        self._clip(target, low, self._torque, self._effort_reason)
        near_limit, near_speed = self._zones
        np.negative(self.speed, out=self._before)
        limits.fading_torque(
            velocity, self._before, self.speed, near_speed, self._torque, low, high
        )
        self._clip(target, low, high, LimitedBy.VELOCITY)
        np.multiply(velocity, self._safety.limit_ahead_s, out=ahead)
        np.add(position, ahead, out=ahead)
        limits.fading_torque(ahead, lowest, highest, near_limit, self._torque, low, high)
        self._clip(target, low, high, LimitedBy.POSITION)

    def _at_most(self, share: Floats, reason: LimitedBy) -> None:
        """Bound the joints' effort by `share` (n,), where that is less than they have."""
        less = np.less(share, self.effort_share, out=self._mask)
        np.copyto(self.effort_share, share, where=less)
        np.copyto(self._effort_reason, int(reason), where=less, casting="unsafe")

    def _clip(
        self, target: Floats, low: Floats, high: Floats, reason: LimitedBy | NDArray[np.uint8]
    ) -> None:
        """Clip `target` in place, and note which joints that changed."""
        np.copyto(self._before, target)
        limits.clip(target, low, high)
        np.not_equal(target, self._before, out=self._changed)
        bits = reason if isinstance(reason, np.ndarray) else int(reason)
        np.bitwise_or(self.limited_by, bits, out=self.limited_by, where=self._changed)

    def _first_not(self, mask: NDArray[np.bool_]) -> int | None:
        """Index of the first false element, if any."""
        first = int(mask.argmin())  # a tenth of the time of mask.all()
        return None if mask[first] else first


def _stall_current(model: str) -> float:
    """Of a servo [A]; infinite where nothing is known."""
    servo = SERVOS.get(model)
    return (servo.nominal.stall_current_a if servo else None) or float("inf")
