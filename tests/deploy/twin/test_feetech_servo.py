"""The emulated Feetech servo, register by register, on a shaft that the test turns."""

import math
from functools import partial

import pytest

from deploy.feetech import registers
from deploy.feetech.registers import RAD_PER_TICK, Fault, Mode
from deploy.feetech.servos import MODELS
from deploy.twin.feetech_servo import BOOT_S, MAKE_MIDDLE, FeetechServo
from tests.deploy.twin.feetech import get, put
from tests.deploy.twin.feetech import run as run_at


@pytest.fixture
def servo() -> FeetechServo:
    return FeetechServo(1, MODELS["STS3215-12V"], 1_000_000, shaft_ticks=2048)


run = partial(run_at, ticks=2048)


def test_limp_servo_gives_no_duty_whatever_its_goal(servo: FeetechServo):
    put(servo, registers.GOAL_POSITION, 3000)
    assert run(servo, 0.1) == 0.0


def test_duty_is_the_p_gain_times_the_error(servo: FeetechServo):
    put(servo, registers.P_GAIN, 16)
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 2148)
    # 16 · 0.166 of full duty per rad, 0.97 at most, and 100 counts are 0.1534 rad
    assert run(servo, 0.5) == pytest.approx(16 * 0.166 * 0.15340 / 0.97, rel=1e-3)
    assert get(servo, registers.PRESENT_LOAD) == pytest.approx(420, abs=1)


def test_error_within_the_dead_zone_gives_none(servo: FeetechServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 2049)
    assert run(servo, 0.1) == 0.0


def test_torque_limit_bounds_the_duty(servo: FeetechServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.TORQUE_LIMIT, 300)
    put(servo, registers.GOAL_POSITION, 3000)
    assert run(servo, 0.1) == 0.3


def test_goal_is_approached_at_the_goal_velocity(servo: FeetechServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_SPEED, 100)
    run(servo, 0.01)
    put(servo, registers.GOAL_POSITION, 2148)
    duty = run(servo, 0.5, start_s=0.01)  # half of the way
    assert duty == pytest.approx(32 * 0.166 * 50 * RAD_PER_TICK / 0.97, rel=0.05)


def test_firmware_moves_the_goal_of_a_7_volt_servo_no_faster_than_it_was_measured():
    servo = FeetechServo(1, MODELS["STS3215-7.4V"], 1_000_000, shaft_ticks=1000)
    put(servo, registers.TORQUE_ENABLE, 1)
    run(servo, 0.01, ticks=1000)
    put(servo, registers.GOAL_POSITION, 3000)
    run(servo, 0.1, ticks=1000, start_s=0.01)
    assert servo._motion[0] - 1000 == pytest.approx(5.07 * 0.1 / RAD_PER_TICK, abs=8)


def test_goal_beyond_the_position_limits_ends_at_the_limit(servo: FeetechServo):
    put(servo, registers.MAX_POSITION_LIMIT, 2100)
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 3000)
    run(servo, 0.5)
    assert servo._motion[0] == 2100


def test_torque_switched_on_drives_to_an_old_goal(servo: FeetechServo):
    put(servo, registers.GOAL_POSITION, 2500)
    put(servo, registers.TORQUE_ENABLE, 1)
    assert run(servo, 0.2) > 0.5


def test_what_is_written_while_locked_is_forgotten_at_power_off(servo: FeetechServo):
    put(servo, registers.P_GAIN, 16)
    assert get(servo, registers.P_GAIN) == 16
    servo.reboot()
    assert get(servo, registers.P_GAIN) == 32


def test_what_is_written_while_unlocked_is_kept(servo: FeetechServo):
    put(servo, registers.LOCK, 0)
    put(servo, registers.P_GAIN, 16)
    servo.reboot()
    assert get(servo, registers.P_GAIN) == 16
    assert get(servo, registers.LOCK) == 1


def test_power_off_and_on_leaves_it_limp_silent_for_a_while_and_its_goal_where_it_is(
    servo: FeetechServo,
):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 3000)
    run(servo, 0.1)
    servo.reboot()
    assert not servo.torque_on
    assert get(servo, registers.GOAL_POSITION) == 2048
    assert not servo.listens(1_000_000, 0.099 + 0.9 * BOOT_S)
    assert servo.listens(1_000_000, 0.1 + BOOT_S)


def test_read_only_registers_stay_as_they_are(servo: FeetechServo):
    put(servo, registers.PRESENT_POSITION, 1)
    put(servo, registers.MODEL_NUMBER, 1)
    assert get(servo, registers.PRESENT_POSITION) == 2048
    assert get(servo, registers.MODEL_NUMBER) == 777


def test_position_is_corrected_and_stays_within_a_turn(servo: FeetechServo):
    put(servo, registers.HOMING_OFFSET, -2047)
    assert get(servo, registers.PRESENT_POSITION) == 4095
    run(servo, 0.001, ticks=2049)
    assert get(servo, registers.PRESENT_POSITION) == 0


def test_position_may_count_turns(servo: FeetechServo):
    put(servo, registers.PHASE, 12 | registers.MULTI_TURN)
    run(servo, 0.001, ticks=-100)
    assert get(servo, registers.PRESENT_POSITION) == -100


@pytest.mark.parametrize("ticks", [0, 1000, 3000, 4095])
def test_middle_is_where_the_shaft_is_when_it_is_told_so(servo: FeetechServo, ticks: int):
    run(servo, 0.001, ticks=ticks)
    put(servo, registers.TORQUE_ENABLE, MAKE_MIDDLE)
    assert get(servo, registers.PRESENT_POSITION) == pytest.approx(2048, abs=1)
    assert not servo.torque_on
    servo.reboot()
    assert get(servo, registers.PRESENT_POSITION) == pytest.approx(2048, abs=1)


def test_overload_leaves_the_protective_torque_until_torque_was_off(servo: FeetechServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_POSITION, 3000)
    put(servo, registers.PROTECTION_CURRENT, 1000)
    assert run(servo, 1.9) == 1.0
    assert run(servo, 0.3, start_s=1.9) == 0.2
    assert servo.ping().faults == Fault.OVERLOAD
    put(servo, registers.GOAL_POSITION, 2048)
    assert servo.ping().faults == Fault.OVERLOAD
    put(servo, registers.TORQUE_ENABLE, 0)
    assert not servo.ping().faults


def test_too_much_current_for_too_long_ends_with_torque_off(servo: FeetechServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.OVERLOAD_TORQUE, 100)
    put(servo, registers.PROTECTION_CURRENT, 100)  # 0.65 A
    put(servo, registers.GOAL_POSITION, 3000)
    run(servo, 2.1)
    assert not servo.torque_on
    assert servo.ping().faults & Fault.OVER_CURRENT


def test_supply_outside_the_limits_is_reported_for_as_long_as_it_lasts(servo: FeetechServo):
    put(servo, registers.TORQUE_ENABLE, 1)
    servo.voltage_v = 15.0
    run(servo, 0.002)
    assert servo.ping().faults == Fault.INPUT_VOLTAGE
    assert servo.torque_on  # Unloading Condition does not name it
    servo.voltage_v = 12.0
    run(servo, 0.002, start_s=0.002)
    assert not servo.ping().faults


def test_pwm_mode_gives_the_duty_that_is_asked_for(servo: FeetechServo):
    put(servo, registers.MODE, Mode.PWM)
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_TIME, -250)
    assert run(servo, 0.01) == -0.25


def test_speed_mode_follows_the_goal_velocity(servo: FeetechServo):
    put(servo, registers.MODE, Mode.SPEED)
    put(servo, registers.TORQUE_ENABLE, 1)
    put(servo, registers.GOAL_SPEED, -500)
    assert run(servo, 0.1) < -0.1


def test_stalled_motor_draws_what_its_winding_lets_through(servo: FeetechServo):
    physics = servo.model.physics
    assert servo.motor_current_a(1.0, 0.0) == pytest.approx(0.97 * 12 / physics.resistance_ohm)
    assert servo.motor_current_a(0.0, 1.0) < 0.0


def test_nobody_listens_at_another_baud_rate(servo: FeetechServo):
    assert not servo.listens(500_000, 1.0)
    put(servo, registers.BAUD_RATE, 1)
    assert servo.listens(500_000, 1.0)
    assert math.isclose(servo.return_delay_s, 250 * 2e-6)


def test_it_tells_how_warm_it_is_now(servo: FeetechServo):
    servo.temperature_c = 61.4
    run(servo, 0.01)
    assert get(servo, registers.PRESENT_TEMPERATURE) == 61
