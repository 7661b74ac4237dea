"""The real-time loop: from signals to targets at the contract's rate, and always into a safe state.

    runtime = Runtime(robot, controller, governor, recorder, clock)
    runtime.run(random_commands(contract.command, seed=0), duration_s=20)

One tick: wait for the absolute deadline → one sync read → controller → governor → one sync write →
one record. The controller is shown the signals that its contract names, from whatever device has
them; a signal or target that this robot does not have is refused before anything moves. Nothing
moves before `run`. It ramps to the policy's start pose, runs the policy, ramps to the rest pose and
lets go. Whatever else happens (an exception, a stale signal, a stop request) ends in the robot's
safe state; a killed process ends in the servos' own watchdog.
"""

import contextlib
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from deploy.clock import Clock, Ticker
from deploy.commands import CommandSource
from deploy.controller import OnnxController
from deploy.device import Reading
from deploy.errors import BusError, ConfigError, ContractError, SafetyError
from deploy.fit import lacking
from deploy.governor import Governor
from deploy.recorder import Recorder
from deploy.robot import Robot, understood_targets
from deploy.serial_port import latency_advice
from deploy.signals import SignalKind

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


class State(IntEnum):
    """What the robot is doing."""

    DISCONNECTED = 0
    IDLE = 1
    MOVING_TO_START = 2
    READY = 3
    RUNNING = 4
    STOPPING = 5
    FAULT = 6


@dataclass
class StopRequest:
    """Set from a signal handler or another thread; read at every tick."""

    reason: str = ""

    def __call__(self, reason: str) -> None:
        """Ask the loop to stop, latched."""
        self.reason = self.reason or reason


@dataclass
class Runtime:
    """See the module docstring."""

    robot: Robot
    controller: OnnxController
    governor: Governor
    clock: Clock
    recorder: Recorder | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    on_state: Callable[[State], None] = lambda state: None
    """Told of every change of state, between ticks."""
    anyway: bool = False
    """Run although the limp robot does not lie in its rest pose."""
    state: State = State.DISCONNECTED

    def __post_init__(self) -> None:
        contract = self.controller.contract
        readings, understood = self.robot.readings, understood_targets(self.robot.config)
        if missing := list(lacking(contract, readings, understood)):
            raise ContractError("the policy cannot run on this robot:\n  " + "\n  ".join(missing))
        self._period_s = contract.control_dt_s
        joints = contract.joints
        self._start = np.array([joint.default_position_rad for joint in joints])
        self._rest = np.array([self.robot.config.joints[j.name].rest_rad for j in joints])
        self._ramp_speed = RAMP_SPEED_SHARE * self.governor.speed
        self._sent: Floats = np.zeros(len(joints))
        self._target: Floats = np.zeros(len(joints))
        self._limited: Floats = np.zeros(len(joints))
        self._command = np.zeros(len(contract.command.low), np.float32)
        self._time_s: Floats = np.zeros(1)
        known: dict[str, NDArray] = {
            "joint_target": self._sent,
            "command": self._command,
            "time": self._time_s,
            **{kind: reading.values for kind, reading in readings.items()},
        }
        self._inputs = [
            (spec.kind, known[spec.kind], self.controller.inputs[spec.name])
            for spec in contract.inputs
        ]
        """Kind, where its values are, and where the policy takes them from."""
        checked = ("joint_position", "joint_velocity")  # by `check_signals`, at every tick
        self._others: list[tuple[SignalKind, Reading]] = [
            (spec.kind, readings[spec.kind])
            for spec in contract.inputs
            if spec.kind in readings and spec.kind not in checked
        ]
        (self._output,) = self.controller.outputs.values()

    def run(self, commands: CommandSource, duration_s: float) -> None:
        """Connect, move to the start pose, run the policy for `duration_s`, park and let go.

        Raises:
            DeployError: what stopped the robot, after it has reached its safe state.
        """
        try:
            self.robot.connect()
            self._check_bus_speed()
            self._check_rest()
            self._enter(State.IDLE, self.robot.describe())
            self._check_stop()
            gc.collect()
            gc.freeze()  # what exists now is never collected: no pauses while the servos watch
            self.robot.energise()
            self._ticker = Ticker(self.clock, self._period_s)
            self._written_s = self._verified_s = self.clock.now()
            self._sent[:] = self.robot.target
            self._enter(State.MOVING_TO_START)
            self._ramp(self._start)
            self._check_pose(self._start, "start")
            self._enter(State.READY)
            self.controller.reset()
            self._enter(State.RUNNING)
            started_s = self._ticker.deadline_s
            last_s = duration_s - self._period_s / 2
            while (time_s := self._ticker.deadline_s - started_s) < last_s:
                self._policy_tick(commands(time_s), time_s)
            self._command[:] = 0
            self._enter(State.STOPPING)
            self._ramp(self._rest)
            if self.robot.config.safety.safe_state == "hold":  # the other lets go wherever it is
                self._check_pose(self._rest, "rest")
            self.robot.release()
            self._enter(State.IDLE)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            gc.unfreeze()

    def _policy_tick(self, command: NDArray[np.float32], time_s: float) -> None:
        self._command[:], self._time_s[:] = command, time_s
        deadline_s, late_s, read_s = self._begin_tick()
        begin_s = self.clock.now()
        for kind, reading in self._others:
            self.governor.check_reading(kind, reading.values, reading.age_s)
        self.controller.step()
        self._target[:] = self._output
        self._finish_tick(deadline_s, late_s, read_s, self.clock.now() - begin_s)

    def _ramp(self, goal: Floats) -> None:
        """Move from the last target to `goal` (n,) smoothly, at a bounded speed."""
        origin = self._sent.copy()
        # the smoothstep's fastest point is 1.5 times its mean
        needed_s = float(np.max(1.5 * np.abs(goal - origin) / self._ramp_speed))
        duration_s = max(self.robot.config.safety.move_to_start_s, needed_s)
        steps = math.ceil(duration_s / self._period_s)
        for step in range(1, steps + 1):
            times = self._begin_tick()
            s = step / steps
            self._target[:] = origin + (goal - origin) * (s * s * (3 - 2 * s))
            self._finish_tick(*times, 0.0)

    def _begin_tick(self) -> tuple[float, float, float]:
        """Wait, read, and refuse to go on with what must not be acted on."""
        deadline_s, late_s = self._ticker.wait()
        self._check_stop()
        if self._ticker.consecutive_overruns > self.robot.config.safety.max_overruns:
            raise SafetyError(
                f"{self._ticker.consecutive_overruns} deadlines missed in a row at "
                f"{1 / self._period_s:.0f} Hz; this machine or bus is too slow or too busy"
            )
        begin_s = self.clock.now()
        read_by_s = begin_s + READ_SHARE * self._period_s
        due = begin_s - self._verified_s > VERIFY_EVERY_S  # no tick has time for both
        if not (due and self._verify_next(read_by_s, due=True)):
            self.robot.read(read_by_s)
        if alarm := self.robot.alarm():
            raise SafetyError(alarm)
        robot = self.robot
        self.governor.check_signals(robot.position, robot.velocity, robot.age_s)
        self.governor.check_following(self._sent, robot.position, robot.velocity, robot.effort)
        for _, values, array in self._inputs:
            array[:] = values
        return deadline_s, late_s, self.clock.now() - begin_s

    def _finish_tick(
        self, deadline_s: float, late_s: float, read_s: float, controller_s: float
    ) -> None:
        """Limit `_target`, send it, remember it, record the tick, and look after one servo."""
        begin_s = self.clock.now()
        self.governor.limit(
            self._target,
            self._sent,
            self.robot.position,
            out=self._limited,
            from_policy=self.state is State.RUNNING,  # parking may lead out of the policy's range
        )
        self._check_silence()
        self.robot.write(self._limited)
        self._written_s = self.clock.now()
        self._sent[:] = self._limited
        if self.recorder is not None:
            self._record(self.recorder, deadline_s, late_s, read_s, controller_s, begin_s)
        self._verify_next(deadline_s + (1 - WAKE_SHARE) * self._period_s)

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

    def _record(
        self,
        recorder: Recorder,
        deadline_s: float,
        late_s: float,
        read_s: float,
        controller_s: float,
        begin_s: float,
    ) -> None:
        record, statistics = recorder.record, self.robot.statistics
        record["time_s"], record["state"], record["lateness_s"] = deadline_s, self.state, late_s
        record["read_s"], record["controller_s"] = read_s, controller_s
        record["write_s"] = self.clock.now() - begin_s
        record["joint_position"], record["joint_velocity"] = (
            self.robot.position,
            self.robot.velocity,
        )
        for kind, _, array in self._inputs:  # as the policy was shown them
            record[kind] = array
        record["joint_age_s"] = self.robot.age_s
        record["policy_target"], record["sent_target"] = self._target, self._sent
        record["limited_by"], record["overruns"] = self.governor.limited_by, self._ticker.overruns
        record["requests"], record["crc_errors"] = statistics.requests, statistics.crc_errors
        record["timeouts"], record["retried"] = statistics.timeouts, statistics.retried
        record["lost"], record["late"] = statistics.lost, statistics.late
        recorder.commit()

    def _check_bus_speed(self) -> None:
        robot, allowed_s = self.robot, READ_SHARE * self._period_s
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
            f"{1 / self._period_s:.0f} Hz leaves {allowed_s * 1e3:.1f} ms. Train a slower policy, "
            f"or {remedy}"
        )

    def _check_rest(self) -> None:
        """Refuse limp joints that cannot be where they say; one that holds itself is anywhere."""
        if not self.anyway and (differences := self.robot.rest_differences()):
            raise SafetyError(
                "the limp robot does not lie as `rest_rad` in its YAML says:\n  "
                + "\n  ".join(differences)
                + "\nPut it into its rest pose, or correct the YAML; --anyway skips this check"
            )

    def _check_stop(self) -> None:
        if self.stop.reason:
            raise SafetyError(f"stopped: {self.stop.reason}")

    def _check_silence(self) -> None:
        """Refuse to go on after a pause: servos that watch the bus have stopped by then."""
        silent_ms = (self.clock.now() - self._written_s) * 1e3
        if silent_ms > self.robot.config.safety.watchdog_ms:
            raise SafetyError(
                f"nothing was sent for {silent_ms:.0f} ms, allowed "
                f"{self.robot.config.safety.watchdog_ms} ms (`safety.watchdog_ms`); this process "
                "was paused, or the machine is too busy"
            )

    def _check_pose(self, pose: Floats, name: str) -> None:
        error = np.abs(self.robot.position - pose)
        allowed = self.robot.config.safety.pose_tolerance_rad
        worst = int(error.argmax())
        if error[worst] > allowed:
            raise SafetyError(
                f"joint {self.robot.joints[worst].name!r} is {error[worst]:.2f} rad from the "
                f"{name} pose, allowed {allowed} rad; something blocks it, or its "
                "servo does not follow"
            )

    def _fail(self, error: BaseException) -> None:
        """Bring the robot into its safe state; called on every way out but the normal one."""
        connected, self.state = self.state is not State.DISCONNECTED, State.FAULT
        with contextlib.suppress(Exception):  # an error may be impossible to put into words
            self._note(f"{type(error).__name__}: {error}")  # now: making safe may be cut short
        if connected:
            self._make_safe(error)
        if advice := self.robot.advise():
            error.add_note(advice)
        with contextlib.suppress(Exception):
            self._note("\n".join(getattr(error, "__notes__", ())))
        with contextlib.suppress(Exception):  # a listener may be what failed
            self.on_state(State.FAULT)

    def _make_safe(self, error: BaseException) -> None:
        safe_state = self.robot.config.safety.safe_state if self.robot.energised else "torque_off"
        try:
            if safe_state == "hold":
                self.robot.hold()
            else:
                self.robot.release()
        except BusError as failure:
            error.add_note(
                f"the safe state {safe_state!r} is not confirmed: {failure}. "
                f"{'; '.join(self.robot.watchdogs())}; switch the power off before touching the "
                "robot."
            )
        else:
            done = "holds its pose with torque on" if safe_state == "hold" else "is limp"
            error.add_note(f"the robot {done}, confirmed by reading every servo back")

    def _enter(self, state: State, text: str = "") -> None:
        self.state = state
        self._note(text)
        self.on_state(state)

    def _note(self, text: str) -> None:
        """Put the state, and what there is to say about it, into the black box."""
        if self.recorder is not None:
            self.recorder.note(self.clock.now(), self.state.name.lower(), text)
