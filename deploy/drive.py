"""One tick after the other, whoever says where to go: the only place from which joints are moved.

    drive = Drive(robot, governor, clock)
    drive.begin_run()                        # torque is on
    times = drive.begin()                    # wait, read, refuse what must not be acted on
    drive.target[:] = ...
    drive.finish(times)                      # limit, send, look after one servo
    drive.ramp(goal)                         # many of those
    drive.make_safe(error)                   # on every way out but the planned one

`deploy.runtime` drives with a policy, `deploy.direct` with what a program asks for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.clock import Clock, Ticker
from deploy.errors import ConfigError, SafetyError
from deploy.governor import Governor
from deploy.histogram import StageTimes
from deploy.robot import Robot
from deploy.serial_port import latency_advice
from deploy.state import Requests

Floats = NDArray[np.float64]

READ_SHARE = 0.75
"""Part of the period in which a reading must arrive; the rest is for acting on it: 1.25 ms at
200 Hz, of which controller, governor, write and record took 0.5 ms on a busy two-core machine."""
WAKE_SHARE = 0.1
"""Part of the period that stays free at its end, so that the next tick begins in time."""
VERIFY_EVERY_S = 0.5
"""Where no tick has time to read a servo's settings back as well, one in this time does that
instead of reading the joints."""
FAST_ADAPTER_S = 0.002
"""What an adapter whose latency timer is 1 ms adds to a reply, at most."""
RAMP_SPEED_SHARE = 0.5
"""Ramps move at most at this part of a joint's velocity limit."""
RAMP_EFFORT_SHARE = 0.8
"""Of a joint that may not have all of its motor's effort, at most at this part of what it may have:
a position servo with a quarter of its effort has a quarter of its speed."""
STILL_S = 0.1
"""Time constant of a joint driven by speed or torque that is to be still."""


class Times(NamedTuple):
    """Of a tick [s]."""

    deadline_s: float
    """On the clock."""
    late_s: float
    """From the deadline to its start."""
    read_s: float
    """Reading the robot took."""


@dataclass
class Drive:
    """See the module docstring."""

    robot: Robot
    governor: Governor
    clock: Clock
    period_s: float
    requests: Requests = field(default_factory=Requests)
    poll: Callable[[], object] = lambda: None
    """Called at the begin of every tick: whoever asks for something is heard."""
    reconnects: bool = False
    """A device that falls silent as a whole is lost, and may come back: `DeviceLost`."""
    on_begin: Callable[[], object] = lambda: None
    """Called when the robot has been read."""
    on_tick: Callable[[Times], None] = lambda times: None
    """Called when the targets have been sent."""

    def __post_init__(self) -> None:
        count = len(self.robot.joints)
        self.target: Floats = np.zeros(count)
        """(n,) what is asked for, to be filled in before `finish`."""
        self.sent: Floats = np.zeros(count)
        """(n,) what was sent last, after the governor."""
        self._limited: Floats = np.zeros(count)
        self.times = StageTimes()
        """How long the stages of the ticks took, and how late they began."""
        self.write_s = 0.0
        """What limiting and sending the latest targets took [s]."""
        self.ticker = Ticker(self.clock, self.period_s)

    def begin_run(self) -> None:
        """Torque is on from now: time and targets begin here."""
        self.ticker = Ticker(self.clock, self.period_s)
        self._written_s = self._verified_s = self.clock.now()
        self.sent[:] = self.robot.target

    def begin(self) -> Times:
        """Wait, read, and refuse to go on with what must not be acted on.

        Raises:
            SafetyError: the robot has to be stopped.
            DeviceLost: a port is gone, or a device silent.
        """
        deadline_s, late_s = self.ticker.wait()
        self.poll()
        self.check_stop()
        self._check_overruns()
        begin_s, robot, governor = self.clock.now(), self.robot, self.governor
        read_by_s = begin_s + READ_SHARE * self.period_s
        due = begin_s - self._verified_s > VERIFY_EVERY_S  # no tick has time for both
        if not (due and self._verify_next(read_by_s, due=True)):
            robot.read(read_by_s)
        if self.reconnects:
            robot.check_heard()
        if alarm := robot.alarm():
            raise SafetyError(alarm)
        governor.check_signals(robot.position, robot.velocity, robot.age_s)
        governor.hear(robot.heard)
        governor.derate(robot.readings)
        governor.check_following(self.sent, robot.position, robot.velocity, robot.effort)
        self.on_begin()
        times = Times(deadline_s, late_s, self.clock.now() - begin_s)
        self.times.add("late", times.late_s)
        self.times.add("read", times.read_s)
        return times

    def finish(self, times: Times, *, from_policy: bool = False) -> None:
        """Limit `target`, send it, remember it, and look after one servo.

        Args:
            times: what `begin` returned.
            from_policy: the policy's own range counts; parking may lead out of it.

        Raises:
            SafetyError: the robot has to be stopped.
        """
        begin_s = self.clock.now()
        self.governor.limit(
            self.target,
            self.sent,
            self.robot.position,
            self.robot.velocity,
            out=self._limited,
            from_policy=from_policy,
        )
        self._check_silence()
        self.robot.write(self._limited)
        self._written_s = self.clock.now()
        self.write_s = self._written_s - begin_s
        self.sent[:] = self._limited
        self.times.add("write", self.write_s)
        self.on_tick(times)
        self._verify_next(times.deadline_s + (1 - WAKE_SHARE) * self.period_s)
        self.times.add("tick", self.clock.now() - times.deadline_s - times.late_s)

    def stay(self, times: Times) -> None:
        """Finish a tick in which nobody says where to go: keep still."""
        self.target[:] = self.sent
        if self.governor.mode != "position":
            self.target *= math.exp(-self.period_s / STILL_S)
        self.finish(times)

    def ramp(self, goal: Floats) -> None:
        """Go from the last target to `goal` (n,) smoothly, at a bounded speed; a pause waits."""
        origin, needed_s = self.sent.copy(), 0.0
        if self.governor.mode == "position":
            # the smoothstep's fastest point is 1.5 times its mean
            speed = np.minimum(RAMP_SPEED_SHARE, RAMP_EFFORT_SHARE * self.governor.own_share)
            speed *= self.governor.speed
            needed_s = float(np.max(1.5 * np.abs(goal - origin) / speed))
        duration_s = max(self.robot.config.safety.move_to_start_s, needed_s)
        step, steps = 0, math.ceil(duration_s / self.period_s)
        while step < steps:
            times = self.begin()
            if self.requests.paused:
                self.stay(times)
                continue
            step += 1
            s = step / steps
            self.target[:] = origin + (goal - origin) * (s * s * (3 - 2 * s))
            self.finish(times)

    def make_safe(self, error: BaseException) -> None:
        """Bring the robot into its safe state; what became of it is noted on `error`."""
        safe_state = self.robot.config.safety.safe_state if self.robot.energised else "torque_off"
        try:
            if safe_state == "hold":
                self.robot.hold()
            else:
                self.robot.release()
        except Exception as failure:  # whatever it is, people have to know
            error.add_note(
                f"the safe state {safe_state!r} is not confirmed: {failure}. "
                f"{'; '.join(self.robot.watchdogs())}; switch the power off before touching the "
                "robot."
            )
        else:
            done = "holds its pose with torque on" if safe_state == "hold" else "is limp"
            error.add_note(f"the robot {done}, confirmed by reading every servo back")

    def check_bus_speed(self) -> None:
        """Refuse a bus on which a reading takes too much of the period.

        Raises:
            ConfigError: says how long it takes, and what to do.
        """
        robot, allowed_s = self.robot, READ_SHARE * self.period_s
        if robot.read_s <= allowed_s:
            return
        device = robot.slowest
        fast_adapter_s = robot.read_s - device.adapter_s + FAST_ADAPTER_S
        where = robot.config.key_of(device.name)
        remedy = (
            f"lower the latency: {latency_advice(robot.config.wired[device.name].port)}"
            if fast_adapter_s <= allowed_s
            else f"raise the servos' baud rate and `{where}.baud_rate`"
        )
        raise ConfigError(
            f"reading all joints takes {robot.describe_reading()}; a policy at "
            f"{1 / self.period_s:.0f} Hz leaves {allowed_s * 1e3:.1f} ms. Train a slower policy, "
            f"or {remedy}"
        )

    def check_rest(self, skipped_by: str) -> None:
        """Refuse limp joints that cannot be where they say; one that holds itself is anywhere.

        Raises:
            SafetyError: names them, and `skipped_by`, which skips this check.
        """
        if differences := self.robot.rest_differences():
            raise SafetyError(
                "the limp robot does not lie as `rest_rad` in its YAML says:\n  "
                + "\n  ".join(differences)
                + "\nPut it into its rest pose, or correct the YAML; "
                f"{skipped_by} skips this check"
            )

    def check_stop(self) -> None:
        """Raise a SafetyError if somebody has asked for a stop."""
        if self.requests.stopped:
            raise SafetyError(f"stopped: {self.requests.stopped}")

    def _check_overruns(self) -> None:
        missed, config = self.ticker.consecutive_overruns, self.robot.config
        allowed = config.safety.max_overruns if config.loop.overrun != "stop" else 0
        if missed > allowed:
            raise SafetyError(
                f"{missed} deadlines missed in a row at {1 / self.period_s:.0f} Hz; this machine "
                "or bus is too slow or too busy"
            )

    def _check_silence(self) -> None:
        """Refuse to go on after a pause: what watches its host has stopped by then."""
        silent_ms = (self.clock.now() - self._written_s) * 1e3
        if silent_ms > self.robot.config.safety.watchdog_ms:
            raise SafetyError(
                f"nothing was sent for {silent_ms:.0f} ms, allowed "
                f"{self.robot.config.safety.watchdog_ms} ms (`safety.watchdog_ms`); this process "
                f"was paused, or the machine is too busy. {'; '.join(self.robot.watchdogs())}"
            )

    def _verify_next(self, deadline_s: float, *, due: bool = False) -> bool:
        """Look after one servo, if there is time: is it still set up as it was?"""
        complaint = self.robot.health(deadline_s, due=due)
        if complaint is None:
            return False
        self._verified_s = self.clock.now()
        if complaint:
            raise SafetyError(
                f"{complaint}; the servo has let go, stopped by itself, or another program "
                "changes it"
            )
        return True
