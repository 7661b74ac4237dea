"""Watches a twin for what no program should do to a robot, whoever wrote the program.

    monitor = Monitor(twin, {"elbow": Limits((-1.5, 1.5), max_speed_rad_s=3.5)}, period_s=0.02)
    ...                               # run anything on the twin
    monitor.stopped()                 # the program says that the robot is in its safe state
    for violation in monitor.violations:
        print(violation)

It sees every write that reaches a servo, also those the servo refuses, and the true joints at every
step of the physics. It shares no code with what runs a robot. Limits are the caller's, in radians;
the servos' own position limits count as well. A goal may jump towards the measured angle, as when a
robot is told to stay where it is, but not away from it. A goal that is a speed has to keep the
limit of speed; a speed or a current is zero when torque is switched on, and after a stop. A servo
that has taken another's id is judged by its joint alone: what it hears was not meant for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from deploy.dynamixel.registers import OperatingMode
from deploy.robot_config import JointWiring
from deploy.servos.register import Register
from deploy.twin.feetech_servo import FeetechServo
from deploy.twin.servo import Servo

if TYPE_CHECKING:
    from deploy.twin.robot import Twin

TOLERANCE_TICKS = 1.3
"""Of goals, in counts of the encoder."""
AWAY_RAD = 0.05
"""Farthest a goal may be from the measured angle when torque is switched on, or after a stop."""
OUTSIDE_RAD = 0.05
"""Farthest a joint may be outside its range; its stops are elastic."""
PUSH_NM = 0.05
"""Motor torque that counts as driving a joint; less is friction."""
_SAME_TICK = 0.25
"""Goals that follow each other within this part of a period count as one."""
_IMPLAUSIBLE_TICKS = 3 * 4096


class Unsafe(StrEnum):
    """Kinds of violation."""

    LIMIT = "a goal outside the joint's range, or faster than it may be"
    IMPLAUSIBLE = "a goal that is no angle"
    JUMP = "a goal that jumps away from the joint"
    AFTER_STOP = "a goal elsewhere after the stop"
    TORQUE_ON = "torque switched on with the goal elsewhere"
    OVERSPEED = "a driven joint too fast"
    DRIVEN_OUT = "a joint driven out of its range by its motor"


@dataclass(frozen=True)
class Limits:
    """What one joint may do."""

    range_rad: tuple[float, float]
    """Goals, and the joint when its motor pushes."""
    max_speed_rad_s: float
    """Fastest change of goals."""
    overspeed_rad_s: float = math.inf
    """Fastest the true joint may turn while its motor is driven."""


@dataclass(frozen=True)
class Violation:
    """One unsafe event."""

    kind: Unsafe
    time_s: float
    tick: int
    """Control periods since the first goal was written."""
    joint: str
    numbers: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.joint}, tick {self.tick} ({self.time_s:.3f} s): {self.numbers}"


@dataclass
class _Joint:
    """What is known of one joint."""

    name: str
    servo: Servo | FeetechServo
    wiring: JointWiring
    limits: Limits
    goal: float | None = None
    """Written last [rad]."""
    origin: float | None = None
    """The goal before those of this period [rad]."""
    since_s: float = -math.inf
    """When this period's first goal came."""
    stopped: bool = False

    def angle(self, ticks: int) -> float:
        """Encoder counts as an angle."""
        wiring = self.wiring
        return (ticks - wiring.zero_ticks) * wiring.direction * self.servo.model.rad_per_tick

    @property
    def rate(self) -> Register | None:
        """Its goal, if that is a speed or a current."""
        if not isinstance(self.servo, Servo):
            return None
        mode, registers = self.register(self.servo.registers.OPERATING_MODE), self.servo.registers
        rates = {
            OperatingMode.VELOCITY: registers.GOAL_VELOCITY,
            OperatingMode.CURRENT: registers.GOAL_CURRENT,
        }
        return rates.get(OperatingMode(mode))

    @property
    def tolerance(self) -> float:
        """Of its goals [rad]."""
        return TOLERANCE_TICKS * self.servo.model.rad_per_tick

    @property
    def measured(self) -> float:
        """What its servo reports."""
        return self.angle(self.register(self.servo.registers.PRESENT_POSITION))

    def register(self, register: Register) -> int:
        """What a register of its servo holds."""
        return register.decode(self.servo.read(register.address, register.size).data)


class Monitor:
    """See the module docstring."""

    def __init__(
        self,
        twin: Twin,
        wiring: Mapping[str, JointWiring],
        limits: Mapping[str, Limits],
        *,
        period_s: float,
    ):
        """Watch a twin from now on.

        Args:
            twin: the robot.
            wiring: how its joints are mounted, by name.
            limits: what they may do, by name.
            period_s: time between goals; a longer pause does not allow a longer way.
        """
        self.writes = 0
        """How many registers it has seen written."""
        self.violations: list[Violation] = []
        """In the order they happened; what lasts is listed once."""
        self._twin, self._period_s = twin, period_s
        self._first_s: float | None = None
        self._ongoing: set[tuple[Unsafe, str]] = set()
        self._joints = [
            _Joint(name, servo, wiring[name], limits[name])
            for name, servo in zip(twin.joints, twin.servos, strict=True)
        ]
        for joint in self._joints:
            joint.servo.on_write = partial(self._check_write, joint)
        self._next_step: Callable[[], None] = twin.on_step
        twin.on_step = self._check_step

    def stopped(self) -> None:
        """The robot is in its safe state: from now on goals stay where the joints are.

        Until torque is switched on anew, which is how the next run begins.
        """
        for joint in self._joints:
            joint.stopped = True

    def _check_write(self, joint: _Joint, register: Register, value: int, error: int) -> None:
        self.writes += 1
        if joint.servo.id != joint.wiring.id:
            return
        registers = joint.servo.registers
        if register is registers.GOAL_POSITION:
            self._check_goal(joint, value)
        elif register is joint.rate:
            self._check_rate(joint, register, value)
        if register is registers.TORQUE_ENABLE and value and not error:
            joint.stopped = False
            if not joint.servo.torque_on:
                self._check_torque_on(joint)

    def _check_goal(self, joint: _Joint, ticks: int) -> None:
        now_s = self._twin.time_s
        if self._first_s is None:
            self._first_s = now_s
        if abs(ticks) > _IMPLAUSIBLE_TICKS:
            self._report(Unsafe.IMPLAUSIBLE, joint, f"{ticks} counts")
            return
        goal, measured = joint.angle(ticks), joint.measured
        low, high = joint.limits.range_rad
        lowest, highest = min(low, measured), max(high, measured)  # one may stay where one is
        if not lowest - joint.tolerance <= goal <= highest + joint.tolerance:
            self._report(Unsafe.LIMIT, joint, f"{goal:.3f} rad, allowed {low:.3f} to {high:.3f}")
        lowest, highest = (
            joint.register(end)
            for end in (
                joint.servo.registers.MIN_POSITION_LIMIT,
                joint.servo.registers.MAX_POSITION_LIMIT,
            )
        )
        if not lowest <= ticks <= highest:
            numbers = f"{ticks} counts, its servo allows {lowest} to {highest}"
            self._report(Unsafe.LIMIT, joint, numbers)
        if joint.stopped and abs(goal - measured) > AWAY_RAD:
            self._report(Unsafe.AFTER_STOP, joint, f"{goal:.3f} rad, joint at {measured:.3f}")
        if now_s - joint.since_s > _SAME_TICK * self._period_s:
            joint.origin, joint.since_s = joint.goal, now_s
        if joint.servo.torque_on and joint.origin is not None:
            self._check_change(joint, joint.origin, goal, measured)
        joint.goal = goal

    def _check_rate(self, joint: _Joint, register: Register, value: int) -> None:
        if self._first_s is None:
            self._first_s = self._twin.time_s
        fastest = joint.limits.max_speed_rad_s
        if register.unit == "rad/s" and abs(value) - 1 > fastest / register.scale:
            numbers = f"{value * register.scale:.2f} rad/s, allowed {fastest:.2f}"
            self._report(Unsafe.LIMIT, joint, numbers)
        if joint.stopped and value:
            self._report(Unsafe.AFTER_STOP, joint, f"{register} of {value} counts")

    def _check_change(self, joint: _Joint, origin: float, goal: float, measured: float) -> None:
        """How far the goal has moved away from where the joint is, or beyond it."""
        nearest = min(max(measured, min(origin, goal)), max(origin, goal))
        allowed = joint.limits.max_speed_rad_s * self._period_s + joint.tolerance
        if abs(goal - nearest) > allowed:
            numbers = (
                f"{origin:.3f} to {goal:.3f} rad, joint at {measured:.3f}; "
                f"allowed {allowed:.3f} rad away"
            )
            self._report(Unsafe.JUMP, joint, numbers)

    def _check_torque_on(self, joint: _Joint) -> None:
        if rate := joint.rate:
            if value := joint.register(rate):
                self._report(Unsafe.TORQUE_ON, joint, f"{rate} of {value} counts")
            return
        goal = joint.angle(joint.register(joint.servo.registers.GOAL_POSITION))
        measured = joint.measured
        if abs(goal - measured) > AWAY_RAD:
            self._report(Unsafe.TORQUE_ON, joint, f"{goal:.3f} rad, joint at {measured:.3f}")
        joint.goal = joint.origin = goal

    def _check_step(self) -> None:
        self._next_step()
        for joint, angle, speed, torque in zip(
            self._joints,
            self._twin.joint_position.tolist(),
            self._twin.joint_velocity.tolist(),
            self._twin.motor_torque.tolist(),
            strict=True,
        ):
            fastest, (low, high) = joint.limits.overspeed_rad_s, joint.limits.range_rad
            too_fast = joint.servo.torque_on and abs(speed) > fastest
            self._during(
                Unsafe.OVERSPEED,
                joint,
                f"{speed:.2f} rad/s, allowed {fastest:.2f}" if too_fast else "",
            )
            outwards = torque if angle > high else -torque
            driven_out = max(angle - high, low - angle) > OUTSIDE_RAD and outwards > PUSH_NM
            self._during(
                Unsafe.DRIVEN_OUT,
                joint,
                f"{angle:.3f} rad, allowed {low:.3f} to {high:.3f}, pushed with {torque:.2f} N·m"
                if driven_out
                else "",
            )

    def _during(self, kind: Unsafe, joint: _Joint, numbers: str) -> None:
        """Report what lasts when it begins; no `numbers` means that it does not last."""
        key = (kind, joint.name)
        if not numbers:
            self._ongoing.discard(key)
        elif key not in self._ongoing:
            self._ongoing.add(key)
            self._report(kind, joint, numbers)

    def _report(self, kind: Unsafe, joint: _Joint, numbers: str) -> None:
        time_s = self._twin.time_s
        since_s = 0.0 if self._first_s is None else time_s - self._first_s
        tick = math.floor(since_s / self._period_s + 1e-6)
        self.violations.append(Violation(kind, time_s, tick, joint.name, numbers))
