"""A board that drives joints and measures them, as a device of the robot.

    board = Microcontroller("board", config, contract.joints, port)
    board.connect()                      # who is it, what can it do; nothing moves
    board.energise()                     # position: where the joints are; else zero
    board.read(deadline_s)
    board.write(targets)                 # each one feeds the board's deadman

The deadman is the robot's `safety.watchdog_ms` and travels in every command. A board that stopped
by itself stays so until `energise`; one that restarted obeys nothing until it was greeted, so in
the middle of a run it counts as gone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.device import Approve, Floats, Reading, mode_of, refuse_changes
from deploy.errors import BusError, ConfigError, SafetyError, ServoError
from deploy.imu.sample import Sample, unit
from deploy.imu.signals import ImuSignals
from deploy.microcontroller.config import MicrocontrollerConfig
from deploy.microcontroller.frames import MessageType
from deploy.microcontroller.link import Link
from deploy.microcontroller.messages import (
    AGE_STEP_S,
    MAX_DEADMAN_MS,
    NEVER,
    After,
    Mode,
    Parts,
    Reason,
    Refusal,
    State,
    Status,
    Welcome,
    encode_command,
)
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port
from deploy.signals import SignalKind

HOLD_REACH_RAD = 0.1
"""A held joint keeps its last target up to this far from where it is: what a load's droop needs."""
_NO_TARGETS = np.zeros(0, np.float32)
_REASONS = {
    Reason.BY_HOST: "a stop that was sent to it",
    Reason.SILENCE: "silence: no command came in the deadman's time",
    Reason.PIN: "its emergency stop, which is pressed",
    Reason.FAULT: "a fault that it has found",
}


class Microcontroller:
    """See the module docstring, and `deploy.device.Device`.

    Args:
        name: as in the robot's YAML.
        config: the robot; `id` of a joint is its place on the board.
        joints: those on the board, all of one operating mode.
        port: the open port.
        approve: nothing is kept on the board, so never asked.

    Raises:
        ConfigError: the joints are driven in different ways, or the deadman's time is too long.
    """

    def __init__(
        self,
        name: str,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        port: Port,
        *,
        approve: Approve = refuse_changes,
    ):
        section = config.wired[name]
        assert isinstance(section, MicrocontrollerConfig)
        self.name, self.config, self._safety = name, section, config.safety
        self.joints: Sequence[str] = [joint.name for joint in joints]
        self._mode = Mode[mode_of(name, joints).upper()] if joints else Mode.OFF
        if config.safety.watchdog_ms > MAX_DEADMAN_MS:
            raise ConfigError(
                f"safety.watchdog_ms is {config.safety.watchdog_ms}, but the deadman of board "
                f"{name!r} can wait {MAX_DEADMAN_MS} ms at most; lower it"
            )
        wirings = [config.joints[joint] for joint in self.joints]
        self._wirings = wirings
        self._places = np.array([wiring.id for wiring in wirings], int)
        self._direction = np.array([float(wiring.direction) for wiring in wirings])
        self._effort_limit = np.array([joint.effort_limit_nm for joint in joints])
        count = len(joints)
        self.position, self.velocity, self.torque = np.zeros((3, count))
        self.effort: Floats = np.full(count, np.nan)
        self.age_s: Floats = np.full(count, np.inf)
        self.heard: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self.imu = ImuSignals(section.imu.mounting) if section.imu else None
        self.readings: Mapping[SignalKind, Reading] = {
            "joint_position": Reading(self.position, self.age_s),
            "joint_velocity": Reading(self.velocity, self.age_s),
            "joint_effort": Reading(self.torque, self.age_s),
            **(self.imu.readings if self.imu else {}),
        }
        self.target: Floats = np.zeros(count)
        """The targets sent last (n,), in the unit of the joints' operating mode."""
        self.energised = False
        self.link = Link(port, section.baud_rate)
        self.statistics = self.link.statistics
        self.welcome: Welcome | None = None
        self._port = port
        self._on_board = np.zeros(count, np.float32)
        self._read_at = np.full(count, -np.inf)
        self._fresh: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self._said, self._measured = np.zeros((count, 3), np.float32), np.zeros((count, 3))
        ours = (self.position, self.velocity, self.torque)
        self._columns = tuple(zip(ours, self._measured.T, strict=True))
        self._after = After.HOLD if config.safety.safe_state == "hold" else After.LET_GO

    @property
    def read_s(self) -> float:
        """Longest time an answer usually takes."""
        return self.link.wire_s + self.adapter_s

    @property
    def adapter_s(self) -> float:
        """What is reckoned for adapter and board in that."""
        return self.link.adapter_s

    def connect(self) -> None:
        """Greet the board and check what it is; what holds is not let go.

        Raises:
            BusError: it does not answer, has other joints, or no IMU where one is expected.
        """
        welcome = self._greet()
        if self._mode not in welcome.modes:
            can = ", ".join(sorted(mode.name.lower() for mode in welcome.modes))
            raise BusError(
                f"board {self.name!r} obeys {can}, the policy sends {self._mode.name.lower()}; "
                "load a sketch that does, or another policy"
            )
        state = self.link.ask(MessageType.POLL)
        for _ in range(7):  # the best of a few gives the offset of the clocks
            state = self.link.ask(MessageType.POLL)
        self.energised = bool(state.parts & Parts.MOTORS_ON)
        self._take(state)

    def energise(self) -> None:
        """Clear an earlier stop, and hold: the present position, or zero.

        Raises:
            SafetyError: the board stays stopped, or a joint is outside its limits.
            ServoError: it refuses.
        """
        self._take(self.link.ask(MessageType.POLL))
        if self._mode == Mode.POSITION:
            self._refuse_outside()
        start = self.position if self._mode == Mode.POSITION else np.zeros(len(self.joints))
        if self.link.state.status == Status.STOPPED:
            state = self.link.ask(MessageType.CLEAR)
            if state.status == Status.STOPPED:
                raise SafetyError(
                    f"board {self.name!r} is stopped by {_REASONS[Reason(state.reason)]}, expected "
                    "it to be clear; release the stop or remove the cause, then start again"
                )
        state = self._command(start)
        if state.refused or state.status != Status.DRIVEN:
            raise ServoError(
                f"board {self.name!r} refuses to drive: "
                f"{Refusal(state.refused).name.lower().replace('_', ' ')}, expected it to hold; "
                "switch it off and on, then start again"
            )
        self.energised = True

    def read(self, deadline_s: float) -> int:
        """Ask for the state, twice if there is time; without an answer everything grows older."""
        self.link.send(MessageType.POLL)
        again_s = self._port.now() + self.read_s
        answered = self.link.receive(min(again_s, deadline_s))
        if not answered and again_s + self.read_s < deadline_s:
            self.statistics.retried += 1
            self.link.send(MessageType.POLL)
            answered = self.link.receive(deadline_s)
        if answered:
            self._take(self.link.state)
        else:
            self.statistics.lost += 1
        self.heard.fill(answered)
        self._grow_older()
        return int(answered)

    def write(self, targets: Floats) -> None:
        """Send targets (n,); the answer is read with the next poll's."""
        self.link.send(MessageType.COMMAND, self._encode(targets))

    def alarm(self) -> str:
        """A board that has stopped by itself, restarted or refuses; an IMU that has frozen."""
        state = self.link.state
        if state.status == Status.WAITING:
            return (
                f"board {self.name!r} has restarted, expected it to run on; check its supply for "
                "dips, then start again"
            )
        if self.energised and state.status == Status.STOPPED:
            return f"board {self.name!r} was stopped by {_REASONS[Reason(state.reason)]}"
        if self.energised and state.refused:
            return f"board {self.name!r} refuses: {Refusal(state.refused).name.lower()}"
        return self.imu.alarm(self._port.now()) if self.imu else ""

    def health(self, deadline_s: float, *, due: bool = False) -> None:
        """Nothing to read back: every state says all there is."""
        self._grow_older()

    def hold(self) -> None:
        """Stop, latched: keep the position targets, near where the joints are; else zero.

        Raises:
            BusError: the board does not confirm.
        """
        if self.link.state.status == Status.DRIVEN:
            target = np.zeros(len(self.joints))
            if self._mode == Mode.POSITION:
                reach = HOLD_REACH_RAD
                target = np.clip(self.target, self.position - reach, self.position + reach)
            self._command(target, After.HOLD)
        state = self.link.ask(MessageType.STOP)
        if state.status != Status.STOPPED or not state.parts & Parts.MOTORS_ON:
            raise ServoError(
                f"board {self.name!r} does not hold (status {state.status}), expected it to be "
                "stopped with its motors on; support the robot and cut the power"
            )

    def release(self) -> None:
        """Let go, whatever it is doing.

        Raises:
            BusError: the board does not confirm.
        """
        if self.welcome is None:
            self.welcome = self.link.hello()
        state = self.link.ask(
            MessageType.COMMAND, encode_command(Mode.OFF, After.LET_GO, 0, _NO_TARGETS)
        )
        if state.parts & Parts.MOTORS_ON:
            raise ServoError(
                f"board {self.name!r} keeps its motors on, expected it to let go; cut the power"
            )
        self.energised = False

    def rescue(self, *, let_go: bool) -> None:
        """Hold, or let go, what another program has left; see `deploy.device.Device`.

        The greeting starts a new count of frames, and is no command: the deadman runs on. What is
        held is held as that program's last command said.
        """
        self.welcome = self.link.hello()
        if let_go:
            self.release()
        elif self.link.ask(MessageType.POLL).status == Status.DRIVEN:
            self.link.ask(MessageType.STOP)

    guarded = True

    def prove(self) -> str:
        """Whether the deadman has stopped the joints; a poll does not feed it."""
        state = self.link.ask(MessageType.POLL)
        held = bool(state.parts & Parts.MOTORS_ON)
        if (state.status, state.reason) != (Status.STOPPED, Reason.SILENCE):
            raise SafetyError(
                f"the deadman of board {self.name!r} did not stop its joints (status "
                f"{state.status}), expected it to after {self._safety.watchdog_ms} ms without a "
                "command; its sketch does not call `rrl_tick` often enough"
            )
        if held != (self._after == After.HOLD):
            raise SafetyError(
                f"the deadman of board {self.name!r} left its motors {'on' if held else 'off'}, "
                "expected the robot's `safe_state`; correct its sketch"
            )
        return f"its board had stopped the joints and {'holds' if held else 'let go of'} them"

    def watchdog(self) -> str:
        """What stops the joints when the host falls silent."""
        after = "holds them" if self._after == After.HOLD else "lets them go"
        return (
            f"its board stops the joints and {after} {self._safety.watchdog_ms} ms after the last "
            "command, unless its own program hangs"
        )

    def rest_differences(self) -> list[str]:
        """Limp joints that are driven by position and do not lie where the YAML says."""
        if self.energised or self._mode != Mode.POSITION:
            return []
        return [
            f"{joint} reads {angle:+.2f} rad, at rest it should read {wiring.rest_rad:+.2f} ± "
            f"{wiring.rest_tolerance_rad:g} rad; if it does lie at rest, its zero on the board or "
            "its direction is wrong"
            for joint, wiring, angle in zip(
                self.joints, self._wirings, self.position.tolist(), strict=True
            )
            if abs(angle - wiring.rest_rad) > wiring.rest_tolerance_rad
        ]

    def describe(self) -> str:
        """What was found when connecting."""
        welcome = self.welcome
        assert welcome is not None, "connect() comes first"
        return (
            f"{self.name}: firmware {welcome.firmware}, id {welcome.uid.hex()}, "
            f"{self.link.state.supply_mv / 1000:.1f} V"
        )

    def describe_reading(self) -> str:
        """How long a reading takes, and why."""
        wire_ms, rest_ms = self.link.wire_s * 1e3, self.adapter_s * 1e3
        return f"{self.name}: {wire_ms:.1f} ms on the wire, {rest_ms:.1f} ms for adapter and board"

    def look(self) -> str:
        """How it is, in a line; nothing needs to be connected, and nothing moves.

        Raises:
            BusError: it does not answer, or has other joints.
        """
        welcome = self._greet()
        state = self.link.ask(MessageType.POLL)
        self._take(state)
        obeys = ", ".join(sorted(mode.name.lower() for mode in welcome.modes))
        angles = zip(self.joints, self.position.tolist(), strict=True)
        driven = "on" if state.parts & Parts.MOTORS_ON else "off"
        imu = f", down is {(self.imu.gravity.round(2) + 0.0).tolist()}" if self.imu else ""
        return (
            f"{self.describe()}, obeys {obeys}, motors {driven}, "
            f"{', '.join(f'{joint} at {angle:+.2f} rad' for joint, angle in angles)}{imu}"
        )

    def advise(self) -> str:
        """What to do if answers were lost."""
        if not self.statistics.lost:
            return ""
        state = self.link.state
        return (
            f"{self.name}: {self.statistics.lost} answers did not come in time; it missed "
            f"{state.lost} frames and received {state.damaged} damaged ones. If it stays so, check "
            "the cable, and that its sketch never waits"
        )

    def _encode(self, targets: Floats, after: After | None = None) -> bytes:
        self.target[:] = targets
        self._on_board[self._places] = self._direction * targets
        after = self._after if after is None else after
        return encode_command(self._mode, after, self._safety.watchdog_ms, self._on_board)

    def _greet(self) -> Welcome:
        """What the board says of itself, if it is the one of the robot's YAML."""
        before, welcome = self.welcome, self.link.hello()
        if before and before.uid != welcome.uid:
            raise ServoError(
                f"board {self.name!r} has id {welcome.uid.hex()}, expected {before.uid.hex()}, "
                "which was there before; plug that one in again, or start anew"
            )
        self.welcome, count = welcome, len(self.joints)
        if welcome.joints != count or sorted(self._places) != list(range(count)):
            raise BusError(
                f"board {self.name!r} has {welcome.joints} joints, the robot's YAML gives it "
                f"{count}, with id {sorted(self._places.tolist())}; number them from 0 to "
                f"{welcome.joints - 1}, or load the right sketch"
            )
        if self.imu and not welcome.parts & Parts.IMU:
            raise BusError(
                f"board {self.name!r} has no IMU, the robot's YAML says `imu:`; check the sensor's "
                "wires, or leave `imu:` out"
            )
        return welcome

    def _command(self, targets: Floats, after: After | None = None) -> State:
        before_deadman_s = self._safety.watchdog_ms / 2000
        return self.link.ask(MessageType.COMMAND, self._encode(targets, after), before_deadman_s)

    def _take(self, state: State) -> None:
        """Bring the readings up to date; a position that is no number is no reading."""
        state.joints.take(self._places, axis=0, out=self._said, mode="clip")
        np.multiply(self._said, self._direction[:, None], out=self._measured)
        fresh = np.isfinite(self._measured[:, 0], out=self._fresh)
        if state.joints_age == NEVER:
            fresh.fill(False)
        for ours, theirs in self._columns:
            np.copyto(ours, theirs, where=fresh)
        np.divide(self.torque, self._effort_limit, out=self.effort)
        np.copyto(self._read_at, self.link.measured_s(state.joints_age), where=fresh)
        if self.imu and state.parts & Parts.IMU and state.imu_age != NEVER:
            spin, gravity = state.imu.astype(float).tolist()
            down = unit((gravity[0], gravity[1], gravity[2]), 0.95, 1.05)
            if down is not None and np.isfinite(spin).all():
                sample = Sample((spin[0], spin[1], spin[2]), down, state.imu.tobytes())
                self.imu.take(sample, self.link.sent_s - state.imu_age * AGE_STEP_S)
            else:
                self.imu.implausible += 1
            self.statistics.implausible = self.imu.implausible

    def _grow_older(self) -> None:
        now_s = self._port.now()
        np.subtract(now_s, self._read_at, out=self.age_s)
        if self.imu:
            self.imu.grow_older(now_s)

    def _refuse_outside(self) -> None:
        for joint, wiring, angle in zip(
            self.joints, self._wirings, self.position.tolist(), strict=True
        ):
            low, high = wiring.position_limits_rad
            if not low - 0.02 <= angle <= high + 0.02:
                raise SafetyError(
                    f"{joint} is at {angle:.2f} rad, its limits are [{low}, {high}] rad. It stays "
                    "limp, since driving it would throw it to its limit; move it inside by hand"
                )
