"""The control table: layout, signs, units."""

import itertools
import math

import pytest

from deploy.dynamixel import registers
from deploy.dynamixel.registers import CONTROL_TABLE, Register


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


def test_units_are_those_of_the_manual():
    assert registers.PRESENT_VELOCITY.scale == pytest.approx(0.229 * 2 * math.pi / 60, rel=1e-3)
    assert 4096 * registers.GOAL_POSITION.scale == pytest.approx(2 * math.pi)
    assert registers.PROFILE_ACCELERATION.scale == pytest.approx(214.577 * 2 * math.pi / 60**2)
    assert 5 * registers.BUS_WATCHDOG.scale == pytest.approx(0.1)
    assert 250 * registers.RETURN_DELAY_TIME.scale == pytest.approx(500e-6)  # the factory value


def test_eeprom_ends_at_torque_enable():
    assert registers.SHUTDOWN.in_eeprom
    assert not registers.TORQUE_ENABLE.in_eeprom


def test_factory_shutdown_mask_is_overheating_shock_and_overload():
    error = registers.HardwareError
    assert error(52) == error.OVERHEATING | error.ELECTRICAL_SHOCK | error.OVERLOAD
