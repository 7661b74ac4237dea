"""The robot as joints: radians above this file, servos and ticks below it.

    robot = Robot(config, contract.joints, port)
    robot.connect()                     # checks and sets up every servo; nothing moves
    robot.energise()                    # torque on, holding where it is
    robot.read(deadline_s)              # position, velocity, age_s
    robot.write(targets)                # [rad]

Joint arrays are in the contract's order. `connect` refuses a servo that is absent, of another
model, in error or off its supply voltage; gains are computed from the contract's N·m/rad and read
back, so what is on the servo is what was trained.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.dynamixel import registers
from deploy.dynamixel.bus import DynamixelBus
from deploy.dynamixel.registers import RAD_PER_TICK, RAD_S_PER_COUNT, HardwareError, OperatingMode
from deploy.dynamixel.reply_times import MARGIN_S
from deploy.dynamixel.servos import MODELS
from deploy.dynamixel.sync import SyncRead, SyncWrite
from deploy.errors import BusError, ServoError
from deploy.robot_config import WATCHDOG_STEP_MS, RobotConfig
from deploy.serial_port import Port, latency_advice

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


class Robot:
    """Joints of a robot on a Dynamixel bus.

    Args:
        config: wiring and limits.
        joints: joints in the order of all arrays, with their gains.
        port: the open serial port.
    """

    def __init__(self, config: RobotConfig, joints: Sequence[JointSpec], port: Port):
        self.config = config
        self.joints = list(joints)
        self.position: NDArray[np.float64] = np.zeros(len(joints))
        """Latest measured angles [rad]."""
        self.velocity: NDArray[np.float64] = np.zeros(len(joints))
        """Latest measured speeds [rad/s]."""
        self.age_s: NDArray[np.float64] = np.full(len(joints), np.inf)
        """Age of each joint's reading [s]."""
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
        self._zero = np.array([wiring.zero_ticks for wiring in wirings])
        self._direction = np.array([wiring.direction for wiring in wirings])
        self._goal_ticks = np.zeros(len(joints), np.int32)
        self._read_at = np.full(len(joints), -np.inf)
        self._tick_ms = np.zeros(len(joints))
        self._port = port
        self.bus = DynamixelBus(
            port, config.bus.baud_rate, usb_latency_s=config.bus.usb_latency_ms / 1000
        )
        self._feedback: SyncRead | None = None
        self._targets = SyncWrite(self.bus, self._ids, registers.GOAL_POSITION)

    def connect(self) -> None:
        """Check every servo and set it up; nothing moves.

        A robot that still holds itself up, as after an emergency stop, is not let go: then only
        settings that need no torque off may differ.

        Raises:
            BusError: a servo is missing, of another model, in error, or refuses a setting; all
                servos that are missing or of another model are named at once.
        """
        firmware = self.firmware = self._identify()
        self.energised = any(self.bus.read(id, registers.TORQUE_ENABLE) for id in self._ids)
        for row, name in enumerate(joint.name for joint in self.joints):
            self._check_health(row, name)
            self._set_up(row)
        self.bus.return_delay_s = 0.0
        self.measured_latency_s = self.bus.measure_latency(self._ids)
        fast = all(
            version >= model.fast_read_firmware
            for version, model in zip(firmware, self._models, strict=True)
        )
        self._feedback = SyncRead(self.bus, self._ids, _BLOCK, _BLOCK_DTYPE.itemsize, fast=fast)
        self.read(self._port.now() + 0.1)
        if silent := [
            joint.name for joint, age in zip(self.joints, self.age_s, strict=True) if age > 1
        ]:
            raise BusError(f"joints {silent} do not answer a sync read; check the cables")

    def energise(self) -> None:
        """Turn torque on, holding the present pose, and arm the servos' watchdogs.

        Raises:
            BusError: a servo does not confirm.
        """
        watchdog = self.config.safety.watchdog_ms // WATCHDOG_STEP_MS
        for row, id in enumerate(self._ids):  # a stale goal would make the joint jump
            present = self.bus.read(id, registers.PRESENT_POSITION)
            goal = int(np.clip(present, *self._tick_limits(row)))
            self.bus.write_verified(id, registers.GOAL_POSITION, goal)
            self.bus.write_verified(id, registers.TORQUE_ENABLE, 1)
            self._goal_ticks[row] = goal
        for id in self._ids:
            self.bus.write_verified(id, registers.BUS_WATCHDOG, watchdog)
        self.energised = True

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
        ticks = values["position"] - self._zero
        np.multiply(ticks, self._direction * RAD_PER_TICK, out=self.position, where=fresh)
        np.multiply(
            values["velocity"], self._direction * RAD_S_PER_COUNT, out=self.velocity, where=fresh
        )
        self._notice_restarts(values["tick_ms"], fresh, asked_s)
        self._read_at[fresh] = asked_s
        np.subtract(self._port.now(), self._read_at, out=self.age_s)
        return answered

    @property
    def target(self) -> NDArray[np.float64]:
        """The targets sent last, as the servos have them (n,) [rad]."""
        return (self._goal_ticks - self._zero) * (self._direction * RAD_PER_TICK)

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
        """Joints whose servo reports a hardware error."""
        assert self._feedback is not None, "connect() comes first"
        return self._feedback.alert

    def write(self, targets: NDArray[np.float64]) -> None:
        """Send joint targets (n,) [rad]."""
        np.rint(targets * self._direction / RAD_PER_TICK + self._zero, out=self._goal_ticks,
                casting="unsafe")  # fmt: skip
        self._targets.write(self._goal_ticks)

    def hold(self) -> None:
        """Stop where the joints were last seen: one command to all, then each goal is read back.

        Raises:
            BusError: names the servos that do not confirm; the others hold.
        """
        limits = np.array([self._tick_limits(row) for row in range(len(self._ids))])
        ticks = np.rint(self.position * self._direction / RAD_PER_TICK + self._zero)
        np.clip(ticks, limits[:, 0], limits[:, 1], out=self._goal_ticks, casting="unsafe")
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

        _for_each_servo(self._id_of, confirm)

    def release(self) -> None:
        """Turn torque off; see `release_servos`."""
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
        id, model = self._ids[row], self._models[row]
        if status := self.bus.read(id, registers.HARDWARE_ERROR_STATUS):
            raise ServoError(
                f"{name} (id {id}) reports {_describe(status)}; remove the cause, then switch its "
                "power off and on"
            )
        volts = self.bus.read(id, registers.PRESENT_INPUT_VOLTAGE) * 0.1
        low, high = model.voltage_limits_v
        if not low <= volts <= high:
            raise ServoError(
                f"{name} (id {id}) is supplied with {volts:.1f} V, {model.name} needs "
                f"{low}..{high} V; check the power supply"
            )

    def _set_up(self, row: int) -> None:
        joint, id, model = self.joints[row], self._ids[row], self._models[row]
        low, high = self._tick_limits(row)
        self.bus.write_verified(id, registers.BUS_WATCHDOG, 0)
        settings = {
            registers.RETURN_DELAY_TIME: 0,
            registers.DRIVE_MODE: 0,
            registers.HOMING_OFFSET: 0,
            registers.PWM_LIMIT: registers.PWM_FULL,
            registers.GOAL_PWM: registers.PWM_FULL,
            registers.OPERATING_MODE: int(OperatingMode.POSITION),
            registers.MIN_POSITION_LIMIT: low,
            registers.MAX_POSITION_LIMIT: high,
            registers.POSITION_P_GAIN: model.p_gain(joint.kp),
            registers.POSITION_I_GAIN: 0,
            registers.POSITION_D_GAIN: model.d_gain(joint.kd),
            registers.FEEDFORWARD_1ST_GAIN: 0,
            registers.FEEDFORWARD_2ND_GAIN: 0,
            registers.PROFILE_VELOCITY: 0,
            registers.PROFILE_ACCELERATION: 0,
        }
        for register, value in settings.items():
            found = self.bus.read(id, register)
            if found == value:
                continue  # spares the EEPROM
            if register.in_eeprom and self.bus.read(id, registers.TORQUE_ENABLE):
                raise ServoError(
                    f"{joint.name} (id {id}) holds torque and its {register} is {found}, expected "
                    f"{value}; support the robot and run `robotrl release`, then start again"
                )
            self.bus.write_verified(id, register, value)

    def _tick_limits(self, row: int) -> tuple[int, int]:
        """Servo counts of the joint's hardware limits."""
        wiring = self._wirings[row]
        ends = [
            wiring.zero_ticks + wiring.direction * round(limit / RAD_PER_TICK)
            for limit in wiring.position_limits_rad
        ]
        return max(0, min(ends)), min(registers.TICKS_PER_TURN - 1, max(ends))


def release_servos(bus: DynamixelBus, id_of: dict[str, int]) -> None:
    """Turn torque off: one command to all, then each servo is written and read back.

    Args:
        bus: the bus.
        id_of: servo id of each joint.

    Raises:
        BusError: names the servos that do not confirm; the others are limp.
    """
    bus.broadcast_write(registers.TORQUE_ENABLE, 0)
    _for_each_servo(id_of, lambda id: bus.write_verified(id, registers.TORQUE_ENABLE, 0))


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
