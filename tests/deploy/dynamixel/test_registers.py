"""The control table: layout, signs, units."""

import itertools
import math

import pytest

from deploy.dynamixel import registers
from deploy.dynamixel.registers import (
    BAUD_RATES,
    CONTROL_TABLE,
    HardwareError,
    OperatingMode,
    Register,
)

# The control tables of the eManual, "XL430-W250-T" and "XL330-M288-T": address, size, access, name,
# and the unit as printed there. "+-" marks what may be negative: a range that begins below zero,
# or a motion, which has a direction. Present Current is Present Load on the XL430.
EMANUAL = """
  0 2 R     Model Number           | -
  2 4 R     Model Information      | -
  6 1 R     Firmware Version       | -
  7 1 RW    ID                     | -
  8 1 RW    Baud Rate              | -
  9 1 RW    Return Delay Time      | 2 μsec
 10 1 RW    Drive Mode             | -
 11 1 RW    Operating Mode         | -
 12 1 RW    Secondary(Shadow) ID   | -
 13 1 RW    Protocol Type          | -
 20 4 RW +- Homing Offset          | 1 pulse
 24 4 RW    Moving Threshold       | 0.229 rev/min
 31 1 RW    Temperature Limit      | 1 °C
 32 2 RW    Max Voltage Limit      | 0.1 V
 34 2 RW    Min Voltage Limit      | 0.1 V
 36 2 RW    PWM Limit              | 0.113 %
 38 2 RW    Current Limit          | -
 44 4 RW    Velocity Limit         | 0.229 rev/min
 48 4 RW    Max Position Limit     | 1 pulse
 52 4 RW    Min Position Limit     | 1 pulse
 60 1 RW    Startup Configuration  | -
 62 1 RW    PWM Slope              | 1.977 mV/msec
 63 1 RW    Shutdown               | -
 64 1 RW    Torque Enable          | -
 65 1 RW    LED                    | -
 68 1 RW    Status Return Level    | -
 69 1 R     Registered Instruction | -
 70 1 R     Hardware Error Status  | -
 76 2 RW    Velocity I Gain        | 1/65536
 78 2 RW    Velocity P Gain        | 1/128
 80 2 RW    Position D Gain        | 1/16
 82 2 RW    Position I Gain        | 1/65536
 84 2 RW    Position P Gain        | 1/128
 88 2 RW    Feedforward 2nd Gain   | 1/4
 90 2 RW    Feedforward 1st Gain   | 1/4
 98 1 RW +- Bus Watchdog           | 20 msec
100 2 RW +- Goal PWM               | 0.113 %
102 2 RW +- Goal Current           | -
104 4 RW +- Goal Velocity          | 0.229 rev/min
108 4 RW    Profile Acceleration   | 214.577 rev/min²
112 4 RW    Profile Velocity       | 0.229 rev/min
116 4 RW +- Goal Position          | 1 pulse
120 2 R     Realtime Tick          | 1 msec
122 1 R     Moving                 | -
123 1 R     Moving Status          | -
124 2 R  +- Present PWM            | 0.113 %
126 2 R  +- Present Current        | -
128 4 R  +- Present Velocity       | 0.229 rev/min
132 4 R  +- Present Position       | 1 pulse
136 4 R  +- Velocity Trajectory    | 0.229 rev/min
140 4 R  +- Position Trajectory    | 1 pulse
144 2 R     Present Input Voltage  | 0.1 V
146 1 R     Present Temperature    | 1 °C
147 1 R     Backup Ready           | -
"""
SI = {
    "rev/min": ("rad/s", 2 * math.pi / 60),
    "rev/min²": ("rad/s²", 2 * math.pi / 60**2),
    "pulse": ("rad", 2 * math.pi / 4096),
    "mV/msec": ("V/s", 1.0),
    "msec": ("s", 1e-3),
    "μsec": ("s", 1e-6),
    "%": ("duty", 0.01),
    "V": ("V", 1.0),
    "°C": ("°C", 1.0),
}
"""Unit of the eManual -> ours, and how many of ours it is."""


@pytest.mark.parametrize(
    ("register", "row"),
    list(zip(CONTROL_TABLE, EMANUAL.strip().splitlines(), strict=True)),
    ids=lambda value: str(value) if isinstance(value, Register) else "",
)
def test_register_is_that_of_the_manual(register: Register, row: str):
    place, unit = row.split(" | ")
    address, size, access, *rest = place.split()
    sign, name = (rest[0], rest[1:]) if rest[0] == "+-" else ("", rest)

    assert (register.address, register.size) == (int(address), int(size))
    assert register.name == " ".join(name)
    assert register.read_only == (access == "R")
    assert register.signed == (sign == "+-")
    if "/" in unit.split()[0]:
        assert register.scale == 1 / int(unit.removeprefix("1/"))
    elif unit != "-":
        count, printed = unit.split()
        ours, factor = SI[printed]
        assert register.unit == ours
        assert register.scale == pytest.approx(float(count) * factor, rel=1e-3)  # rounded there
    else:
        assert (register.unit, register.scale) == ("", 1.0)


@pytest.mark.parametrize(
    ("value", "baud_rate"),
    # eManual, "Baud Rate(8)"
    [(0, 9600), (1, 57_600), (2, 115_200), (3, 1_000_000), (4, 2_000_000), (5, 3_000_000),
     (6, 4_000_000), (7, 4_500_000)],
)  # fmt: skip
def test_baud_rates_are_those_of_the_manual(value: int, baud_rate: int):
    assert BAUD_RATES[value] == baud_rate
    assert len(BAUD_RATES) == 8


def test_modes_and_error_bits_are_those_of_the_manual():
    assert [(mode.name, mode.value) for mode in OperatingMode] == [  # eManual, "Operating Mode(11)"
        ("CURRENT", 0),
        ("VELOCITY", 1),
        ("POSITION", 3),
        ("EXTENDED_POSITION", 4),
        ("CURRENT_BASED_POSITION", 5),
        ("PWM", 16),
    ]
    assert [(error.name, error.value.bit_length() - 1) for error in HardwareError] == [
        ("INPUT_VOLTAGE", 0),  # eManual, "Shutdown(63)", by bit
        ("MOTOR_HALL_SENSOR", 1),
        ("OVERHEATING", 2),
        ("ENCODER", 3),
        ("ELECTRICAL_SHOCK", 4),
        ("OVERLOAD", 5),
    ]


def test_control_table_is_sorted_and_no_two_registers_overlap():
    for register, following in itertools.pairwise(CONTROL_TABLE):
        assert register.address + register.size <= following.address


def test_feedback_registers_form_one_block_of_twelve_bytes():
    block = [registers.PRESENT_PWM, registers.PRESENT_CURRENT, registers.PRESENT_VELOCITY]
    block.append(registers.PRESENT_POSITION)
    assert [register.address for register in block] == [124, 126, 128, 132]
    assert sum(register.size for register in block) == 12


@pytest.mark.parametrize(
    ("register", "value", "data"),
    [
        (registers.GOAL_POSITION, 1, "01 00 00 00"),
        (registers.GOAL_POSITION, -1, "FF FF FF FF"),
        (registers.GOAL_POSITION, 4096, "00 10 00 00"),
        (registers.GOAL_POSITION, -(2**31), "00 00 00 80"),
        (registers.GOAL_POSITION, 2**31 - 1, "FF FF FF 7F"),
        (registers.GOAL_PWM, -885, "8B FC"),
        (registers.GOAL_CURRENT, -1, "FF FF"),
        (registers.BUS_WATCHDOG, registers.BUS_WATCHDOG_TRIPPED, "FF"),
        (registers.BUS_WATCHDOG, 127, "7F"),
        (registers.POSITION_P_GAIN, 640, "80 02"),
        (registers.RETURN_DELAY_TIME, 254, "FE"),
    ],
    ids=lambda value: str(value),
)
def test_value_and_bytes_are_each_others_inverse(register: Register, value: int, data: str):
    assert register.encode(value) == bytes.fromhex(data)
    assert register.decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize("register", CONTROL_TABLE, ids=str)
def test_extreme_values_fit_and_the_next_ones_do_not(register: Register):
    low, high = register.range
    for value in (low, high):
        assert register.decode(register.encode(value)) == value
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match="cannot hold"):
            register.encode(value)


def test_value_that_does_not_fit_is_explained():
    with pytest.raises(ValueError, match="cannot hold") as error:
        registers.TORQUE_ENABLE.encode(-1)
    assert str(error.value) == (
        "Torque Enable (64) cannot hold -1: expected 0..255; give raw counts, not rad or percent"
    )


def test_units_that_the_manual_rounds_are_exact():
    # ROBOTIS' dynamixel_hardware_interface, xl430_w250.model: 0.0239691227 rad/s
    assert registers.PRESENT_VELOCITY.scale == 0.0239691227
    assert 885 * registers.GOAL_PWM.scale == pytest.approx(1)  # 885 is 100 %
    assert 4096 * registers.GOAL_POSITION.scale == pytest.approx(2 * math.pi)


def test_eeprom_ends_at_torque_enable():
    assert registers.SHUTDOWN.in_eeprom
    assert not registers.TORQUE_ENABLE.in_eeprom


def test_factory_shutdown_mask_is_overheating_shock_and_overload():
    error = HardwareError
    assert error(52) == error.OVERHEATING | error.ELECTRICAL_SHOCK | error.OVERLOAD
