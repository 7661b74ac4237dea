r"""Control table of Feetech's STS3215 and its kin: one constant per register.

    registers.PRESENT_SPEED.decode(b"\x0a\x80")   # -10 counts; times .scale gives .unit

Numbers are little-endian (`scs_registers` are not) and signed ones have a sign bit, not two's
complement: bit 15, but 10 for the load and 11 for the offset. What lies below 40 is EEPROM: with
Lock (55) at 1 a value written there is used and forgotten at power-off, with Lock at 0 it is kept.
Addresses and names: Feetech's memory table and SDK (https://github.com/ftservo/FTServo_Python), and
LeRobot's tables
(https://github.com/huggingface/lerobot, motors/feetech/tables.py), which differ on the baud rates
below 76800; the SDK is followed.
"""

import math
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar

from deploy.servos.register import Register as _Register

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
LOAD_FULL = 1000
"""Count of full duty."""
MULTI_TURN = 16
"""Bit of Phase: positions beyond one turn."""


@dataclass(frozen=True, slots=True)
class Register(_Register):
    """One row of the control table."""

    EEPROM_SIZE: ClassVar[int] = 40

    sign_bit: int | None = None
    """None where numbers have no sign."""

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value the bytes can hold."""
        if self.sign_bit is None:
            return 0, (1 << 8 * self.size) - 1
        return 1 - (1 << self.sign_bit), (1 << self.sign_bit) - 1

    def decode(self, data: bytes) -> int:
        """The value in the register's bytes; what lies above the sign bit is not looked at."""
        raw = int.from_bytes(data, self.byte_order)
        if self.sign_bit is None:
            return raw
        size = raw & ((1 << self.sign_bit) - 1)
        return -size if raw >> self.sign_bit & 1 else size

    def _to_bytes(self, value: int) -> bytes:
        sign = 1 << self.sign_bit if self.sign_bit is not None and value < 0 else 0
        return (abs(value) | sign).to_bytes(self.size, self.byte_order)


class Mode(IntEnum):
    """Values of MODE."""

    POSITION = 0
    SPEED = 1
    PWM = 2
    STEP = 3


class Fault(IntFlag):
    """Bits of STATUS, of the error byte of every reply, and of UNLOAD_CONDITION."""

    INPUT_VOLTAGE = 1
    ENCODER = 2
    OVERHEATING = 4
    OVER_CURRENT = 8
    OVERLOAD = 32


BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)
"""Baud rate [bit/s] of each BAUD_RATE value."""

# EEPROM
FIRMWARE_MAJOR = Register(0, 1, "Firmware Major Version", read_only=True)
FIRMWARE_MINOR = Register(1, 1, "Firmware Minor Version", read_only=True)
END = Register(2, 1, "End", read_only=True)
"""Byte order: 0 is little-endian, 1 big-endian."""
MODEL_NUMBER = Register(3, 2, "Model Number", read_only=True)
ID = Register(5, 1, "ID")
BAUD_RATE = Register(6, 1, "Baud Rate")
RETURN_DELAY_TIME = Register(7, 1, "Return Delay Time", unit="s", scale=2e-6)
RESPONSE_LEVEL = Register(8, 1, "Response Status Level")
MIN_POSITION_LIMIT = Register(9, 2, "Min Position Limit", unit="rad", scale=RAD_PER_TICK)
MAX_POSITION_LIMIT = Register(11, 2, "Max Position Limit", unit="rad", scale=RAD_PER_TICK)
MAX_TEMPERATURE = Register(13, 1, "Max Temperature Limit", unit="°C")
MAX_VOLTAGE = Register(14, 1, "Max Voltage Limit", unit="V", scale=0.1)
MIN_VOLTAGE = Register(15, 1, "Min Voltage Limit", unit="V", scale=0.1)
MAX_TORQUE = Register(16, 2, "Max Torque Limit", unit="duty", scale=1 / LOAD_FULL)
PHASE = Register(18, 1, "Phase")
UNLOAD_CONDITION = Register(19, 1, "Unloading Condition")
LED_ALARM = Register(20, 1, "LED Alarm Condition")
P_GAIN = Register(21, 1, "P Coefficient")
D_GAIN = Register(22, 1, "D Coefficient")
I_GAIN = Register(23, 1, "I Coefficient")
MINIMUM_STARTUP_FORCE = Register(24, 2, "Minimum Startup Force")
CW_DEAD_ZONE = Register(26, 1, "CW Dead Zone")
CCW_DEAD_ZONE = Register(27, 1, "CCW Dead Zone")
PROTECTION_CURRENT = Register(28, 2, "Protection Current", unit="A", scale=6.5e-3)
ANGULAR_RESOLUTION = Register(30, 1, "Angular Resolution")
HOMING_OFFSET = Register(31, 2, "Position Correction", sign_bit=11, unit="rad", scale=RAD_PER_TICK)
MODE = Register(33, 1, "Operating Mode")
PROTECTIVE_TORQUE = Register(34, 1, "Protective Torque", unit="duty", scale=0.01)
PROTECTION_TIME = Register(35, 1, "Protection Time", unit="s", scale=0.01)
OVERLOAD_TORQUE = Register(36, 1, "Overload Torque", unit="duty", scale=0.01)
SPEED_P_GAIN = Register(37, 1, "Speed P Coefficient")
OVER_CURRENT_TIME = Register(38, 1, "Over Current Protection Time", unit="s", scale=0.01)
SPEED_I_GAIN = Register(39, 1, "Speed I Coefficient")

# RAM
TORQUE_ENABLE = Register(40, 1, "Torque Enable")
ACCELERATION = Register(41, 1, "Acceleration", unit="rad/s²", scale=100 * RAD_PER_TICK)
GOAL_POSITION = Register(42, 2, "Goal Position", sign_bit=15, unit="rad", scale=RAD_PER_TICK)
GOAL_TIME = Register(44, 2, "Goal Time", sign_bit=10)
GOAL_SPEED = Register(46, 2, "Goal Velocity", sign_bit=15, unit="rad/s", scale=RAD_PER_TICK)
TORQUE_LIMIT = Register(48, 2, "Torque Limit", unit="duty", scale=1 / LOAD_FULL)
LOCK = Register(55, 1, "Lock")
PRESENT_POSITION = Register(
    56, 2, "Present Position", sign_bit=15, unit="rad", scale=RAD_PER_TICK, read_only=True
)
PRESENT_SPEED = Register(
    58, 2, "Present Velocity", sign_bit=15, unit="rad/s", scale=RAD_PER_TICK, read_only=True
)
PRESENT_LOAD = Register(
    60, 2, "Present Load", sign_bit=10, unit="duty", scale=1 / LOAD_FULL, read_only=True
)
PRESENT_VOLTAGE = Register(62, 1, "Present Voltage", unit="V", scale=0.1, read_only=True)
PRESENT_TEMPERATURE = Register(63, 1, "Present Temperature", unit="°C", read_only=True)
ASYNC_WRITE = Register(64, 1, "Asynchronous Write Flag", read_only=True)
STATUS = Register(65, 1, "Status", read_only=True)
MOVING = Register(66, 1, "Moving", read_only=True)
PRESENT_CURRENT = Register(
    69, 2, "Present Current", sign_bit=15, unit="A", scale=6.5e-3, read_only=True
)

CONTROL_TABLE = tuple(item for item in list(globals().values()) if isinstance(item, Register))
"""Every register above, by rising address."""
