r"""Control table of the DYNAMIXEL X series (XL430, XM430, XL330 ...): one constant per register.

    registers.GOAL_POSITION.encode(-1)       # b"\xff\xff\xff\xff"
    registers.PRESENT_VELOCITY.decode(data)  # raw count; times .scale gives .unit

Names, addresses and units are those of the eManual, "XL430-W250-T > Control Table",
https://emanual.robotis.com/docs/en/dxl/x/xl430-w250/ and
https://emanual.robotis.com/docs/en/dxl/x/xl330-m288/. Numbers are little-endian, two's complement.
The EEPROM area can be written only while Torque Enable is 0; the rest is lost at power-off.
"""

import math
from enum import IntEnum, IntFlag

from deploy.servos.register import Register

TICKS_PER_TURN = 4096
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
RAD_S_PER_COUNT = 0.0239691227
"""Velocity unit [rad/s], from the model files of ROBOTIS' dynamixel_hardware_interface; the eManual
rounds it to 0.229 rev/min."""
RAD_S2_PER_COUNT = 214.577 * 2 * math.pi / 3600
"""Acceleration unit: 214.577 rev/min², in rad/s²."""
PWM_FULL = 885
"""PWM count of 100 % duty."""
LARGEST_VELOCITY = 2047
"""What Velocity Limit takes of an X330, 49 rad/s; others take half, and are far slower."""


class OperatingMode(IntEnum):
    """Values of OPERATING_MODE; XL430 lacks the two that need a current sensor."""

    CURRENT = 0
    VELOCITY = 1
    POSITION = 3
    EXTENDED_POSITION = 4
    CURRENT_BASED_POSITION = 5
    PWM = 16


class HardwareError(IntFlag):
    """Bits of HARDWARE_ERROR_STATUS and SHUTDOWN; only a reboot clears a tripped one."""

    INPUT_VOLTAGE = 1
    MOTOR_HALL_SENSOR = 2
    OVERHEATING = 4
    ENCODER = 8
    ELECTRICAL_SHOCK = 16
    OVERLOAD = 32


BAUD_RATES = (9600, 57600, 115200, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 4_500_000)
"""Baud rate [bit/s] of each BAUD_RATE value; 57600 is the factory setting, X330 ends at 4 M."""

BUS_WATCHDOG_TRIPPED = -1
"""What BUS_WATCHDOG reads after it stopped the motor; write 0 to unlock the goals again."""

# EEPROM
MODEL_NUMBER = Register(0, 2, "Model Number", read_only=True)
MODEL_INFORMATION = Register(2, 4, "Model Information", read_only=True)
FIRMWARE_VERSION = Register(6, 1, "Firmware Version", read_only=True)
ID = Register(7, 1, "ID")
BAUD_RATE = Register(8, 1, "Baud Rate")
RETURN_DELAY_TIME = Register(9, 1, "Return Delay Time", unit="s", scale=2e-6)
DRIVE_MODE = Register(10, 1, "Drive Mode")
OPERATING_MODE = Register(11, 1, "Operating Mode")
SHADOW_ID = Register(12, 1, "Secondary(Shadow) ID")
PROTOCOL_TYPE = Register(13, 1, "Protocol Type")
HOMING_OFFSET = Register(20, 4, "Homing Offset", signed=True, unit="rad", scale=RAD_PER_TICK)
MOVING_THRESHOLD = Register(24, 4, "Moving Threshold", unit="rad/s", scale=RAD_S_PER_COUNT)
TEMPERATURE_LIMIT = Register(31, 1, "Temperature Limit", unit="°C")
MAX_VOLTAGE_LIMIT = Register(32, 2, "Max Voltage Limit", unit="V", scale=0.1)
MIN_VOLTAGE_LIMIT = Register(34, 2, "Min Voltage Limit", unit="V", scale=0.1)
PWM_LIMIT = Register(36, 2, "PWM Limit", unit="duty", scale=1 / PWM_FULL)
CURRENT_LIMIT = Register(38, 2, "Current Limit")  # unit: ServoModel.current_unit_a; not XL430
VELOCITY_LIMIT = Register(44, 4, "Velocity Limit", unit="rad/s", scale=RAD_S_PER_COUNT)
MAX_POSITION_LIMIT = Register(48, 4, "Max Position Limit", unit="rad", scale=RAD_PER_TICK)
MIN_POSITION_LIMIT = Register(52, 4, "Min Position Limit", unit="rad", scale=RAD_PER_TICK)
STARTUP_CONFIGURATION = Register(60, 1, "Startup Configuration")
PWM_SLOPE = Register(62, 1, "PWM Slope", unit="V/s", scale=1.977)  # X330 only
SHUTDOWN = Register(63, 1, "Shutdown")

# RAM
TORQUE_ENABLE = Register(64, 1, "Torque Enable")
LED = Register(65, 1, "LED")
STATUS_RETURN_LEVEL = Register(68, 1, "Status Return Level")
REGISTERED_INSTRUCTION = Register(69, 1, "Registered Instruction", read_only=True)
HARDWARE_ERROR_STATUS = Register(70, 1, "Hardware Error Status", read_only=True)
VELOCITY_I_GAIN = Register(76, 2, "Velocity I Gain", scale=1 / 65536)
VELOCITY_P_GAIN = Register(78, 2, "Velocity P Gain", scale=1 / 128)
POSITION_D_GAIN = Register(80, 2, "Position D Gain", scale=1 / 16)
POSITION_I_GAIN = Register(82, 2, "Position I Gain", scale=1 / 65536)
POSITION_P_GAIN = Register(84, 2, "Position P Gain", scale=1 / 128)
FEEDFORWARD_2ND_GAIN = Register(88, 2, "Feedforward 2nd Gain", scale=1 / 4)
FEEDFORWARD_1ST_GAIN = Register(90, 2, "Feedforward 1st Gain", scale=1 / 4)
BUS_WATCHDOG = Register(98, 1, "Bus Watchdog", signed=True, unit="s", scale=0.02)
GOAL_PWM = Register(100, 2, "Goal PWM", signed=True, unit="duty", scale=1 / PWM_FULL)
GOAL_CURRENT = Register(102, 2, "Goal Current", signed=True)  # as CURRENT_LIMIT
GOAL_VELOCITY = Register(104, 4, "Goal Velocity", signed=True, unit="rad/s", scale=RAD_S_PER_COUNT)
PROFILE_ACCELERATION = Register(
    108, 4, "Profile Acceleration", unit="rad/s²", scale=RAD_S2_PER_COUNT
)
PROFILE_VELOCITY = Register(112, 4, "Profile Velocity", unit="rad/s", scale=RAD_S_PER_COUNT)
GOAL_POSITION = Register(116, 4, "Goal Position", signed=True, unit="rad", scale=RAD_PER_TICK)
REALTIME_TICK = Register(120, 2, "Realtime Tick", unit="s", scale=1e-3, read_only=True)
MOVING = Register(122, 1, "Moving", read_only=True)
MOVING_STATUS = Register(123, 1, "Moving Status", read_only=True)
PRESENT_PWM = Register(
    124, 2, "Present PWM", signed=True, unit="duty", scale=1 / PWM_FULL, read_only=True
)
PRESENT_CURRENT = Register(126, 2, "Present Current", signed=True, read_only=True)
"""As CURRENT_LIMIT; on XL430 it is Present Load, 0.1 % of the largest torque per count."""
PRESENT_VELOCITY = Register(
    128, 4, "Present Velocity", signed=True, unit="rad/s", scale=RAD_S_PER_COUNT, read_only=True
)
PRESENT_POSITION = Register(
    132, 4, "Present Position", signed=True, unit="rad", scale=RAD_PER_TICK, read_only=True
)
VELOCITY_TRAJECTORY = Register(
    136, 4, "Velocity Trajectory", signed=True, unit="rad/s", scale=RAD_S_PER_COUNT, read_only=True
)
POSITION_TRAJECTORY = Register(
    140, 4, "Position Trajectory", signed=True, unit="rad", scale=RAD_PER_TICK, read_only=True
)
PRESENT_INPUT_VOLTAGE = Register(
    144, 2, "Present Input Voltage", unit="V", scale=0.1, read_only=True
)
PRESENT_TEMPERATURE = Register(146, 1, "Present Temperature", unit="°C", read_only=True)
BACKUP_READY = Register(147, 1, "Backup Ready", read_only=True)

CONTROL_TABLE = tuple(item for item in list(globals().values()) if isinstance(item, Register))
"""Every register above, by rising address."""
