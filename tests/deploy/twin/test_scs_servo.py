"""The emulated SCS servo, register by register, on a shaft that the test turns."""

import math
from functools import partial

import pytest

from deploy.feetech import scs_registers as registers
from deploy.feetech.registers import Fault
from deploy.feetech.servos import MODELS
from deploy.twin.scs_servo import ScsServo
from tests.deploy.twin.feetech import get, put
from tests.deploy.twin.feetech import run as run_at


@pytest.fixture
def servo() -> ScsServo:
    return ScsServo(1, MODELS["SCS0009"], 1_000_000, shaft_ticks=512)


run = partial(run_at, ticks=512)


def test_it_leaves_the_factory_as_the_memory_table_says(servo: ScsServo):
    # addresses, bytes and values of Feetech's table, byte by byte
    assert servo.read(2, 3).data == bytes([1, 5, 4])  # big-endian, 5.4
    assert servo.read(8, 5).data == bytes([1, 0, 20, 3, 235])  # answers all; 20 to 1003
    assert servo.read(13, 1).data == bytes([70])
    assert servo.read(15, 3).data == bytes([40, 3, 232])  # 4 V; 100 %
    assert servo.read(37, 3).data == bytes([20, 200, 80])  # 20 % after 2 s of more than 80 %
    assert servo.read(48, 1).data == bytes([1])
    assert servo.read(56, 2).data == bytes([2, 0])


def test_duty_is_the_p_gain_times_the_error(servo: ScsServo):
    put(servo, registers.P_GAIN, 10)
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 532)
    # 10 · 0.166 per rad; 20 counts of 300°/1024 are 0.10227 rad
    assert run(servo, 0.5) == pytest.approx(10 * 0.166 * 0.10227, rel=1e-3)
    assert get(servo, registers.PRESENT_LOAD) == 170
    put(servo, registers.GOAL_POSITION, 492)
    run(servo, 0.5, start_s=0.5)
    assert servo.read(60, 2).data == bytes([0x04, 170])  # bit 10 is the sign


def test_goal_moves_as_fast_as_it_is_told(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_SPEED, 100)
    put(servo, registers.GOAL_POSITION, 612)
    run(servo, 0.501)
    assert servo._motion[0] == pytest.approx(562, abs=0.5)


def test_speed_of_zero_is_a_standstill_unless_phase_says_otherwise(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_SPEED, 0)
    put(servo, registers.GOAL_POSITION, 612)
    assert run(servo, 0.2) == 0.0
    put(servo, registers.PHASE, registers.ZERO_IS_FASTEST)
    put(servo, registers.GOAL_POSITION, 612)
    assert run(servo, 0.2, start_s=0.2) > 0.1


def test_goal_beyond_the_limits_ends_at_the_limit(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 1023)
    run(servo, 1.0)
    assert servo._motion[0] == 1003


def test_limits_of_zero_make_it_a_motor(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.MIN_POSITION_LIMIT, 0)
    put(servo, registers.MAX_POSITION_LIMIT, 0)
    put(servo, registers.GOAL_TIME, -250)
    assert run(servo, 0.1) == -0.25


def test_damped_servo_brakes_and_follows_no_goal(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, registers.DAMPED)
    put(servo, registers.GOAL_POSITION, 900)
    assert run(servo, 0.2) == 0.0
    assert servo.torque_on  # its motor is short-circuited, not open


def test_max_torque_bounds_the_duty(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.MAX_TORQUE, 300)
    put(servo, registers.GOAL_POSITION, 1000)
    assert run(servo, 0.5) == 0.3


def test_overload_leaves_the_protective_torque_until_torque_was_off(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.P_GAIN, 100)
    put(servo, registers.GOAL_POSITION, 1000)
    assert run(servo, 1.9) == 1.0
    assert run(servo, 0.3, start_s=1.9) == 0.2
    assert servo.ping().faults == Fault.OVERLOAD
    put(servo, registers.TORQUE_ENABLE, 0)
    assert not servo.ping().faults


def test_supply_off_its_limits_switches_torque_off(servo: ScsServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    servo.voltage_v = 3.5
    run(servo, 0.01)
    assert servo.ping().faults & Fault.INPUT_VOLTAGE
    assert not servo.torque_on


@pytest.mark.parametrize(("ticks", "read"), [(-40, 0), (1023.4, 1023), (1100, 1023)])
def test_potentiometer_ends(servo: ScsServo, ticks: float, read: int):
    run(servo, 0.01, ticks=ticks)
    assert get(servo, registers.PRESENT_POSITION) == read


def test_speed_is_in_its_own_counts(servo: ScsServo):
    for step in range(200):
        servo.control(512, -1.0, step * 1e-3)
    # 1 rad/s of 300°/1024 a count
    assert get(servo, registers.PRESENT_SPEED) == -round(1024 / math.radians(300))


def test_what_is_written_while_locked_is_forgotten_at_power_off(servo: ScsServo):
    put(servo, registers.P_GAIN, 40)
    put(servo, registers.LOCK, 0)
    put(servo, registers.ID, 9)  # keeps all that is in the table now
    put(servo, registers.LOCK, 1)
    put(servo, registers.P_GAIN, 50)
    servo.reboot()
    assert (servo.id, get(servo, registers.P_GAIN)) == (9, 40)
    assert get(servo, registers.LOCK) == 1
    assert get(servo, registers.GOAL_SPEED) == 1000


def test_registers_that_only_an_sts_has_are_none(servo: ScsServo):
    servo.write(33, b"\x01")  # its mode
    servo.write(41, b"\x32")  # its acceleration
    assert servo.read(33, 1).data + servo.read(41, 1).data == bytes(2)
    assert servo.read(69, 2).data == bytes(2)
