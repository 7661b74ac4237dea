r"""Control table of Feetech's SCS servos: one constant per register.

    scs_registers.PRESENT_POSITION.decode(b"\x02\x00")   # 512: the middle of 1024 counts

Numbers are big-endian; position is that of a potentiometer, 10 bits over 300° (SCS15: 215°), and
never negative. There is no mode, no offset, no torque limit, no acceleration and no current: with
both position limits at 0 the servo is a motor that turns without end at the duty in Running Time.
Lock (48) works as on an STS. Addresses, ranges and factory values: Feetech's memory table of
potentiometer servos (https://github.com/ftservo/ftservo-wiki) and SDK (scscl.py of FTServo_Python);
names are those of `deploy.feetech.registers`.
"""

from functools import partial

from deploy.feetech import registers
from deploy.feetech.registers import LOAD_FULL, Register

TICKS = 1024
FASTEST_TICKS_S = 1000
"""Largest Goal Velocity the memory table allows [counts/s]."""
ZERO_IS_FASTEST = 8
"""Bit of Phase: a Goal Velocity of 0 is the largest, and not a standstill."""
DAMPED = 2
"""Value of TORQUE_ENABLE: the motor brakes and follows no goal."""

_Word = partial(Register, size=2, byte_order="big")

# EEPROM
FIRMWARE_MAJOR = registers.FIRMWARE_MAJOR
FIRMWARE_MINOR = registers.FIRMWARE_MINOR
END = registers.END
MODEL_NUMBER = _Word(3, name="Model Number", read_only=True)
ID = registers.ID
BAUD_RATE = registers.BAUD_RATE
RESPONSE_LEVEL = registers.RESPONSE_LEVEL
MIN_POSITION_LIMIT = _Word(9, name="Min Position Limit")
MAX_POSITION_LIMIT = _Word(11, name="Max Position Limit")
MAX_TEMPERATURE = registers.MAX_TEMPERATURE
MAX_VOLTAGE = registers.MAX_VOLTAGE
MIN_VOLTAGE = registers.MIN_VOLTAGE
MAX_TORQUE = _Word(16, name="Max Torque Limit", unit="duty", scale=1 / LOAD_FULL)
PHASE = registers.PHASE
UNLOAD_CONDITION = registers.UNLOAD_CONDITION
LED_ALARM = registers.LED_ALARM
P_GAIN = registers.P_GAIN
D_GAIN = registers.D_GAIN
MINIMUM_STARTUP_FORCE = _Word(24, name="Minimum Startup Force")
CW_DEAD_ZONE = registers.CW_DEAD_ZONE
CCW_DEAD_ZONE = registers.CCW_DEAD_ZONE
PROTECTIVE_TORQUE = Register(37, 1, "Protective Torque", unit="duty", scale=0.01)
PROTECTION_TIME = Register(38, 1, "Protection Time", unit="s", scale=0.01)
OVERLOAD_TORQUE = Register(39, 1, "Overload Torque", unit="duty", scale=0.01)

# RAM
TORQUE_ENABLE = registers.TORQUE_ENABLE
GOAL_POSITION = _Word(42, name="Goal Position")
GOAL_TIME = _Word(44, name="Running Time", sign_bit=10)
GOAL_SPEED = _Word(46, name="Goal Velocity")
LOCK = Register(48, 1, "Lock")
PRESENT_POSITION = _Word(56, name="Present Position", read_only=True)
PRESENT_SPEED = _Word(58, name="Present Velocity", sign_bit=15, read_only=True)
PRESENT_LOAD = _Word(
    60, name="Present Load", sign_bit=10, unit="duty", scale=1 / LOAD_FULL, read_only=True
)
PRESENT_VOLTAGE = registers.PRESENT_VOLTAGE
PRESENT_TEMPERATURE = registers.PRESENT_TEMPERATURE
ASYNC_WRITE = registers.ASYNC_WRITE
STATUS = registers.STATUS
MOVING = registers.MOVING

CONTROL_TABLE = tuple(item for item in list(globals().values()) if isinstance(item, Register))
"""Every register above, by rising address."""
