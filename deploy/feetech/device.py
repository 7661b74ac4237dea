"""Feetech's servos as a device: registers, plausibility, and what they lack.

    servos = FeetechServos("bus", config, contract.joints, port, approve=ask_the_user)

One sync read a tick brings position, speed, load, voltage, temperature, faults and current of every
STS servo; SCS servos (`ScsServos`) know no sync read, so each is asked in turn, and measure no
current. One sync write sends the goals of all. A reply may be damaged and its one byte of checksum
right all the same: a joint that would have turned faster than its servo can keeps its last reading.

These servos have no bus watchdog. When the host falls silent they go on to the last goal, at most
`safety.max_step_rad` away, and hold there with torque on. Their Position Correction (31), which is
LeRobot's calibration, is left as it is found; SCS servos have none.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.contract import JointSpec
from deploy.device import Approve, refuse_changes
from deploy.feetech import protocol, registers, scs_registers
from deploy.feetech.registers import LOAD_FULL, Fault, Mode
from deploy.feetech.sync import ReadInTurn, SyncRead, SyncWrite
from deploy.robot_config import RobotConfig
from deploy.serial_port import Port
from deploy.servos.bus import ServoBus
from deploy.servos.device import ServoDevice
from deploy.servos.register import Register, describe
from deploy.servos.sync_read import Feedback

SPEED_RESERVE = 2.0
"""A shaft turns at most so much faster than without load: pushed by hand, fed by a full battery."""
SLACK_RAD = 0.05
"""What a reading may be off beside that: play, and readings of different moments."""


def from_sign(raw: NDArray[np.uint16], bit: int) -> NDArray[np.int32]:
    """Numbers whose sign is a bit (n,) -> signed ones."""
    size = (raw & ((1 << bit) - 1)).astype(np.int32)
    return np.where(raw >> bit & 1, -size, size)


_SIGNED = {
    bit: from_sign(np.arange(1 << 16, dtype=np.uint16), bit).astype(float) for bit in (10, 15)
}
"""What each number stands for whose sign is that bit: a look-up is one call."""


class FeetechServos(ServoDevice):
    """See the module docstring."""

    CONTROL_TABLE = registers.CONTROL_TABLE
    OVERLOAD_TORQUE = registers.OVERLOAD_TORQUE
    TORQUE_ENABLE = registers.TORQUE_ENABLE
    GOALS = {"position": registers.GOAL_POSITION}
    PRESENT_POSITION = registers.PRESENT_POSITION
    PRESENT_VOLTAGE = registers.PRESENT_VOLTAGE
    PRESENT_TEMPERATURE = registers.PRESENT_TEMPERATURE
    FAULTS = registers.STATUS
    SUPPLY_FAULT = Fault.INPUT_VOLTAGE
    SETTINGS = range(registers.P_GAIN.address, registers.STATUS.address + registers.STATUS.size)
    SET_BY_ENERGISE = (registers.TORQUE_ENABLE,)
    LOCK: Register = registers.LOCK
    BLOCK = np.dtype(
        [
            ("position", "<u2"),
            ("speed", "<u2"),
            ("load", "<u2"),
            ("others", "u1", 7),  # supply, temperature, faults; `health` reads them
            ("current", "<u2"),
        ]
    )
    """What is read every tick, from the present position on."""

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
        self._fastest = SPEED_RESERVE * np.array(
            [
                model.physics.no_load_speed(wiring.voltage_v)
                for model, wiring in zip(self._models, self._wirings, strict=True)
            ]
        )
        self._targets = SyncWrite(self.bus, self._ids, self._goal)
        names = ("position", "speed", "current", "load")
        known = self.BLOCK.names or ()
        self._fields = {name: row for row, name in enumerate(names) if name in known}
        scale, count = self._scale, len(joints)
        ampere = registers.PRESENT_CURRENT.scale if "current" in self._fields else np.nan
        units = (scale.rad_per_tick, np.full(count, ampere), np.full(count, 1 / LOAD_FULL))
        self._units = np.array(units) * scale.direction  # of speed, current and load
        self._raw, self._signed = np.zeros((4, count), np.intp), np.zeros((4, count))
        self._measured, self._far, self._moved = np.zeros((3, count))
        self._near, self._slow = np.zeros((2, count), np.bool_)
        self._goals = np.zeros(count, np.uint16)

    def describe_alerts(self) -> str:
        """What the servos in alert complain about; nothing if a damaged reply only said so."""
        complaints = []
        for row in np.flatnonzero(self.alerts).tolist():
            status = self._faults(row, self.bus.read(self._ids[row], self.FAULTS))
            if status:
                complaints.append(f"{self.joints[row]}: {self.describe_faults(status)}")
        return ", ".join(complaints)

    def write_kept(self, id: int, register: Register, value: int) -> None:
        """Write to EEPROM, which is unlocked for as long as that takes."""
        self.bus.write_verified(id, self.LOCK, 0)
        try:
            self.bus.write_verified(id, register, value)
        finally:
            self.bus.write_verified(id, self.LOCK, 1)

    def _open(self, port: Port) -> ServoBus:
        bus = self._bus_config
        latency_s = bus.usb_latency_ms / 1000
        return ServoBus(port, bus.baud_rate, protocol, usb_latency_s=latency_s)

    def _sync_read(self, ids: Sequence[int], addresses: range) -> SyncRead:
        return SyncRead(self.bus, ids, addresses.start, len(addresses))

    def _feedback_read(self) -> Feedback:
        return SyncRead(self.bus, self._ids, self.PRESENT_POSITION.address, self.BLOCK.itemsize)

    def _take(self, fresh: NDArray[np.bool_], asked_s: float) -> None:
        raw, signed = self._raw, self._signed
        for name, row in self._fields.items():
            raw[row] = self._counts[name]
        _SIGNED[15].take(raw[:3], out=signed[:3], mode="clip")
        _SIGNED[10].take(raw[3], out=signed[3], mode="clip")
        position = self._scale.values(signed[0], out=self._measured)
        np.multiply(signed[1:], self._units, out=signed[1:])
        velocity, current, effort = signed[1:]
        possible = self._possible(position, velocity, asked_s)
        if doubtful := int(np.count_nonzero(np.greater(fresh, possible, out=self._slow))):
            self.statistics.implausible += doubtful
            self.statistics.lost += doubtful
            np.logical_and(fresh, possible, out=fresh)
        np.copyto(self.position, position, where=fresh)
        np.copyto(self.velocity, velocity, where=fresh)
        np.copyto(self.current, current, where=fresh)
        np.copyto(self.effort, effort, where=fresh)

    def _possible(
        self, position: NDArray[np.float64], velocity: NDArray[np.float64], asked_s: float
    ) -> NDArray[np.bool_]:
        """Joints (n,) that can have come to `position` since they were read last, and so fast."""
        far, moved = self._far, self._moved
        np.subtract(asked_s, self._read_at, out=far)
        np.multiply(far, self._fastest, out=far)
        np.add(far, SLACK_RAD, out=far)
        np.subtract(position, self.position, out=moved)
        np.less_equal(np.abs(moved, out=moved), far, out=self._near)
        np.less_equal(np.abs(velocity, out=moved), self._fastest, out=self._slow)
        return np.logical_and(self._near, self._slow, out=self._near)

    def _send(self, goals: NDArray[np.int32]) -> None:
        self._goals[:] = goals  # within a turn, so there is no sign
        self._targets.write(self._goals)

    def _kept_settings(self, row: int) -> dict[Register, int]:
        low, high = self._scale.limits[row].tolist()
        phase = self.bus.read(self._ids[row], registers.PHASE)
        return {
            registers.RETURN_DELAY_TIME: 0,
            registers.RESPONSE_LEVEL: 1,
            registers.MIN_POSITION_LIMIT: low,
            registers.MAX_POSITION_LIMIT: high,
            registers.PHASE: phase & ~registers.MULTI_TURN,
            registers.MODE: int(Mode.POSITION),
            **self._protection(row),
        }

    def _protection(self, row: int) -> dict[Register, int]:
        """From which torque on a servo is to protect itself, if that is said."""
        share, register = self._wirings[row].overload_share, self.OVERLOAD_TORQUE
        return {} if share is None else {register: round(share / register.scale)}

    def _running_settings(self, row: int) -> dict[Register, int]:
        joint, model = self._specs[row], self._models[row]
        effort = joint.effort_limit_nm
        return {
            registers.LOCK: 1,  # first: the gains below are EEPROM, and are not to stay
            registers.P_GAIN: model.p_gain(joint.kp_nm_per_rad, effort),
            registers.I_GAIN: 0,
            registers.D_GAIN: model.d_gain(joint.kd_nm_s_per_rad, effort),
            registers.ACCELERATION: 0,
            registers.GOAL_TIME: 0,
            registers.GOAL_SPEED: 0,
            registers.TORQUE_LIMIT: self._most_torque(row),
            registers.TORQUE_ENABLE: 1,
        }

    def _most_torque(self, row: int) -> int:
        """That a servo may give, whatever its goal is, also when the host falls silent."""
        return round(LOAD_FULL * self._wirings[row].own_share)

    def watchdog(self) -> str:
        """What stops the joints when the host falls silent."""
        return (
            "its servos have NO watchdog of their own: when the host falls silent they go on to "
            f"the last goal, at most {self.config.safety.max_step_rad:g} rad away, and hold there"
        )

    def describe_faults(self, status: int) -> str:
        """What a servo complains about, in words."""
        return describe(Fault(status))


class ScsServos(FeetechServos):
    """SCS servos: the same driver with another table and less in it."""

    CONTROL_TABLE = scs_registers.CONTROL_TABLE
    GOALS = {"position": scs_registers.GOAL_POSITION}
    PRESENT_POSITION = scs_registers.PRESENT_POSITION
    SETTINGS = range(scs_registers.MAX_TORQUE.address, FeetechServos.SETTINGS.stop)
    LOCK = scs_registers.LOCK
    OVERLOAD_TORQUE = scs_registers.OVERLOAD_TORQUE
    BLOCK = np.dtype([("position", ">u2"), ("speed", ">u2"), ("load", ">u2"), ("others", "u1", 5)])

    def describe(self) -> str:
        """As of any servos, and that their stiffness is not certain."""
        return (
            f"{super().describe()}; what their P Coefficient does is not published, so they may "
            "be stiffer or softer than what was trained"
        )

    def _feedback_read(self) -> Feedback:
        return ReadInTurn(self.bus, self._ids, self.PRESENT_POSITION.address, self.BLOCK.itemsize)

    def _kept_settings(self, row: int) -> dict[Register, int]:
        low, high = self._scale.limits[row].tolist()
        return {
            scs_registers.RESPONSE_LEVEL: 1,
            scs_registers.MIN_POSITION_LIMIT: low,
            scs_registers.MAX_POSITION_LIMIT: high,
            **self._protection(row),
        }

    def _running_settings(self, row: int) -> dict[Register, int]:
        joint, model = self._specs[row], self._models[row]
        model.d_gain(joint.kd_nm_s_per_rad)  # only 0 is possible; the D found is left
        return {
            scs_registers.LOCK: 1,  # first: what is EEPROM below is not to stay
            scs_registers.MAX_TORQUE: self._most_torque(row),
            scs_registers.P_GAIN: model.p_gain(joint.kp_nm_per_rad, joint.effort_limit_nm),
            scs_registers.GOAL_TIME: 0,
            # 0 is the fastest on some of them and a standstill on others
            scs_registers.GOAL_SPEED: scs_registers.FASTEST_TICKS_S,
            scs_registers.TORQUE_ENABLE: 1,
        }
