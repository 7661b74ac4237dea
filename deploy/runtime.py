"""The real-time loop: from signals to targets at the contract's rate, and always into a safe state.

    runtime = Runtime(robot, controller, governor, clock, recorder)
    runtime.run(random_commands(contract.command, seed=0), duration_s=20)

One tick: wait for the absolute deadline → one sync read → controller → governor → one sync write →
one record. The controller is shown the signals that its contract names, from whatever device has
them; a signal or target that this robot does not have is refused before anything moves. Nothing
moves before `run`. It ramps to the policy's start pose, runs the policy, ramps to the rest pose and
lets go; joints driven by speed or torque have no such poses, and end at none. Whatever else happens
(an exception, a stale signal, a stop request) ends in the robot's safe state, and stays there; a
process that is killed or stands still ends in the devices' own watchdogs, and in the companion's
care, both proved before anything moves. States, and what may be asked for: `deploy.state`.
"""

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deploy.clock import Clock
from deploy.commands import CommandSource
from deploy.contract import TARGET_OF
from deploy.controller import OnnxController
from deploy.device import Reading, mode_of
from deploy.drive import Drive, Floats, Times
from deploy.errors import ContractError, DeviceLost, SafetyError
from deploy.fit import lacking
from deploy.governor import Governor
from deploy.reconnect import Reconnect, find_again, wait_for_resume
from deploy.recorder import COUNTERS, Recorder
from deploy.robot import Robot
from deploy.signals import SignalKind
from deploy.state import FOLLOWING, Requests, State
from deploy.supervisor import GRACE_S

SLOW_S = 10.0
"""How long all servos may take to be set up, or to confirm that they are safe, with retries."""
STALL_S = 1.0
"""Meanwhile devices are waited for again and again; when the companion has seen nothing of that for
so long, and for a watchdog's time besides (of which the proof waits), it acts."""
READINGS = 3
"""So often joints are read before the first tick, all within the time that a watchdog waits."""
LOOK_EVERY_S = 0.5
"""So often the loop looks whether its companion is still there, where nothing else watches it."""
STREAM_PATIENCE_S = 5.0
"""How long a signal from elsewhere may let us wait for its first value."""


@dataclass
class Runtime:
    """See the module docstring."""

    robot: Robot
    controller: OnnxController
    governor: Governor
    clock: Clock
    recorder: Recorder | None = None
    requests: Requests = field(default_factory=Requests)
    on_state: Callable[[State], None] = lambda state: None
    """Told of every change of state, between ticks."""
    anyway: bool = False
    """Run although the limp robot does not lie in its rest pose."""
    hold: bool = False
    """Pause at the start pose, so that somebody may see to the robot first."""
    reconnect: Reconnect = Reconnect.NEVER
    """What becomes of the run when a device is lost; see `deploy.reconnect`."""
    prove: bool = True
    """Fall silent before anything moves, and see whoever watches this process act."""
    tell: Callable[[str], object] = lambda text: None
    """Told what a person should know."""
    streams: Mapping[SignalKind, Reading] = field(default_factory=dict)
    """Signals from elsewhere, as a camera's tracker; the commands' source brings them in."""
    advice: Sequence[str] = ()
    """What would make the loop more punctual, for the black box."""
    state: State = State.DISCONNECTED

    def __post_init__(self) -> None:
        contract = self.controller.contract
        readings = self._readings()
        understood = [TARGET_OF[mode_of(self.robot.config.robot, self.robot.joints)]]
        if missing := list(lacking(contract, readings, understood)):
            raise ContractError("the policy cannot run on this robot:\n  " + "\n  ".join(missing))
        joints = contract.joints
        self.drive = Drive(
            self.robot,
            self.governor,
            self.clock,
            contract.control_dt_s,
            self.requests,
            poll=self._poll,
            reconnects=self.reconnect is not Reconnect.NEVER,
            on_begin=self._show,
            on_tick=self._record,
        )
        self._start = np.array([joint.default_position_rad for joint in joints])
        self._rest = np.array([self.robot.config.joints[j.name].rest_rad for j in joints])
        self._command = np.zeros(len(contract.command.low), np.float32)
        self._time_s: Floats = np.zeros(1)
        self.ran_s = 0.0
        """How long the policy was in charge, pauses left out [s]."""
        self._controller_s = 0.0
        self._patience_s = math.inf
        self._looked_s = -math.inf
        self._unguarded = [d.name for d in self.robot.devices if d.joints and not d.guarded]
        known: dict[str, NDArray] = {
            "joint_target": self.drive.sent,
            "joint_target_velocity": self.drive.sent,
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
        used = dict(self._others)
        self._gravity = used.get("projected_gravity")
        self._gyroscope = used.get("imu_angular_velocity")
        (self._output,) = self.controller.outputs.values()

    def run(self, commands: CommandSource, duration_s: float) -> None:
        """Connect, move to the start pose, run the policy for `duration_s`, park and let go.

        Raises:
            DeployError: what stopped the robot, after it has reached its safe state.
        """
        if self.state is not State.DISCONNECTED:
            raise SafetyError(
                f"this run is over (state {self.state.name}), a runtime runs once; start a new one"
            )
        self._commands = commands
        try:
            self.robot.connect()
            self.drive.check_bus_speed()
            if not self.anyway:
                self.drive.check_rest("--anyway")
            self._enter(State.IDLE, "\n".join([self.robot.describe(), *self.advice]))
            self._await_streams()
            self.drive.check_stop()
            gc.collect()
            gc.freeze()  # what exists now is never collected: no pauses while the servos watch
            self._drive_robot(duration_s)
            with self._slow():
                self.robot.release()
            self._promise(math.inf)
            self._enter(State.IDLE, self.describe_timing())
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            gc.unfreeze()

    def describe_timing(self) -> str:
        """How punctual the loop was, and how long the stages of its ticks took."""
        overruns = self.drive.ticker.overruns
        return (
            f"{overruns} deadlines missed at {1 / self.drive.period_s:.0f} Hz\n{self.drive.times}"
        )

    def _drive_robot(self, duration_s: float) -> None:
        """All that is done with torque on; what is lost meanwhile is waited for."""
        last_s = duration_s - self.drive.period_s / 2
        loss: DeviceLost | None = None
        while True:
            try:
                if loss:
                    self._recover(loss)
                self._arm(anew=loss is not None)
                self.drive.begin_run()
                if loss is None or (not self.requests.finished and self.ran_s < last_s):
                    self._run_policy(last_s)
                self._command[:] = 0
                self._enter(State.STOPPING)
                self._move(self._rest, "rest", other=np.zeros_like(self._rest))
                return
            except DeviceLost as error:
                if self.reconnect is Reconnect.NEVER or self.state is State.IDLE:
                    raise
                loss = error

    def _recover(self, loss: DeviceLost) -> None:
        """Wait in the safe state for what was lost, and for somebody to resume."""
        requests = self.requests
        alone = self.reconnect is Reconnect.ALONE and not requests.paused
        with self._slow():
            self.drive.make_safe(loss)
        self._promise(math.inf)
        requests.pause()
        self._command[:] = 0
        patience_s = self.robot.config.safety.reconnect_s
        self._tell(f"{loss}; paused, looking for it for {patience_s:g} s", State.PAUSED)
        for text in loss.__notes__:
            self._tell(text)
        find_again(self.drive)
        requests.pause()  # what was pressed meanwhile was pressed without a robot
        if alone:
            requests.resume()
        else:
            self._tell(
                "the robot is back and as it was; it waits for you to resume: p on the keyboard, "
                'START on a gamepad, {"resume": true} over UDP, whichever this run listens to'
            )
        wait_for_resume(self.drive)

    def _arm(self, *, anew: bool) -> None:
        """Hold the robot where it is, with everybody watching who is to watch; proved but once."""
        robot, safety = self.robot, self.robot.config.safety
        patience_s = safety.watchdog_ms / 1000 + GRACE_S
        prove = self.prove and not anew
        if prove and self.recorder is not None:
            let_go = safety.safe_state == "torque_off" and not robot.energised
            drill = self.recorder.drill(patience_s, let_go=let_go)
            self._tell(f"proved: {drill}")
        self.drive.check_stop()
        with self._slow():
            robot.energise()
            for proof in robot.prove(self.clock) if prove else ():
                self._tell(f"proved: {proof}")
            if not self.prove and not anew:
                self._tell("NOT proved: that anybody notices when this process dies (--no-prove)")
            for _ in range(READINGS):  # else one lost reply would find old readings
                robot.read(self.clock.now() + safety.watchdog_ms / 1000 / (READINGS + 1))
                if robot.heard.all():
                    break
        self._promise(patience_s)

    @contextlib.contextmanager
    def _slow(self) -> Iterator[None]:
        """What takes longer than a tick is done in sight of the companion."""
        give_up_s = self.clock.now() + SLOW_S
        patience_s = STALL_S + self.robot.config.safety.watchdog_ms / 1000

        def go_on() -> None:
            with contextlib.suppress(Exception):  # nothing must keep the robot from being made safe
                self._promise(min(patience_s, give_up_s - self.clock.now()))

        go_on()
        with self.robot.meanwhile(go_on):
            yield

    def _promise(self, within_s: float) -> None:
        """Have the companion act if we are not heard of within so long; inf: never."""
        self._patience_s = within_s
        if self.recorder is not None:
            self.recorder.promise(self.clock.now() + within_s)

    def _tell(self, text: str, state: State | None = None) -> None:
        """Tell the black box and whoever looks on; with `state`, that it begins."""
        if state:
            self._enter(state, text)
        else:
            self._note(text)
        self.tell(text)

    def _run_policy(self, last_s: float) -> None:
        """From where the robot is held to the end of the policy's time, pauses left out."""
        requests, ticker = self.requests, self.drive.ticker
        while True:
            self._enter(State.MOVING_TO_START)
            self._move(self._start, "start", other=None)
            self._enter(State.READY)
            if self.hold:
                requests.pause()
                self.hold = False
            if not (requests.paused or requests.finished):
                self.controller.reset()
                self._enter(State.RUNNING)
                started_s, before_s = ticker.deadline_s, self.ran_s
                while not (requests.paused or requests.finished) and self.ran_s < last_s:
                    self._policy_tick(ticker.deadline_s - started_s)
                    self.ran_s = before_s + ticker.deadline_s - started_s
            if requests.finished or self.ran_s >= last_s:
                return
            self._enter(State.PAUSED)
            self._command[:] = 0
            while requests.paused:
                self.drive.stay(self.drive.begin())
            if requests.finished:
                return

    def _move(self, pose: Floats, name: str, *, other: Floats | None) -> None:
        """Ramp to `pose`, and see that the joints are there; `other` is for other targets."""
        if self.governor.mode == "position":
            self.drive.ramp(pose)
            if pose is self._start or self.robot.config.safety.safe_state == "hold":
                self._check_pose(pose, name)  # what is let go may be let go anywhere
        elif other is not None:
            self.drive.ramp(other)

    def _policy_tick(self, time_s: float) -> None:
        self._time_s[:] = time_s
        times = self.drive.begin()
        if self.drive.ticker.consecutive_overruns and self.robot.config.loop.overrun == "hold":
            self.drive.stay(times)
            return
        begin_s = self.clock.now()
        for kind, reading in self._others:
            self.governor.check_reading(kind, reading.values, reading.age_s)
        if self._gravity is not None:
            turning = self._gyroscope
            self.governor.check_upright(
                self._gravity.values, turning.values if turning is not None else None
            )
        self.controller.step()
        self.drive.target[:] = self._output
        self._controller_s = self.clock.now() - begin_s
        self.drive.times.add("controller", self._controller_s)
        self.drive.finish(times, from_policy=True)
        self._controller_s = 0.0

    def _readings(self) -> dict[SignalKind, Reading]:
        """All that is measured; what the robot measures itself is not taken from elsewhere."""
        return {**self.streams, **self.robot.readings}

    def _poll(self) -> None:
        """Be heard of, and hear what is asked for; only a policy in charge is told."""
        self._promise(self._patience_s)
        self._check_watched()
        asked = self._commands(self.ran_s)
        if self.state is State.RUNNING:
            self._command[:] = asked

    def _check_watched(self) -> None:
        """Go on without a companion only where every device watches us itself."""
        if self.recorder is None or not self._unguarded:
            return
        if self.clock.now() > self._looked_s + LOOK_EVERY_S:
            self._looked_s = self.clock.now()
            if not self.recorder.watches():
                raise SafetyError(
                    "the companion process has ended, expected it to make the robot safe should "
                    f"this one be killed or hang: {self._unguarded} cannot notice that by "
                    "themselves. Find out who ended it (too little memory?), then start again"
                )

    def _show(self) -> None:
        """Put the signals where the policy takes them from."""
        for _, values, array in self._inputs:
            array[:] = values

    def _await_streams(self) -> None:
        """Wait for the first value of every signal from elsewhere that the policy uses."""
        wanted = [(kind, self.streams[kind]) for kind, _ in self._others if kind in self.streams]
        give_up_s = self.clock.now() + STREAM_PATIENCE_S
        while missing := [kind for kind, reading in wanted if not np.isfinite(reading.age_s).all()]:
            self._poll()
            self.drive.check_stop()
            if self.clock.now() > give_up_s:
                raise SafetyError(
                    f"nothing came for {missing} in {STREAM_PATIENCE_S:g} s; start what sends "
                    "them, and see that it sends to the port `robotrl run` listens at"
                )
            self.clock.sleep_until(self.clock.now() + self.drive.period_s)

    def _record(self, times: Times) -> None:
        if (recorder := self.recorder) is None:
            return
        record, robot, drive = recorder.record, self.robot, self.drive
        record["time_s"], record["state"] = times.deadline_s, self.state
        record["lateness_s"], record["read_s"] = times.late_s, times.read_s
        record["controller_s"] = self._controller_s
        record["write_s"] = drive.write_s
        record["joint_position"], record["joint_velocity"] = robot.position, robot.velocity
        for kind, _, array in self._inputs:  # as the policy was shown them
            record[kind] = array
        record["joint_age_s"] = robot.age_s
        record["policy_target"], record["sent_target"] = drive.target, drive.sent
        record["limited_by"], record["overruns"] = self.governor.limited_by, drive.ticker.overruns
        for counter in COUNTERS:
            record[counter] = sum(getattr(device.statistics, counter) for device in robot.devices)
        recorder.commit()

    def _check_pose(self, pose: Floats, name: str) -> None:
        config, error = self.robot.config, np.abs(self.robot.position - pose)
        allowed = np.full(len(error), config.safety.pose_tolerance_rad)
        if pose is not self._start:  # a jaw that holds something rests around it
            rests = [config.joints[joint.name].rest_tolerance_rad for joint in self.robot.joints]
            allowed = np.maximum(allowed, rests)
        worst = int((error - allowed).argmax())
        if error[worst] > allowed[worst]:
            raise SafetyError(
                f"joint {self.robot.joints[worst].name!r} is {error[worst]:.2f} rad from the "
                f"{name} pose, allowed {allowed[worst]:g} rad; something blocks it, or its "
                "servo does not follow"
            )

    def _fail(self, error: BaseException) -> None:
        """Bring the robot into its safe state; called on every way out but the normal one."""
        connected = self.state is not State.DISCONNECTED
        with contextlib.suppress(Exception):  # an error may be impossible to put into words
            if self.drive.times.stages:
                self._note(self.describe_timing())
            self.state = State.FAULT
            self._note(f"{type(error).__name__}: {error}")  # now: making safe may be cut short
        self.state = State.FAULT
        if connected:
            with self._slow():
                self.drive.make_safe(error)
        with contextlib.suppress(Exception):
            self._promise(math.inf)
        with contextlib.suppress(Exception):
            if advice := self.robot.advise():
                error.add_note(advice)
            self._note("\n".join(getattr(error, "__notes__", ())))
        with contextlib.suppress(Exception):  # a listener may be what failed
            self.on_state(State.FAULT)

    def _enter(self, state: State, text: str = "") -> None:
        assert state in FOLLOWING[self.state], f"{state.name} after {self.state.name}"
        self.state = state
        self._note(text)
        self.on_state(state)

    def _note(self, text: str) -> None:
        """Put the state, and what there is to say about it, into the black box."""
        if self.recorder is not None:
            self.recorder.note(self.clock.now(), self.state.name.lower(), text)
