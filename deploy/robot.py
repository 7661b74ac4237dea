"""The robot as joints: radians above this file, servos and ticks below it.

    robot = Robot(config, contract.joints, port, approve=ask_the_user)
    robot.connect()                     # checks and sets up every servo; nothing moves
    robot.energise()                    # torque on, holding where it is
    robot.read(deadline_s)              # position, velocity, effort, age_s
    robot.readings["joint_position"]    # the same by kind of signal, for policies: values, age_s
    robot.write(targets)                # [rad]
    robot.verify_next(deadline_s)       # one servo a tick: is it still as it was set up?

Joint arrays are in the contract's order. `connect` refuses a servo that is absent, of another
model, in error or off its supply voltage; gains are computed from the contract's N·m/rad and read
back, so what is on the servo is what was trained. What is kept in a servo's EEPROM, where other
programs store their calibration, changes only with approval.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.dynamixel import registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.registers import (
    RAD_PER_TICK,
    RAD_S_PER_COUNT,
    HardwareError,
    OperatingMode,
    Register,
)
from deploy.reply_times import MARGIN_S
from deploy.dynamixel.servos import MODELS
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.errors import BusError, SafetyError, ServoError
from deploy.robot_config import WATCHDOG_STEP_MS, JointWiring, RobotConfig
from deploy.serial_port import Port, latency_advice
from deploy.signals import SignalKind, TargetKind

_BLOCK = registers.REALTIME_TICK.address  # what we need lies side by side, up to the position
_BLOCK_DTYPE = np.dtype(
    [
        ("tick_ms", "<u2"),
        ("moving", "<u2"),
        ("pwm", "<i2"),
        ("current", "<i2"),
        ("velocity", "<i4"),
        ("position", "<i4"),
    ]
)
_TICK_WRAP_MS = 32768
_TICK_TOLERANCE_MS = 250
_NEIGHBOUR_IDS = range(1, 21)
HOLD_REACH_RAD = 0.1
"""A held joint keeps its last target up to this far from where it is: what a load's droop needs,
and little enough to give way. Holding the measured angle instead would lower the load once more."""
LIMIT_TOLERANCE_TICKS = 8
"""A limp joint may lie this far (0.7°) outside its limits and be held at the nearest one."""
_SETTINGS = registers.TORQUE_ENABLE.address  # what is read back while running lies side by side
_SETTINGS_SIZE = registers.GOAL_POSITION.address + registers.GOAL_POSITION.size - _SETTINGS
GOALS_MISSED = 3
"""A servo found so often in a row with another goal than the one sent does not get what is sent;
noise costs one."""
SUPPLY_TOLERANCE = 0.15
"""A supply may be off by as much: two lithium cells of 7.4 V end at 6.6 V and start at 8.4 V."""
_SET_BY_ENERGISE = (registers.TORQUE_ENABLE, registers.BUS_WATCHDOG)


@dataclass(frozen=True)
class SettingChange:
    """A setting kept in a servo's EEPROM that differs from what the robot needs."""

    joint: str
    id: int
    register: Register
    found: int
    wanted: int

    def __str__(self) -> str:
        return f"{self.joint} (id {self.id}): {self.register} {self.found} -> {self.wanted}"


Approve = Callable[[list[SettingChange]], bool]
"""Asked before EEPROM is changed, with all changes of all servos."""


def refuse_changes(changes: list[SettingChange]) -> bool:
    """Never."""
    return False


class Reading(NamedTuple):
    """A signal as a device measures it; both arrays are live, and the same ones for ever."""

    values: NDArray[np.float64]
    """(n,) elements, in the order and unit of `deploy.signals`."""
    age_s: NDArray[np.float64]
    """(n,) or (1,) age of the elements [s]; infinite before the first."""


_MEASURED: Mapping[str, tuple[SignalKind, ...]] = {
    "dynamixel2": ("joint_position", "joint_velocity"),
}
_UNDERSTOOD: Mapping[str, tuple[TargetKind, ...]] = {"dynamixel2": ("joint_position_target",)}


def measured_signals(config: RobotConfig) -> tuple[SignalKind, ...]:
    """Kinds of signal that the devices of a robot measure: the keys of `Robot.readings`."""
    return _MEASURED[config.bus.protocol]


def understood_targets(config: RobotConfig) -> tuple[TargetKind, ...]:
    """Kinds of target that the joints of a robot obey."""
    return _UNDERSTOOD[config.bus.protocol]


class Robot:
    """Joints of a robot on a Dynamixel bus.

    Args:
        config: wiring and limits.
        joints: joints in the order of all arrays, with their gains.
        port: the open serial port.
        approve: whether settings in the servos' EEPROM may change.
    """

    def __init__(
        self,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        port: Port,
        *,
        approve: Approve = refuse_changes,
    ):
        self.config = config
        self.joints = list(joints)
        self.position: NDArray[np.float64] = np.zeros(len(joints))
        """Latest measured angles [rad]."""
        self.velocity: NDArray[np.float64] = np.zeros(len(joints))
        """Latest measured speeds [rad/s]."""
        self.effort: NDArray[np.float64] = np.zeros(len(joints))
        """Latest duty of the motors, -1 to 1, positive where it turns the joint forwards."""
        self.age_s: NDArray[np.float64] = np.full(len(joints), np.inf)
        """Age of each joint's reading [s]."""
        self.readings: dict[SignalKind, Reading] = {
            "joint_position": Reading(self.position, self.age_s),
            "joint_velocity": Reading(self.velocity, self.age_s),
        }
        """What a policy may be given, by kind."""
        self.energised = False
        """Whether the robot holds itself up, since `energise` or from an earlier run."""
        self.restarted: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        """Joints whose servo has restarted, as after a dip of its supply: limp, gains forgotten."""
        self.firmware: list[int] = []
        """Firmware version of each joint's servo, once connected."""
        self.measured_latency_s = math.nan
        """What adapter and operating system added to a reply when `connect` measured it [s], in
        the median."""
        wirings = [config.joints[joint.name] for joint in joints]
        self._wirings = wirings
        self._ids = [wiring.id for wiring in wirings]
        self._id_of = {joint.name: wiring.id for joint, wiring in zip(joints, wirings, strict=True)}
        self._models = [MODELS[wiring.model] for wiring in wirings]
        self._overfed = np.array(
            [
                wiring.voltage_v * (1 + SUPPLY_TOLERANCE) > model.voltage_limits_v[1]
                for wiring, model in zip(wirings, self._models, strict=True)
            ]
        )
        """Servos that the YAML feeds more than they are rated for: they always complain."""
        self._zero = np.array([wiring.zero_ticks for wiring in wirings])
        self._direction = np.array([wiring.direction for wiring in wirings])
        self._tick_limits = np.array([_tick_limits(wiring) for wiring in wirings])
        self._goal_ticks = np.zeros(len(joints), np.int32)
        self._read_at = np.full(len(joints), -np.inf)
        self._tick_ms = np.zeros(len(joints))
        self._port, self._approve = port, approve
        self.bus = DynamixelBus(
            port, config.bus.baud_rate, usb_latency_s=config.bus.usb_latency_ms / 1000
        )
        self._wanted: list[dict[Register, int]] = []
        self._limp: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        self._feedback: SyncRead | None = None
        self._settings: list[SyncRead] = []
        self._next_row = self._goals_missed = 0
        self._targets = SyncWrite(self.bus, self._ids, registers.GOAL_POSITION)

    def connect(self) -> None:
        """Check every servo and set it up; nothing moves.

        A robot that still holds itself up, as after an emergency stop, is not let go: then only
        settings that need no torque off may differ.

        Raises:
            BusError: a servo is missing, of another model, in error, or refuses a setting; all
                servos that are missing or of another model are named at once.
            ServoError: settings in EEPROM would have to change, and are not approved.
        """
        firmware = self.firmware = self._identify()
        self._wanted = [self._running_settings(row) for row in range(len(self._ids))]
        for row, joint in enumerate(self.joints):
            self._check_health(row, joint.name)
        holding = [bool(self.bus.read(id, registers.TORQUE_ENABLE)) for id in self._ids]
        self.energised, self._limp = any(holding), ~np.array(holding)
        self._goal_ticks[:] = [self.bus.read(id, registers.GOAL_POSITION) for id in self._ids]
        for id in self._ids:  # a watchdog that has tripped locks the goals
            self.bus.write_verified(id, registers.BUS_WATCHDOG, 0)
        self._set_up_eeprom(holding)
        for id, wanted in zip(self._ids, self._wanted, strict=True):
            for register, value in wanted.items():
                if register not in _SET_BY_ENERGISE and self.bus.read(id, register) != value:
                    self.bus.write_verified(id, register, value)
        self.bus.return_delay_s = 0.0
        self.measured_latency_s = self.bus.measure_latency(self._ids)
        fast = all(
            version >= model.fast_read_firmware
            for version, model in zip(firmware, self._models, strict=True)
        )
        self._feedback = SyncRead(self.bus, self._ids, _BLOCK, _BLOCK_DTYPE.itemsize, fast=fast)
        self._settings = [
            SyncRead(self.bus, [id], _SETTINGS, _SETTINGS_SIZE, fast=False) for id in self._ids
        ]
        self.read(self._port.now() + 0.1)
        if silent := [
            joint.name for joint, age in zip(self.joints, self.age_s, strict=True) if age > 1
        ]:
            raise BusError(f"joints {silent} do not answer a sync read; check the cables")

    def energise(self) -> None:
        """Turn torque on, holding the present pose, and arm the servos' watchdogs.

        Raises:
            SafetyError: a joint lies outside its limits: holding it there is not possible, and
                driving it inside is for a person to do.
            BusError: a servo does not confirm.
        """
        present = np.array([self.bus.read(id, registers.PRESENT_POSITION) for id in self._ids])
        self._refuse_outside(present)
        for row, id in enumerate(self._ids):  # a stale goal would make the joint jump
            holds = self.bus.read(id, registers.TORQUE_ENABLE)
            present[row] = self.bus.read(id, registers.PRESENT_POSITION)  # limp, it may have moved
            self._refuse_outside(present)
            goals = self._hold_ticks(present) if holds else np.clip(present, *self._tick_limits.T)
            self.bus.write_verified(id, registers.GOAL_POSITION, int(goals[row]))
            self.bus.write_verified(id, registers.TORQUE_ENABLE, 1)
            self._goal_ticks[row] = goals[row]
        for id, wanted in zip(self._ids, self._wanted, strict=True):
            self.bus.write_verified(id, registers.BUS_WATCHDOG, wanted[registers.BUS_WATCHDOG])
        self.energised = True

    def _refuse_outside(self, present: NDArray[np.integer]) -> None:
        """Raise a SafetyError if a joint, at `present` (n,) counts, is where it cannot be held."""
        goals = np.clip(present, *self._tick_limits.T)
        turned = (present < 0) | (present >= registers.TICKS_PER_TURN)
        if outside := [
            f"{self.joints[row].name} is at {self._to_rad(present)[row]:.2f} rad (count "
            f"{present[row]}), its limits are {list(self._wirings[row].position_limits_rad)} rad"
            for row in np.flatnonzero(turned | (abs(goals - present) > LIMIT_TOLERANCE_TICKS))
        ]:
            raise SafetyError(
                f"{'; '.join(outside)}. Torque stays off, since it would throw the joint to its "
                "limit. Move it inside by hand; if it looks inside already, its `zero_ticks` or "
                "`direction` in the robot's YAML is wrong, or its horn is mounted one tooth off"
            )

    def read(self, deadline_s: float) -> int:
        """Read all joints; joints that did not answer keep their last value and grow older.

        Args:
            deadline_s: time on the port's clock to be done at.

        Returns:
            How many joints answered.
        """
        feedback = self._feedback
        assert feedback is not None, "connect() comes first"
        asked_s = self._port.now()  # what comes late is old, also after a pause in between
        answered = feedback.read(deadline_s)
        values = feedback.data.view(_BLOCK_DTYPE)[:, 0]
        fresh = feedback.fresh
        np.copyto(self.position, self._to_rad(values["position"]), where=fresh)
        for signal, name, scale in (
            (self.velocity, "velocity", RAD_S_PER_COUNT),
            (self.effort, "pwm", 1 / registers.PWM_FULL),
        ):
            np.multiply(values[name], self._direction * scale, out=signal, where=fresh)
        self._notice_restarts(values["tick_ms"], fresh, asked_s)
        self._read_at[fresh] = asked_s
        np.subtract(self._port.now(), self._read_at, out=self.age_s)
        return answered

    @property
    def target(self) -> NDArray[np.float64]:
        """The targets sent last, as the servos have them (n,) [rad]."""
        return self._to_rad(self._goal_ticks)

    @property
    def read_s(self) -> float:
        """Time a reading of all joints takes [s]."""
        assert self._feedback is not None, "connect() comes first"
        return self._feedback.wire_s + self.adapter_s

    @property
    def adapter_s(self) -> float:
        """What is reckoned for the adapter in that [s]: its median latency and a margin."""
        return self.measured_latency_s + MARGIN_S

    def describe(self) -> str:
        """What was found when connecting: servos, their firmware, and the bus."""
        servos = [
            f"{joint.name}: {model.name} firmware {firmware}"
            for joint, model, firmware in zip(self.joints, self._models, self.firmware, strict=True)
        ]
        return f"{', '.join(servos)}; reading all takes {self.describe_reading()}"

    def describe_reading(self) -> str:
        """How long a reading of all joints takes, and why."""
        assert self._feedback is not None, "connect() comes first"
        wire_ms, latency_ms = self._feedback.wire_s * 1e3, self.adapter_s * 1e3
        bus = self.config.bus
        return (
            f"{wire_ms + latency_ms:.1f} ms: {wire_ms:.1f} ms on the wire at {bus.baud_rate} baud, "
            f"{latency_ms:.1f} ms for the adapter (measured {self.measured_latency_s * 1e3:.1f} "
            f"ms, `bus.usb_latency_ms` says {bus.usb_latency_ms:g})"
        )

    def advise_on_latency(self) -> str:
        """What to do if readings were lost because replies came late; empty if none were."""
        statistics = self.bus.statistics
        if not (statistics.late and statistics.lost):
            return ""
        return (
            f"{statistics.late} replies came late, {statistics.lost} readings were lost: replies "
            f"took {statistics.reply_times}, `bus.usb_latency_ms` says "
            f"{self.config.bus.usb_latency_ms:g} ms. If it stays so, "
            f"{latency_advice(self.config.bus.port)}"
        )

    @property
    def alerts(self) -> NDArray[np.bool_]:
        """Joints whose servo reports a hardware error; `verify_next` asks those that always do."""
        assert self._feedback is not None, "connect() comes first"
        return self._feedback.alert & ~self._overfed

    def write(self, targets: NDArray[np.float64]) -> None:
        """Send joint targets (n,) [rad]."""
        self._goal_ticks[:] = self._to_ticks(targets)
        self._targets.write(self._goal_ticks)

    def verify_next(self, deadline_s: float, *, due: bool = False) -> str | None:
        """Read back whether one servo is still set up as it was: the next one at each call.

        Args:
            deadline_s: time on the port's clock to be done at.
            due: ask also if the reply may come too late, as a reading of the joints does.

        Returns:
            What is wrong with it, empty if nothing is or it did not answer; None if there was too
            little time to ask.
        """
        row = self._next_row
        settings = self._settings[row]
        latency_s = 0.0 if due else self.bus.latency_s
        if self._port.now() + settings.wire_s + latency_s > deadline_s:
            return None
        self._next_row = (row + 1) % len(self._ids)
        answered = settings.read(deadline_s)
        np.subtract(self._port.now(), self._read_at, out=self.age_s)
        if not answered:
            return ""
        data = settings.data[0].tobytes()
        status = registers.HARDWARE_ERROR_STATUS
        if faults := self._faults(row, status.decode(data[status.address - _SETTINGS :][:1])):
            return f"{self.joints[row].name}: {_describe(faults)}"
        for register, wanted in self._wanted[row].items():
            start = register.address - _SETTINGS
            if (found := register.decode(data[start : start + register.size])) != wanted:
                return f"{self.joints[row].name}: its {register} reads {found}, expected {wanted}"
        register = registers.GOAL_POSITION
        found, sent = register.decode(data[register.address - _SETTINGS :]), self._goal_ticks[row]
        self._goals_missed = self._goals_missed + 1 if found != sent else 0
        if self._goals_missed:
            self._next_row = row  # it is asked again next
        if self._goals_missed < GOALS_MISSED:
            return ""
        self._goal_ticks[row] = found  # what it is to hold
        return f"{self.joints[row].name}: its {register} reads {found}, {sent} was sent"

    def rest_differences(self) -> list[str]:
        """Joints found limp that are not where the YAML says that the unpowered robot rests."""
        differences = []
        for row in np.flatnonzero(self._limp):
            joint, wiring, angle = self.joints[row], self._wirings[row], self.position[row]
            if abs(angle - wiring.rest_rad) > wiring.rest_tolerance_rad:
                shift = wiring.direction * (angle - wiring.rest_rad) / RAD_PER_TICK
                differences.append(
                    f"{joint.name} reads {angle:+.2f} rad, at rest it should read "
                    f"{wiring.rest_rad:+.2f} ± {wiring.rest_tolerance_rad:g} rad; if it does lie "
                    f"at rest, its zero is at count {round(wiring.zero_ticks + shift)}, not "
                    f"{wiring.zero_ticks}, or its direction is {-wiring.direction:+d}"
                )
        return differences

    def hold(self) -> None:
        """Stop: one command to all, then each goal is read back.

        Each joint keeps the target sent last, as far as that is within `HOLD_REACH_RAD` of where
        it was seen; a joint not seen lately just keeps its target. Servos that confirm are then
        told to stop watching the bus: they hold anyway, and the watchdog would set the goal to
        wherever the load has pulled the joint.

        Raises:
            BusError: names the servos that do not confirm; the others hold.
        """
        seen = self._port.now() - self._read_at <= self.config.safety.stale_after_ms / 1000
        np.copyto(self._goal_ticks, self._hold_ticks(self._to_ticks(self.position)), where=seen)
        self._targets.write(self._goal_ticks)

        goals = dict(zip(self._ids, self._goal_ticks.tolist(), strict=True))

        def confirm(id: int) -> None:
            goal, tripped = goals[id], registers.BUS_WATCHDOG_TRIPPED
            if (
                self.bus.read(id, registers.GOAL_POSITION) != goal
                and self.bus.read(id, registers.BUS_WATCHDOG) != tripped
            ):
                self.bus.write_verified(id, registers.GOAL_POSITION, goal)
            if not self.bus.read(id, registers.TORQUE_ENABLE):
                raise ServoError(f"servo {id}: {registers.TORQUE_ENABLE} reads 0, it has let go")
            self.bus.write_verified(id, registers.BUS_WATCHDOG, 0)

        _for_each_servo(self._id_of, confirm)

    def release(self) -> None:
        """Turn torque off, and the watchdogs; see `release_servos`."""
        release_servos(self.bus, self._id_of)
        self.energised = False

    def describe_alerts(self) -> str:
        """What the servos in alert complain about."""
        complaints = []
        for row in np.flatnonzero(self.alerts):
            status = self.bus.read(self._ids[row], registers.HARDWARE_ERROR_STATUS)
            complaints.append(f"{self.joints[row].name}: {_describe(status)}")
        return ", ".join(complaints)

    def _notice_restarts(
        self, tick_ms: NDArray[np.uint16], fresh: NDArray[np.bool_], now_s: float
    ) -> None:
        """A servo's clock starts at 0 again when it does; ours does not."""
        ours_ms = (now_s - self._read_at) * 1e3
        known = fresh & np.isfinite(ours_ms)
        drift_ms = (tick_ms[known] - self._tick_ms[known] - ours_ms[known]) % _TICK_WRAP_MS
        off = np.minimum(drift_ms, _TICK_WRAP_MS - drift_ms) > _TICK_TOLERANCE_MS
        self.restarted[known] |= off
        self._tick_ms[fresh] = tick_ms[fresh]

    def _identify(self) -> list[int]:
        """Firmware of every servo, after checking that all are there and are what we expect."""
        found = self.bus.scan(self._ids)
        missing = [
            f"{joint.name} (id {id})"
            for joint, id in zip(self.joints, self._ids, strict=True)
            if id not in found and not self.bus.scan([id])  # one lost reply is no missing servo
        ]
        if missing:
            others = self.bus.scan(id for id in _NEIGHBOUR_IDS if id not in self._ids)
            answering = sorted({*found, *others})
            raise BusError(
                f"no answer from {', '.join(missing)}; ids that do answer at "
                f"{self.config.bus.baud_rate} baud: {answering or 'none'}. Check power, cables, "
                "servo ids and `bus.baud_rate`"
            )
        identities = [found.get(id) or self.bus.ping(id) for id in self._ids]
        names = {model.model_number: model.name for model in MODELS.values()}
        wrong = [
            f"{joint.name} (id {id}) is {names.get(number, f'model number {number}')}, "
            f"expected {model.name}"
            for joint, id, model, (number, _) in zip(
                self.joints, self._ids, self._models, identities, strict=True
            )
            if number != model.model_number
        ]
        if wrong:
            raise ServoError(f"{'; '.join(wrong)}; correct the robot's YAML or the servo ids")
        return [firmware for _, firmware in identities]

    def _check_health(self, row: int, name: str) -> None:
        id, expected = self._ids[row], self._wirings[row].voltage_v
        if faults := self._faults(row, self.bus.read(id, registers.HARDWARE_ERROR_STATUS)):
            raise ServoError(
                f"{name} (id {id}) reports {_describe(faults)}; remove the cause, then switch its "
                "power off and on"
            )
        volts = self.bus.read(id, registers.PRESENT_INPUT_VOLTAGE) * 0.1
        if abs(volts / expected - 1) > SUPPLY_TOLERANCE:
            raise ServoError(
                f"{name} (id {id}) is supplied with {volts:.1f} V, expected {expected:g} V ± "
                f"{SUPPLY_TOLERANCE:.0%}; check power supply or battery, or correct `supply_v` in "
                "the robot's YAML"
            )

    def _faults(self, row: int, status: int) -> int:
        """What a Hardware Error Status says beyond what the YAML has the servo put up with."""
        return status & ~HardwareError.INPUT_VOLTAGE if self._overfed[row] else status

    def _set_up_eeprom(self, holding: list[bool]) -> None:
        """Change what is kept in EEPROM where it differs and that is approved."""
        changes = []
        for row, (joint, id) in enumerate(zip(self.joints, self._ids, strict=True)):
            low, high = self._tick_limits[row].tolist()
            wanted = {
                registers.RETURN_DELAY_TIME: 0,
                registers.DRIVE_MODE: 0,
                registers.HOMING_OFFSET: 0,
                registers.PWM_LIMIT: registers.PWM_FULL,
                registers.OPERATING_MODE: int(OperatingMode.POSITION),
                registers.MIN_POSITION_LIMIT: low,
                registers.MAX_POSITION_LIMIT: high,
            }
            if self._overfed[row]:  # else it lets go
                wanted[registers.SHUTDOWN] = self._faults(row, self._models[row].shutdown)
            for register, value in wanted.items():
                if (found := self.bus.read(id, register)) != value:
                    changes.append(SettingChange(joint.name, id, register, found, value))
                    if holding[row]:
                        raise ServoError(
                            f"{joint.name} (id {id}) holds torque and its {register} is {found}, "
                            f"expected {value}; support the robot and run `robotrl release`, then "
                            "start again"
                        )
        if changes and not self._approve(changes):
            listed = "\n  ".join(map(str, changes))
            raise ServoError(
                f"settings kept in the servos would have to change:\n  {listed}\nThey may be "
                "another program's calibration, so nothing was changed. Approve it to go on"
            )
        for change in changes:
            self.bus.write_verified(change.id, change.register, change.wanted)

    def _running_settings(self, row: int) -> dict[Register, int]:
        """What a servo's RAM must hold while the robot runs."""
        joint, model = self.joints[row], self._models[row]
        effort = joint.effort_limit_nm
        return {
            registers.TORQUE_ENABLE: 1,
            registers.POSITION_P_GAIN: model.p_gain(joint.kp_nm_per_rad, effort),
            registers.POSITION_I_GAIN: 0,
            registers.POSITION_D_GAIN: model.d_gain(joint.kd_nm_s_per_rad, effort),
            registers.FEEDFORWARD_1ST_GAIN: 0,
            registers.FEEDFORWARD_2ND_GAIN: 0,
            registers.BUS_WATCHDOG: self.config.safety.watchdog_ms // WATCHDOG_STEP_MS,
            registers.GOAL_PWM: registers.PWM_FULL,
            registers.PROFILE_ACCELERATION: 0,
            registers.PROFILE_VELOCITY: 0,
        }

    def _hold_ticks(self, present: NDArray[np.integer]) -> NDArray[np.integer]:
        """Goals (n,) that stop each joint near `present`, see `HOLD_REACH_RAD`."""
        reach = round(HOLD_REACH_RAD / RAD_PER_TICK)
        return np.clip(np.clip(self._goal_ticks, present - reach, present + reach),
                       *self._tick_limits.T)  # fmt: skip

    def _to_rad(self, ticks: NDArray[np.integer]) -> NDArray[np.float64]:
        """Servo counts (n,) -> joint angles [rad]."""
        return (ticks - self._zero) * (self._direction * RAD_PER_TICK)

    def _to_ticks(self, angles: NDArray[np.float64]) -> NDArray[np.int32]:
        """Joint angles (n,) [rad] -> the nearest servo counts."""
        return np.rint(angles * self._direction / RAD_PER_TICK + self._zero).astype(np.int32)


def release_servos(bus: DynamixelBus, id_of: dict[str, int]) -> None:
    """Turn torque off: one command to all, then each servo is written and read back.

    Their watchdogs are switched off as well: one that is left armed trips in the silence that
    follows, and the servo then refuses the next program's goals.

    Args:
        bus: the bus.
        id_of: servo id of each joint.

    Raises:
        BusError: names the servos that do not confirm; the others are limp.
    """
    bus.broadcast_write(registers.TORQUE_ENABLE, 0)
    for register in (registers.TORQUE_ENABLE, registers.BUS_WATCHDOG):
        _for_each_servo(id_of, lambda id, register=register: bus.write_verified(id, register, 0))


def _for_each_servo(id_of: dict[str, int], action: Callable[[int], None]) -> None:
    """Call action(id) for every servo, and raise what went wrong only afterwards."""
    errors = []
    for name, id in id_of.items():
        try:
            action(id)
        except BusError as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise BusError("; ".join(errors))


def _describe(status: int) -> str:
    flags = [flag.name.lower().replace("_", " ") for flag in HardwareError(status) if flag.name]
    return " and ".join(flags)


def _tick_limits(wiring: JointWiring) -> tuple[int, int]:
    """Servo counts of the joint's hardware limits."""
    ends = [
        wiring.zero_ticks + wiring.direction * round(limit / RAD_PER_TICK)
        for limit in wiring.position_limits_rad
    ]
    return max(0, min(ends)), min(registers.TICKS_PER_TURN - 1, max(ends))
