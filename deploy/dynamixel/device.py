"""DYNAMIXEL X servos as a device: registers, bus watchdog, and how a restart is noticed.

    servos = DynamixelServos("bus", config, contract.joints, port, approve=ask_the_user)

One fast sync read a tick brings clock, duty, current, velocity and position of every servo, or all
but the clock and what an inertial sensor among them measures (`deploy.dynamixel.imu`). One sync
write sends their goals: positions, velocities or, where the model measures it, currents for the
torques of the contract. Each servo watches the bus: silence longer than `safety.watchdog_ms` stops
it where it is, with torque on; in Current Control Mode it is then driven no more.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.device import Approve, refuse_changes
from deploy.dynamixel import registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.imu import BusImu
from deploy.dynamixel.registers import RAD_S_PER_COUNT, HardwareError, OperatingMode
from deploy.dynamixel.servos import MODELS, MODES, ServoModel
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.errors import SafetyError, ServoError
from deploy.imu import imu_to_dxl
from deploy.robot_config import WATCHDOG_STEP_MS, JointWiring, RobotConfig
from deploy.serial_port import Port
from deploy.servos.bus import ATTEMPTS
from deploy.servos.device import ServoDevice
from deploy.servos.register import Register, describe
from deploy.servos.scale import Linear

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
_MOTION_DTYPE = np.dtype(
    [(name, _BLOCK_DTYPE[name]) for name in ("pwm", "current", "velocity", "position")]
)
"""What is left of it beside an inertial sensor: from where that begins."""
_GOAL_IN: Mapping[int, Register] = {
    OperatingMode.VELOCITY: registers.GOAL_VELOCITY,
    OperatingMode.CURRENT: registers.GOAL_CURRENT,
    OperatingMode.PWM: registers.GOAL_PWM,
}
"""Where it is not the position."""
_ARM_S = 0.01
"""Time to ask those again that do not say whether their watchdog is on: less than it waits."""
_TICK_WRAP_MS = 32768
_TICK_TOLERANCE_MS = 250


class DynamixelServos(ServoDevice):
    """See the module docstring."""

    CONTROL_TABLE = registers.CONTROL_TABLE
    TORQUE_ENABLE = registers.TORQUE_ENABLE
    GOALS = MappingProxyType(
        {
            "position": registers.GOAL_POSITION,
            "velocity": _GOAL_IN[OperatingMode.VELOCITY],
            "torque": _GOAL_IN[OperatingMode.CURRENT],
        }
    )
    PRESENT_POSITION = registers.PRESENT_POSITION
    PRESENT_VOLTAGE = registers.PRESENT_INPUT_VOLTAGE
    PRESENT_TEMPERATURE = registers.PRESENT_TEMPERATURE
    FAULTS = registers.HARDWARE_ERROR_STATUS
    SUPPLY_FAULT = HardwareError.INPUT_VOLTAGE
    SETTINGS = range(
        registers.TORQUE_ENABLE.address,
        registers.PRESENT_TEMPERATURE.address + registers.PRESENT_TEMPERATURE.size,
    )
    BLOCK = _BLOCK_DTYPE
    SET_BY_ENERGISE = (registers.TORQUE_ENABLE, registers.BUS_WATCHDOG)

    bus: DynamixelBus

    def __init__(
        self,
        name: str,
        config: RobotConfig,
        joints: Sequence[JointSpec],
        port: Port,
        *,
        approve: Approve = refuse_changes,
    ):
        """Arguments as for `ServoDevice`."""
        super().__init__(name, config, joints, port, approve=approve)
        self.restarted: NDArray[np.bool_] = np.zeros(len(joints), np.bool_)
        """Joints whose servo has restarted, as after a dip of its supply: limp, gains forgotten."""
        self._tick_ms, self._ours_ms, self._drift_ms = np.zeros((3, len(joints)))
        self._known, self._off = np.zeros((2, len(joints)), np.bool_)
        units_a = np.array([MODELS[model.name].current_unit_a or np.nan for model in self._models])
        direction = self._scale.direction
        self._scales = (
            ("velocity", direction * RAD_S_PER_COUNT, self.velocity),
            ("pwm", direction / registers.PWM_FULL, self.effort),
            ("current", direction * units_a, self.current),
        )
        """Name in the block, unit of a count for each joint, and where the signal is."""
        self._targets = SyncWrite(self.bus, self._ids, self._goal)
        self._narrow = np.zeros(len(joints), f"<i{self._goal.size}")
        rows = range(len(joints))
        self._most = np.array([self._largest_goal(row) for row in rows], np.int32)
        self._least = -self._most
        self._watchdog_steps = config.safety.watchdog_ms // WATCHDOG_STEP_MS
        self.imu = BusImu(self._bus_config.imu, self.bus) if self._bus_config.imu else None
        """The inertial sensor on this bus."""
        if self.imu:
            self.others, self.BLOCK = (self.imu.id,), _MOTION_DTYPE
            self.readings |= self.imu.readings

    def connect(self) -> None:
        """As for all servos; the robot lies still, so the gyroscope's bias is found as well."""
        if self.imu:
            self.imu.connect()
        self.restarted[:] = False
        super().connect()
        if self.imu:
            self.imu.rest()

    def read(self, deadline_s: float) -> int:
        """As for all servos, and the inertial sensor in the same reading."""
        asked_s = self._port.now()
        answered = super().read(deadline_s)
        if self.imu and self._feedback is not None:
            if self._feedback.fresh[0]:
                self.imu.take_block(self._feedback.data[0].tobytes(), asked_s)
            self.imu.grow_older(self._port.now())
        return answered

    def describe(self) -> str:
        """What was found when connecting: servos, their firmware, the bus, an inertial sensor."""
        return super().describe() + (f"; {self.imu.describe()}" if self.imu else "")

    def alarm(self) -> str:
        """What the latest reading tells that must stop the robot; empty if nothing does."""
        if complaint := super().alarm():
            return complaint
        if np.count_nonzero(self.restarted):
            names = [self.joints[row] for row in np.flatnonzero(self.restarted)]
            return f"the servos of {names} have restarted; check their power supply"
        return self.imu.alarm(self._port.now()) if self.imu else ""

    def _open(self, port: Port) -> DynamixelBus:
        bus = self._bus_config
        return DynamixelBus(port, bus.baud_rate, usb_latency_s=bus.usb_latency_ms / 1000)

    def _sync_read(self, ids: Sequence[int], addresses: range) -> SyncRead:
        return SyncRead(self.bus, ids, addresses.start, len(addresses), fast=False)

    def _feedback_read(self) -> SyncRead:
        fast = all(
            version >= MODELS[model.name].fast_read_firmware
            for version, model in zip(self.firmware, self._models, strict=True)
        )
        address = imu_to_dxl.ADDRESS if self.imu else _BLOCK
        ids = [*self.others, *self._ids]
        return SyncRead(self.bus, ids, address, self.BLOCK.itemsize, fast=fast)

    def _take(self, fresh: NDArray[np.bool_], asked_s: float) -> None:
        counts = self._counts
        self._scale.values(counts["position"], out=self.position, where=fresh)
        for name, scale, signal in self._scales:
            np.multiply(counts[name], scale, out=signal, where=fresh)
        if not self.imu:
            self._notice_restarts(counts["tick_ms"], fresh, asked_s)

    def _notice_restarts(
        self, tick_ms: NDArray[np.uint16], fresh: NDArray[np.bool_], now_s: float
    ) -> None:
        """A servo's clock starts at 0 again when it does; ours does not."""
        known, drift_ms = self._known, self._drift_ms
        np.subtract(now_s, self._read_at, out=self._ours_ms)
        np.multiply(self._ours_ms, 1e3, out=self._ours_ms)
        np.logical_and(fresh, np.isfinite(self._ours_ms, out=known), out=known)
        np.subtract(tick_ms, self._tick_ms, out=drift_ms)
        np.subtract(drift_ms, self._ours_ms, out=drift_ms)
        np.add(drift_ms, _TICK_TOLERANCE_MS, out=drift_ms)  # good ones are in [0, twice that]
        np.remainder(drift_ms, _TICK_WRAP_MS, out=drift_ms, where=known)
        np.greater(drift_ms, 2 * _TICK_TOLERANCE_MS, out=self._off)
        np.logical_or(self.restarted, self._off, out=self.restarted, where=known)
        np.copyto(self._tick_ms, tick_ms, where=fresh)

    def _make_goal_scale(self) -> Linear:
        if self.mode == "position":
            return self._scale
        unit = np.full(len(self._ids), RAD_S_PER_COUNT)
        if self.mode == "torque":
            unit[:] = [
                MODELS[wiring.model].torque_per_count(spec.effort_limit_nm, wiring.voltage_v)
                for wiring, spec in zip(self._wirings, self._specs, strict=True)
            ]
        return Linear(np.zeros_like(self._scale.zero), self._scale.direction * unit)

    def _goal_of(self, id: int) -> Register:
        mode = self.bus.read(id, registers.OPERATING_MODE)
        return _GOAL_IN.get(mode, self.GOALS["position"])

    def _send(self, goals: NDArray[np.int32]) -> None:
        if self.mode != "position":  # a servo forgets a goal beyond its limit, and keeps the last
            np.minimum(goals, self._most, out=goals)
            np.maximum(goals, self._least, out=goals)
        self._narrow[:] = goals
        self._targets.write(self._narrow)

    def _largest_goal(self, row: int) -> int:
        """Limit in the servo of a speed or current [counts]."""
        if self.mode == "torque":
            return MODELS[self._models[row].name].current_limit or 0
        fastest = math.ceil(self._wirings[row].velocity_limit_rad_s / RAD_S_PER_COUNT)
        return min(fastest, registers.LARGEST_VELOCITY)

    def _kept_settings(self, row: int) -> dict[Register, int]:
        wiring, model = self._wirings[row], MODELS[self._models[row].name]
        wanted = {
            registers.RETURN_DELAY_TIME: 0,
            registers.DRIVE_MODE: 0,
            registers.HOMING_OFFSET: 0,
            registers.PWM_LIMIT: registers.PWM_FULL,
            registers.OPERATING_MODE: int(_mode(self._specs[row], wiring)),
        }
        if self.mode == "position":
            low, high = self._scale.limits[row].tolist()
            wanted |= {registers.MIN_POSITION_LIMIT: low, registers.MAX_POSITION_LIMIT: high}
        elif self.mode == "velocity":
            wanted[registers.VELOCITY_LIMIT] = self._largest_goal(row)
        elif model.current_limit is not None:
            wanted[registers.CURRENT_LIMIT] = model.current_limit
        if self._overfed[row]:  # else it lets go
            wanted[registers.SHUTDOWN] = self._faults(row, model.shutdown)
        return wanted

    def _running_settings(self, row: int) -> dict[Register, int]:
        joint, model = self._specs[row], MODELS[self._models[row].name]
        return {
            registers.TORQUE_ENABLE: 1,
            **_gains(joint, model),
            **_current_limit(joint, model, self._wirings[row]),
            registers.BUS_WATCHDOG: self._watchdog_steps,
            registers.GOAL_PWM: registers.PWM_FULL,
            registers.PROFILE_ACCELERATION: 0,
            registers.PROFILE_VELOCITY: 0,
        }

    def _disarm(self, id: int) -> None:
        self.bus.write_verified(id, registers.BUS_WATCHDOG, 0)

    def _arm(self) -> list[int]:
        """Of all at once: one whose reply is lost must not keep us from the others for long."""
        register, wanted = registers.BUS_WATCHDOG, self._watchdog_steps
        watchdogs = self._sync_read(self._ids, range(register.address, register.address + 1))
        request = SyncWrite(self.bus, self._ids, register)
        known, found = {wanted, registers.BUS_WATCHDOG_TRIPPED}, {}
        for _ in range(ATTEMPTS):
            request.write(np.full(len(self._ids), wanted, np.int8))
            watchdogs.read(self._port.now() + watchdogs.wire_s + self.bus.latency_s + _ARM_S)
            values = [register.decode(data.tobytes()) for data in watchdogs.data]
            found = {self.joints[row]: values[row] for row in np.flatnonzero(watchdogs.fresh)}
            if len(found) == len(values) and known.issuperset(values):
                return [row for row, value in enumerate(values) if value != wanted]
        raise ServoError(
            f"{register} reads {found} ({ATTEMPTS} attempts), expected {wanted} from each of "
            f"{self.joints}; check power and cable, and look for a second servo with the same id"
        )

    def _stopped_itself(self, id: int) -> bool:
        return self.bus.read(id, registers.BUS_WATCHDOG) == registers.BUS_WATCHDOG_TRIPPED

    guarded = True

    def prove(self) -> str:
        """Whether every servo's watchdog has tripped; they are off after that."""
        if idle := [joint for joint, id in self.id_of.items() if not self._stopped_itself(id)]:
            raise SafetyError(
                f"the watchdogs of {idle} did not stop their servos, expected them to after "
                f"{self.config.safety.watchdog_ms} ms of silence; is another program using the bus?"
            )
        for id in self._ids:
            self._disarm(id)
        return f"{len(self._ids)} servos had stopped by themselves"

    def watchdog(self) -> str:
        """What stops the joints when the host falls silent."""
        return (
            f"its servos stop by themselves, torque on, after {self.config.safety.watchdog_ms} ms "
            "of silence"
        )

    def describe_faults(self, status: int) -> str:
        """What a servo complains about, in words."""
        return describe(HardwareError(status))


def _mode(joint: JointSpec, wiring: JointWiring) -> OperatingMode:
    """What a servo's register must hold."""
    mode = joint.operating_mode
    if mode == "position" and wiring.current_limit_a is not None:
        return OperatingMode.CURRENT_BASED_POSITION
    return MODES[mode]


def _gains(joint: JointSpec, model: ServoModel) -> dict[Register, int]:
    """What the controller of a servo must hold for the contract's gains."""
    kd, effort = joint.kd_nm_s_per_rad, joint.effort_limit_nm
    if joint.operating_mode == "position":
        return {
            registers.POSITION_P_GAIN: model.p_gain(joint.kp_nm_per_rad, effort),
            registers.POSITION_I_GAIN: 0,
            registers.POSITION_D_GAIN: model.d_gain(kd, effort),
            registers.FEEDFORWARD_1ST_GAIN: 0,
            registers.FEEDFORWARD_2ND_GAIN: 0,
        }
    if joint.operating_mode == "velocity":
        p_gain, i_gain = model.velocity_pi  # of a robot without a policy, which says nothing
        if kd:
            p_gain, i_gain = model.velocity_p_gain(kd, effort), 0
        return {registers.VELOCITY_P_GAIN: p_gain, registers.VELOCITY_I_GAIN: i_gain}
    return {}


def _current_limit(joint: JointSpec, model: ServoModel, wiring: JointWiring) -> dict[Register, int]:
    """What the servo itself keeps to, of a joint driven by position."""
    if _mode(joint, wiring) != OperatingMode.CURRENT_BASED_POSITION:
        return {}
    assert wiring.current_limit_a and model.current_unit_a  # the robot's YAML was checked
    return {registers.GOAL_CURRENT: int(wiring.current_limit_a / model.current_unit_a)}
