import pytest

from deploy.dynamixel.registers import PWM_FULL, RAD_PER_TICK, RAD_S_PER_COUNT
from deploy.dynamixel.servos import MODELS
from deploy.twin.controllers import PositionController, VelocityController


def test_servo_without_a_limit_set_is_not_driven():
    assert PositionController(p=5.0).step((100, 0, 0), 0, 0.0) == 0
    assert VelocityController(p=5.0).step(100, 0.0) == 0


def test_stiffness_is_that_of_the_servo_model():
    servo = MODELS["XL430-W250"]
    controller = PositionController(p=640 / 128, pwm_limit=PWM_FULL)
    error_rad = 100 * RAD_PER_TICK

    torque = servo.stall_torque_nm * controller.step((100, 0, 0), 0, 0.0) / PWM_FULL

    assert abs(torque - servo.kp(640) * error_rad) < 1e-12


def test_damping_is_that_of_the_servo_model():
    servo = MODELS["XL430-W250"]
    controller = PositionController(d=4000 / 16, pwm_limit=PWM_FULL)

    torque = servo.stall_torque_nm * controller.step((0, 0, 0), 0, 0.5) / PWM_FULL

    assert abs(torque + servo.kd(4000) * 0.5) < 1e-12


def test_integral_grows_every_period_and_does_not_wind_up():
    controller = PositionController(i=0.1, pwm_limit=50)
    assert [controller.step((10, 0, 0), 0, 0.0) for _ in range(3)] == [1.0, 2.0, 3.0]
    for _ in range(1000):
        controller.step((10, 0, 0), 0, 0.0)
    assert controller.step((-10, 0, 0), 0, 0.0) == 49.0


def test_feedforward_acts_on_the_speed_and_acceleration_of_the_trajectory():
    controller = PositionController(
        feedforward_1st=100 / 4, feedforward_2nd=1000 / 4, pwm_limit=PWM_FULL
    )
    # 2000 counts/s are 2 per period; 40000 counts/s² change that by 0.04 per period
    assert abs(controller.step((0, 2000, 40_000), 0, 0.0) - (25 * 2 + 250 * 0.04)) < 1e-12


def test_velocity_controller_drives_by_error_and_its_sum():
    controller = VelocityController(p=100 / 128, i=1000 / 65536, pwm_limit=PWM_FULL)
    speed = 60 * RAD_S_PER_COUNT  # 40 counts too slow
    assert [controller.step(100, speed) for _ in range(3)] == pytest.approx(
        [31.25 + n * 40 * 1000 / 65536 for n in (1, 2, 3)]
    )


def test_velocity_trajectory_changes_no_faster_than_it_may():
    controller = VelocityController(pwm_limit=PWM_FULL, max_change=30)
    trajectory = []
    for goal in (100, 100, 100, 100, 100, 50, 50):
        controller.step(goal, 0.0)
        trajectory.append(controller.trajectory)
    assert trajectory == [30, 60, 90, 100, 100, 70, 50]
