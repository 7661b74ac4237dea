from deploy.dynamixel.registers import PWM_FULL, RAD_PER_TICK
from deploy.dynamixel.servos import MODELS
from deploy.twin.controllers import PositionController


def test_stiffness_is_that_of_the_servo_model():
    servo = MODELS["XL430-W250"]
    controller = PositionController(p=640 / 128, pwm_limit=PWM_FULL)
    error_rad = 100 * RAD_PER_TICK

    torque = servo.stall_torque_nm * controller.step(100, 0, 0.0) / PWM_FULL

    assert abs(torque - servo.kp(640) * error_rad) < 1e-12


def test_damping_is_that_of_the_servo_model():
    servo = MODELS["XL430-W250"]
    controller = PositionController(d=4000 / 16, pwm_limit=PWM_FULL)

    torque = servo.stall_torque_nm * controller.step(0, 0, 0.5) / PWM_FULL

    assert abs(torque + servo.kd(4000) * 0.5) < 1e-12


def test_integral_grows_every_period_and_does_not_wind_up():
    controller = PositionController(i=0.1, pwm_limit=50)
    assert [controller.step(10, 0, 0.0) for _ in range(3)] == [1.0, 2.0, 3.0]
    for _ in range(1000):
        controller.step(10, 0, 0.0)
    assert controller.step(-10, 0, 0.0) == 49.0


def test_profile_limits_the_speed_of_the_trajectory():
    controller = PositionController(p=1.0, pwm_limit=PWM_FULL, max_step=2.0)
    controller.start(100)
    assert [controller.step(105, 100, 0.0) for _ in range(4)] == [2.0, 4.0, 5.0, 5.0]
